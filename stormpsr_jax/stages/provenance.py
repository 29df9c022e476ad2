"""What each stage was made from, so that a change makes again what depends on it, and only that.

WORKDIR/<stage>/made_from.json    written before the stage begins
WORKDIR/<stage>/done.json         written when it is finished: with the checksums of its results

Both hold the values of the config fields that the stage reads, and checksums of the parts of the
data folder and of the results of the stages before it. Of a stage that trains they also list the
trainings that its weights went through, the last one being its own (see `continuing`).
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

import msgspec
from ml_collections import ConfigDict

from stormpsr_jax.base import files
from stormpsr_jax.data import checksums
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.stages.context import Context, packaged_or_path
from stormpsr_jax.stages.stage import LABEL_FILES, LABELS, Stage
from stormpsr_jax.training import checkpoint

MADE_FROM, DONE = "made_from.json", "done.json"
START = "start.safetensors"  # weights that a trained stage goes on from; see `continuing`
# Fields that change how a run goes and not what comes out.
FREE = ("*.workers", "*.log_every", "*.checkpoint_every", "encoder.remat", "encoder.microbatches")
# Of data: what earlier versions did not record. The config says if it was used, or other stages
# do where it has changed.
LATER = ("timelines", "backgrounds", "number of components", "frames per second")
# Of the config: what earlier versions recorded of stages that do not read it.
UNREAD = ("augment.occluders", "augment.shift", "predict.splits")


class Training(msgspec.Struct):
    """A training that weights went through, with the recordings that it saw, by split.

    `steps` are all that it takes, and once it is finished those up to the weights that were best.
    """

    steps: int
    recordings: dict[str, list[str]]


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


def made_from(context: Context, stage: Stage) -> dict[str, dict[str, Any]]:
    """What a stage would be made from now.

    Returns:
        "config" {field: value}, "data" {part of a split: checksum}, "procedure" {what: checksum}
        and "stages" {stage: checksum of its results, None if it is not finished}. Without "data"
        and "procedure" where the data folder is not finished. Of a stage that makes it, "data" is
        what it is made from.
    """
    fields = {
        field: value
        for field, value in flat_config(context.config).items()
        if any(field == name or field.startswith(f"{name}.") for name in stage.fields)
        and not any(fnmatch.fnmatchcase(field, free) for free in (*FREE, *stage.free))
    }
    before = {
        other.name: _of_results(context.workdir / other.name) for other in stage.after(context)
    }
    result = {"config": fields, "stages": before}
    if stage.makes_data:
        result["data"] = stage.further(context)
    elif context.has_data:
        result["data"] = _data(context, stage)
        result["procedure"] = _procedure(context, stage)
    return result


def _data(context: Context, stage: Stage) -> dict[str, Any]:
    found, known = {}, checksums.DataChecksums(context.workdir / "checksums.json")
    for read in stage.reads(context):
        for split in read.splits:
            for part in read.parts:
                name = f"{read.owner}{part} of split {split}"
                if part == LABELS:
                    found[name] = files.checksum(context.data_dir / "labels" / f"{split}.npz")
                elif part == LABEL_FILES:
                    found[name] = checksums.of_labels(context.folder(split) / "labels" / split)
                else:
                    found[name] = known.of_part(read.source(context, split), part)
    for field in stage.file_fields:
        if name := context.config[field]:
            found[of_file(field)] = files.checksum(packaged_or_path(name))
    return found | stage.further(context)


def of_file(field: str) -> str:
    """What the checksum of the file that a field names is called on record."""
    return f"the file of {field}"


def _procedure(context: Context, stage: Stage) -> dict[str, Any]:
    content = context.procedure.to_json()
    initial = {name: v["initial_state"] for name, v in content["variants"].items()}
    globs = {name: v["recordings"] for name, v in content["variants"].items()}
    known = {
        "whole": _of_json(content),
        "number of components": len(content["components"]),
        "initial states": _of_json(initial),
        "states": _of_json(content["states"]),
        # By which a recording has a variant, and so what it begins with.
        "variants of recordings": _of_json(globs),
    }
    return {part: known[part] for part in stage.procedure}


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
    return {"made_from": {}, "trained": [], "damage": damage} if damage else None


def _record(path: Path) -> dict[str, Any]:
    """Reads a record of a stage; ValueError if it is damaged."""
    record, place = files.read_json(path), str(path)
    if not isinstance(record, dict):
        raise ValueError(f"{place}: is not a JSON object")
    if path.name == DONE and "results" not in record:
        return {"made_from": {}, "trained": []}  # of a version that recorded nothing
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
    trained = files.fit(record.get("trained", []), list[Training], f"{place}: trained")
    return {**record, "trained": trained}


def check_kinds(context: Context, stage: Stage) -> None:
    """Raises ValueError if there is a pipe or device in a stage's folder: reading may never end."""
    folder = context.workdir / stage.name
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.exists() and not path.is_dir():
            files.check_regular(path, "remove it and run the same command again")


def recordings(context: Context) -> dict[str, list[str]]:
    """The recordings of each split of the data."""
    path = context.data_dir / "settings.json"
    splits = data_folder.load_settings(path, data_folder.Settings).splits
    return splits if context.extra is None else context.extra.all_of(splits)


