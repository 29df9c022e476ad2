"""What each stage was made from, so that a change makes again what depends on it, and only that.

WORKDIR/<stage>/made_from.json    written before the stage begins
WORKDIR/<stage>/done.json         written when it is finished: with the checksums of its results

Both hold the values of the config fields that the stage reads, and checksums of the parts of the
data folder and of the results of the stages before it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.base import files
from stormpsr_jax.data import checksums
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.model.folder import MODEL, WEIGHTS
from stormpsr_jax.psr.files.scores import KINDS
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.psr.streams.learned_weights import default_weights
from stormpsr_jax.stages import embed
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.pretrain import packaged_or_path, takes_renders
from stormpsr_jax.training import checkpoint

MADE_FROM, DONE = "made_from.json", "done.json"
# Stages whose results take long to make and are never thrown away unasked.
TRAINED = ("general", "pretrain", "temporal", "finetune", "detector")

_PICTURES = ("dtype", "data.mean", "data.std")
_TRAINING = ("seed", *_PICTURES, "augment")
_CAD = ("data.cad_mean", "data.cad_std")
_CLIPS = (
    *("window", "temporal.delta", "temporal.sigma", "temporal.sampling", "temporal.floor"),
    *("temporal.state_loss", "temporal.best"),
)
_ENCODER = ("encoder", "pretrain.state_loss")  # with its weight 0, the encoder has no state head
_NETWORKS = (*_ENCODER, "temporal_model", "temporal.state_loss")
# Fields of the config that a stage reads, or sections of them.
FIELDS = {
    "data": ("data.synthetic",),
    "general": (*_TRAINING, *_ENCODER, "general"),
    "pretrain": (*_TRAINING, *_CAD, "encoder", "pretrain"),
    "embed": (*_TRAINING, *_ENCODER, "embed.views"),
    "temporal": (
        *("seed", "dtype", "window", "temporal_model", "temporal", "embed.views"),
        *("encoder.hidden", "encoder.image_size"),
    ),
    "finetune": (
        *_TRAINING,
        *_CLIPS,
        "encoder",
        "pretrain.state_loss",
        "temporal_model",
        "finetune",
    ),
    "detector": (*_TRAINING, *_CAD, "detector"),
    "predict": (
        *(*_PICTURES, *_NETWORKS, "window", "predict"),
        *("detector.width", "detector.depth", "detector.levels", "detector.max_detections"),
        *("detector.part_loss", "detector.pose_loss", "detector.image_size", "detector.grid"),
    ),
    "fuse": ("seed", "fuse"),
    "evaluate": ("evaluate", "window"),
}
# Of these, the ones that change how a run goes and not what comes out.
FREE = (
    *("*.workers", "*.log_every", "*.checkpoint_every", "embed.batch", "predict.batch"),
    *("encoder.remat", "encoder.microbatches", "pretrain.supcon_block"),
)
# Parts of the training and the validation split that a stage reads; see `checksums.DataChecksums`.
PARTS = {
    "pretrain": ("pictures", "states"),
    "embed": ("pictures",),
    "temporal": ("states",),
    "finetune": ("pictures", "states"),
    "detector": ("pictures", "boxes"),
}


def flat_config(config: ConfigDict) -> dict[str, Any]:
    """The config as {field: JSON value}, fields joined by dots."""
    return _flatten(json.loads(config.to_json()))  # tuples and lists compare alike


def _flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def stages_before(context: Context, stage: str) -> tuple[str, ...]:
    """The stages whose results a stage reads."""
    if stage == "predict":
        chosen = context.config.stages
        names = ["detector"] if "detector" in chosen else []
        if "temporal" in chosen:
            if "finetune" in chosen:
                names.append("finetune")
            else:
                names += ["temporal"] if context.ready_made else ["pretrain", "temporal"]
        return tuple(names)
    if stage == "temporal":
        return () if context.ready_made else ("embed",)
    if stage == "evaluate" and "fuse" in context.config.stages:
        return ("predict", "fuse")
    before = {
        "embed": ("pretrain",),
        "finetune": ("pretrain", "temporal"),
        "fuse": ("predict",),
        "evaluate": ("predict",),
    }
    return before.get(stage, ())


def made_from(context: Context, stage: str) -> dict[str, dict[str, Any]]:
    """What a stage would be made from now.

    Returns:
        "config" {field: value}, "data" {part of a split: checksum}, "procedure" {what: checksum}
        and "stages" {stage: checksum of its results, None if it is not finished}. Without "data"
        and "procedure" where the data folder is not finished.
    """
    fields = {
        field: value
        for field, value in flat_config(context.config).items()
        if any(field == name or field.startswith(f"{name}.") for name in FIELDS[stage])
        and not any(fnmatch.fnmatchcase(field, free) for free in FREE)
    }
    before = {name: _of_results(context.workdir / name) for name in stages_before(context, stage)}
    result = {"config": fields, "stages": before}
    if stage != "data" and context.has_data:
        result["data"] = _data(context, stage)
        result["procedure"] = _procedure(context, stage)
    return result


def _data(context: Context, stage: str) -> dict[str, str]:
    config, found = context.config, {}
    known = checksums.DataChecksums(context.workdir / "checksums.json")

    def add(source, parts):
        for part, value in known.of_split(source, parts).items():
            found[f"{part} of split {source.split}"] = value

    if stage == "general":
        for split in ("train", "val"):
            found[f"labels of split {split}"] = files.checksum(
                context.data_dir / "labels" / f"{split}.npz"
            )
    if stage in PARTS:
        parts = PARTS[stage]
        if stage == "temporal" and context.ready_made:
            parts = ("pictures", *parts)
        if stage == "detector":
            heads = {"states": config.detector.part_loss, "poses": config.detector.pose_loss}
            parts = (*parts, *(part for part, weight in heads.items() if weight))
        read = context.detector_source if stage == "detector" else context.source
        for split in embed.SPLITS:
            add(read(split), parts)
    if (stage == "pretrain" and takes_renders(config)) or (
        stage == "detector" and config.detector.cad
    ):
        add(context.cad_source(), parts)
    if stage == "pretrain":
        if config.init_from:
            found["the file of init_from"] = files.checksum(packaged_or_path(config.init_from))
        found["frames per second"] = context.source("train").fps
    if stage == "predict":
        for split in config.predict.splits:
            add(context.source(split), ("pictures", "states", "visible"))
            if config.data.detector_dir and "detector" in config.stages:
                large = known.of_split(context.detector_source(split), ("pictures",))
                found[f"the detector's pictures of split {split}"] = large["pictures"]
    if stage == "fuse":
        for kind in KINDS:
            found[f"default weights of kind {kind}"] = default_weights(kind).checksum
    if stage in ("fuse", "evaluate"):
        for split in ("val",) if stage == "fuse" else ("val", "test"):
            folder = context.data_dir / "labels" / split
            found[f"label files of split {split}"] = checksums.of_labels(folder)
        found["frames per second"] = context.source(split).fps
    if stage == "evaluate" and "detector" in config.stages:
        add(context.detector_source("test"), ("boxes",))
    return found


def _procedure(context: Context, stage: str) -> dict[str, Any]:
    content = context.procedure.to_json()
    if stage == "evaluate":
        return {"whole": _of_json(content)}
    found = {"number of components": len(content["components"])}
    if stage == "fuse":
        initial = {name: v["initial_state"] for name, v in content["variants"].items()}
        found["initial states"] = _of_json(initial)
    if stage in ("pretrain", "detector", "fuse"):
        found["states"] = _of_json(content["states"])
    return found


def _of_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _of_results(folder: Path) -> str | None:
    """One checksum of all results of a finished stage, None if it is not finished."""
    record = read(folder)
    return _of_json(record["results"]) if record and "results" in record else None


def read(folder: Path) -> dict[str, Any] | None:
    """What is on record of a stage; None of nothing.

    Returns:
        "made_from", "results" if it is finished, and "damage": what is wrong with its records.
        Without a sound record, "made_from" is empty.
    """
    damage: list[str] = []
    for name in (DONE, MADE_FROM):
        path = folder / name
        if os.path.lexists(path):
            try:
                return {**_record(path), "damage": damage}
            except ValueError as error:
                damage.append(str(error))
    return {"made_from": {}, "damage": damage} if damage else None


def _record(path: Path) -> dict[str, Any]:
    """Reads a record of a stage; ValueError if it is damaged."""
    record, place = files.read_json(path), str(path)
    if not isinstance(record, dict):
        raise ValueError(f"{place}: is not a JSON object")
    if path.name == DONE and "results" not in record:
        return {"made_from": {}}  # of a version that recorded nothing
    made_from = files.field(record, "made_from", dict, place)
    for section in made_from:
        files.field(made_from, section, dict, f"{place}: made_from")
    if path.name == DONE:
        results = files.field(record, "results", dict, place)
        files.field(record, "log", (str, type(None)), place)
        for name in results:
            files.field(results, name, str, f"{place}: results")
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"{place}: results: {files.shorten(name)} is no file of a run")
    return record


def result_files(context: Context, stage: str) -> list[Path]:
    """The files that a finished stage has made and later ones, or people, use."""
    workdir = context.workdir
    if stage == "data":
        return []  # what is in the data folder is compared part by part
    if stage == "embed":
        return sorted((workdir / "embed").rglob("*.npy"))
    if stage == "predict":
        found = (workdir / "predictions").rglob("*")
        return sorted(path for path in found if path.suffix in (".csv", ".npz"))
    if stage == "fuse":
        return [workdir / "fuse" / name for name in ("fusion.json", "folds.json")]
    if stage == "evaluate":
        return [
            workdir / "metrics.json",
            workdir / "report.html",
            *workdir.glob("detections.json"),
            *(workdir / "model" / name for name in (MODEL, WEIGHTS)),  # people may edit the card
        ]
    names = ["best.safetensors"] + (["encoder.safetensors"] if stage == "general" else [])
    return [workdir / stage / name for name in names]


def check_kinds(context: Context, stage: str) -> None:
    """Raises ValueError if there is a pipe or device in a stage's folder: reading may never end."""
    folder = context.workdir / stage
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.exists() and not path.is_dir():
            files.check_regular(path, "remove it and run the same command again")


