"""What each stage of a run is made from now, and what WORKDIR/<stage>/record.json says it was.

That are fields, data, files and results of other stages; of the code of the package one checksum is
kept, which makes nothing again by itself.
"""

import fnmatch
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
from ml_collections import ConfigDict

import stormpsr_jax
from stormpsr_jax.base import installed, results, user_code
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.base.results import MadeFrom, Record
from stormpsr_jax.configs import default as default_config
from stormpsr_jax.configs.fields import flatten
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import FPS, LABEL_FILES, Stage

# Fields that change how a run goes and not what comes out; "!" in Stage.fields marks further ones.
FREE = ("data.workers", "encoder.remat")
_OWN = {name for name, field in flatten(default_config.described()) if field.own}


def flat_config(config: ConfigDict) -> dict[str, Any]:
    """The config as {field: JSON value}, fields joined by dots."""
    return results.flatten(json.loads(config.to_json()))  # tuples and lists compare alike


def fields(config: ConfigDict, stage: Stage) -> dict[str, Any]:
    """The fields that a stage is made from, with their values."""
    unlike = [stage.start, *(name[1:] for name in stage.fields if name.startswith("!"))]
    return {
        field: value
        for field, value in flat_config(config).items()
        if any(field == name or field.startswith(f"{name}.") for name in stage.fields)
        and not any(fnmatch.fnmatchcase(field, pattern) for pattern in FREE)
        and field not in unlike
    }


def made_from(context: Context, stage: Stage) -> dict[str, dict[str, Any]]:
    """What a stage would be made from now.

    Without "data", "files" and "procedure" where it reads a data folder that is not finished.
    """
    before = {
        other.name: of_results(context.workdir / other.name) for other in stage.after(context)
    }
    found: dict[str, Any] = {"config": fields(context.config, stage), "stages": before}
    found |= {"package": package()}
    if stage.makes_data:
        return found | {"files": stage.further(context)}
    if not context.has_data:
        return found
    data: dict[str, Any] = {}
    procedure: dict[str, Any] = {"number of components": context.procedure.num_components}
    for read in stage.reads(context):
        for part in read.parts:
            if not read.splits:
                procedure[part] = _of_procedure(context, part)
            for split in read.splits:
                name = f"{read.owner}{part} of split {split}"
                if part == LABEL_FILES:
                    labels = context.folder(split) / "labels" / split
                    data[name] = results.of_folder(labels, "*/PSR_labels*.csv")
                else:
                    data[name] = _of_part(read.source(context, split), part)
    own = {f"--config.{f}": v for f, v in found["config"].items() if f in _OWN and ":" in v}
    further = stage.further(context) | user_code.checksums(own)
    if (path := stage.start_file(context)) is not None:
        further |= {f"file of {stage.start}": results.of_input(path)}
    return found | {"data": data, "files": further, "procedure": procedure}


def _of_part(source: ClipSource, part: str) -> Any:
    """The checksum of a part of a split, or its frames per second."""
    if part == FPS:
        return source.fps
    digest = hashlib.sha256()
    total = len(source.recordings)
    with Bar(total=total, desc=f"checksums {source.split}", unit="file", delay=2) as bar:
        for name, r in source.recordings.items():
            digest.update(f"{name}\0{r.first_frame}\0{r.num_frames}\0".encode())
            if part == "pictures":
                compute = functools.partial(source.content_checksum, name)
                digest.update(results.of_input(source.path(name), compute).encode())
            else:
                for array in ("boxes", "classes") if part == "boxes" else (part,):
                    digest.update(np.ascontiguousarray(getattr(r, array)).tobytes())
            bar.update()
    return digest.hexdigest()


def _of_procedure(context: Context, part: str) -> str:
    content = context.procedure.to_json()
    known: dict[str, Any] = {
        "whole": content,
        "states": content["states"],
        "initial states": {name: v["initial_state"] for name, v in content["variants"].items()},
        # By which a recording has a variant, and so what it begins with.
        "variants of recordings": {n: v["recordings"] for n, v in content["variants"].items()},
    }
    return results.of_json(known[part])


def of_results(folder: Path) -> str | None:
    """One checksum of all results of a finished stage, None if it is not finished."""
    record = read(folder)
    return None if record is None or record.results is None else results.of_json(record.results)


def read(folder: Path) -> Record | None:
    """The record of a stage, None if it has none; a damaged one is of something unknown."""
    try:
        return results.read(folder)
    except ValueError as error:
        return Record({}, facts={"damage": str(error)})


def changes(record: Record, now: MadeFrom) -> list[str]:
    """Says in what a stage was made from something else, for people; code makes no difference."""
    if damage := record.facts.get("damage"):
        return [damage]
    others = [section for section in now if section != "package"]
    # A field that a record lacks is newer than it: what was done then is its default.
    known = record.made_from.get("config", {})
    newer = {f: v for f, v in _defaults().items() if f in now["config"] and f not in known}
    before = {**record.made_from, "config": newer | known}
    return results.differences(before, now, others)


@functools.cache
def _defaults() -> dict[str, Any]:
    return flat_config(default_config.get_config())


def is_of_other_code(record: Record) -> bool:
    """Whether other code of the package made a stage."""
    return record.made_from.get("package", {}).get("digest") != package()["digest"]


def environment() -> dict[str, Any]:
    """What a run computes with: versions, the kind of device, and the commit of a clone.

    The commit is None of an installation, and says where files of the packages were changed since.
    """
    device = jax.devices()[0]
    kind = f"{jax.device_count()} x {device.device_kind} ({device.platform})"
    return {**installed.versions(), "device": kind, "commit": installed.commit()}


def package() -> dict[str, str]:
    """The version of the package, and the checksum of its code."""
    return {"version": stormpsr_jax.__version__, "digest": installed.code()}


def recordings(context: Context) -> dict[str, list[str]]:
    """The recordings of each split of the data."""
    path = context.data_dir / "settings.json"
    splits = data_folder.load_settings(path, data_folder.Settings).splits
    return splits if context.extra is None else context.extra.all_of(splits)


def trainings(workdir: Path, stages: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """By stage the trainings behind the weights of some, those of the stages before them too."""
    found: dict[str, Any] = {}
    left = [*stages]
    while left:
        name = left.pop()
        record = read(workdir / name)
        if name not in found and record is not None:
            found[name] = msgspec.to_builtins(record.trained)
            left += record.made_from.get("stages", {})
    return {name: trained for name, trained in sorted(found.items()) if trained}