def this_training(context: Context, stage: Stage, steps: int) -> Training:
    """What a stage that trains now sees."""
    known = recordings(context)
    splits = dict.fromkeys(split for read in stage.reads(context) for split in read.splits)
    return Training(steps, {split: known[split] for split in splits if split in known})


def begin(context: Context, stage: Stage, record: Mapping[str, Any]) -> None:
    """Writes the record of a stage that begins: "made_from" and "trained"."""
    folder = context.workdir / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / MADE_FROM, record)


def finish(context: Context, stage: Stage, record: Mapping[str, Any], facts: Mapping) -> None:
    """Records that a stage is finished, and the checksums of its results."""
    results = {
        str(path.relative_to(context.workdir)): files.checksum(path)
        for path in stage.result_files(context.workdir)
    }
    log = context.workdir / stage.name / "metrics.jsonl"
    trained = [dict(training) for training in record["trained"]]
    if trained and "best_step" in facts:
        trained[-1]["steps"] = facts["best_step"]
    content = {
        **facts,
        **record,
        "trained": trained,
        "results": results,
        "log": files.checksum(log) if log.is_file() else None,
    }
    files.write_json(context.workdir / stage.name / DONE, content)


def damaged_log(context: Context, stage: Stage, record: Mapping[str, Any]) -> list[str]:
    """Says whether the log of a finished stage was damaged, which is no reason to train again."""
    path, known = context.workdir / stage.name / "metrics.jsonl", record.get("log")
    if known is None or (path.is_file() and files.checksum(path) == known):
        return []
    return [f"{path} was damaged or changed: the curves of a report would not be complete"]


def damage(context: Context, stage: Stage, record: Mapping[str, Any]) -> list[str]:
    """Lists the records and results of a finished stage that are not what it left.

    Without a sound record of its end, a trained stage goes on from its last checkpoint, which has
    checksums of its own.
    """
    goes_on = stage.costly and record["made_from"]
    found = [] if goes_on else list(record["damage"])
    for name, known in record.get("results", {}).items():
        path = context.workdir / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif files.checksum(path) != known:
            found.append(f"{name} was damaged or changed")
    return found + stage.damage(context)


def changes(
    record: Mapping[str, Any], now: Mapping[str, Any], sections: Sequence[str] = ()
) -> list[str]:
    """Says in what the record of a stage and a `made_from` differ, for people.

    A stage before that is not finished makes no difference yet.

    Args:
        record: of `read`.
        now: of `made_from`.
        sections: of it that count; none for all.
    """
    before = record["made_from"]
    if not before:
        return record["damage"] or ["it has no record of what it was made from"]
    found = []
    for section, values in now.items():
        if sections and section not in sections:
            continue
        old = before.get(section, {})
        for name in sorted(old.keys() | values.keys()):
            if old.get(name) == values.get(name) or values.get(name, "") is None:
                continue
            if section == "data" and name in LATER and name not in old:
                continue
            if section == "config" and name in UNREAD and name not in values:
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


def other_recordings(context: Context, record: Mapping[str, Any]) -> list[str]:
    """Says which recordings a stage's last training did not see yet, and which are gone."""
    if not record["trained"] or not context.has_data:
        return []
    known, found = recordings(context), []
    for split, names in record["trained"][-1].recordings.items():
        now = known.get(split, [])
        for what, some, others in (("new", now, names), ("gone", names, now)):
            if listed := [name for name in some if name not in others]:
                shown = ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")
                found.append(f"{what} in split {split}: {shown}")
    return found


def has_weights(context: Context, stage: Stage) -> bool:
    """Whether a stage has trained weights that can be read, or is on the way to them."""
    folder = context.workdir / stage.name
    if not stage.costly:
        return False
    try:
        checkpoint.load_best(folder)
    except ValueError:
        return (folder / START).is_file() or any((folder / "checkpoints").glob("[0-9]*"))
    return True


def folders(stage: Stage) -> tuple[str, ...]:
    """The folders of WORKDIR in which a stage leaves what it makes, its records in the last one."""
    return (*stage.folders, stage.name)


def clear(context: Context, stage: Stage) -> None:
    """Removes what a stage has made."""
    if stage.makes_data and context.config.data.dir:
        return  # a folder of the user; data_prep refuses to write other data into it
    for name in reversed(folders(stage)):
        shutil.rmtree(context.workdir / name, ignore_errors=True)


def stale(context: Context, stages: Sequence[Stage]) -> dict[str, list[str]]:
    """Says which stages that have been made would be made again, and why.

    A stage also counts if one before it will have another result.
    """
    again: dict[str, list[str]] = {}
    for stage in stages:
        record = read(context.workdir / stage.name)
        if record is None:
            continue
        why = changes(record, made_from(context, stage))
        if why:
            why += other_recordings(context, record)
        before = [other for other in stages if other.makes_data] + [*stage.after(context)]
        why += [f"{other.name} is made again" for other in before if other.name in again]
        if why:
            again[stage.name] = why
    return again