def begin(context: Context, stage: str, sources: Mapping[str, Any]) -> None:
    """Records what a stage that begins is made from."""
    folder = context.workdir / stage
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / MADE_FROM, {"made_from": sources})


def finish(context: Context, stage: str, sources: Mapping[str, Any], facts: Mapping) -> None:
    """Records that a stage is finished, and the checksums of its results."""
    results = {
        str(path.relative_to(context.workdir)): files.checksum(path)
        for path in result_files(context, stage)
    }
    log = context.workdir / stage / "metrics.jsonl"
    content = {
        **facts,
        "made_from": sources,
        "results": results,
        "log": files.checksum(log) if log.is_file() else None,
    }
    files.write_json(context.workdir / stage / DONE, content)


def damaged_log(context: Context, stage: str, record: Mapping[str, Any]) -> list[str]:
    """Says whether the log of a finished stage was damaged, which is no reason to train again."""
    path, known = context.workdir / stage / "metrics.jsonl", record.get("log")
    if known is None or (path.is_file() and files.checksum(path) == known):
        return []
    return [f"{path} was damaged or changed: the curves of a report would not be complete"]


def damage(context: Context, stage: str, record: Mapping[str, Any]) -> list[str]:
    """Lists the records and results of a finished stage that are not what it left.

    Without a sound record of its end, a trained stage goes on from its last checkpoint, which has
    checksums of its own.
    """
    goes_on = stage in TRAINED and record["made_from"]
    found = [] if goes_on else list(record["damage"])
    for name, known in record.get("results", {}).items():
        path = context.workdir / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif files.checksum(path) != known:
            found.append(f"{name} was damaged or changed")
    if stage == "predict" and "fuse" in context.config.stages:
        for split in context.config.predict.splits:
            if not (context.workdir / "predictions" / split / "scores").is_dir():
                found.append(f"predictions/{split}/scores is missing")
    if stage == "data":
        try:
            own = load_procedure(context.data_dir / "procedure.json")
            for split in list_splits(context.data_dir):
                if own == context.procedure:
                    context.source(split)
                else:  # random objects, whose parts are counted by a procedure of their own
                    ClipSource(context.data_dir, split, own)
        except ValueError as error:
            found.append(str(error))
    return found


def changes(record: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Says in what the record of a stage and a `made_from` differ, for people.

    A stage before that is not finished makes no difference yet.
    """
    before = record["made_from"]
    if not before:
        return record["damage"] or ["it has no record of what it was made from"]
    found = []
    for section, values in now.items():
        old = before.get(section, {})
        for name in sorted(old.keys() | values.keys()):
            if old.get(name) == values.get(name) or values.get(name, "") is None:
                continue
            if section == "config":
                found.append(f"{name} {old.get(name, 'absent')} → {values.get(name, 'absent')}")
            elif section == "data":
                found.append(f"other {name}")
            elif section == "procedure":
                found.append(f"another procedure ({name})")
            elif name not in old:
                found.append(f"stage {name} is new")
            elif name not in values:
                found.append(f"without stage {name}")
            else:
                found.append(f"another result of {name}")
    return found


def has_weights(context: Context, stage: str) -> bool:
    """Whether a stage has trained weights that can be read, or is on the way to them."""
    folder = context.workdir / stage
    if stage not in TRAINED:
        return False
    try:
        checkpoint.load_best(folder)
    except ValueError:
        return any((folder / "checkpoints").glob("[0-9]*"))
    return True


def folders(stage: str) -> tuple[str, ...]:
    """The folders of WORKDIR in which a stage leaves what it makes, its records in the last one."""
    return ("predictions", "predict") if stage == "predict" else (stage,)


def clear(context: Context, stage: str) -> None:
    """Removes what a stage has made."""
    if stage == "data" and context.config.data.dir:
        return  # a folder of the user; data_prep refuses to write other data into it
    for name in reversed(folders(stage)):
        shutil.rmtree(context.workdir / name, ignore_errors=True)


def lost_weights(context: Context, stages: Sequence[str]) -> list[str]:
    """Says which trained stages would be trained again, and why.

    A stage also counts if one before it will have another result.
    """
    lost, again = [], set()
    for stage in stages:
        record = read(context.workdir / stage)
        if record is None:
            continue
        why = changes(record, made_from(context, stage))
        before = ("data", *stages_before(context, stage))
        why += [f"{name} is made again" for name in before if name in again]
        if why:
            again.add(stage)
            if has_weights(context, stage):
                lost.append(f"{stage} ({'; '.join(why)})")
    return lost
