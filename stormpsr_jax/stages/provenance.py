"""What each stage of a run is made from now, and what WORKDIR/<stage>/record.json says it was.

That are fields, data, files, results of other stages, and the sources of this project that can
change its result. What sources of another state have made is made again or kept, as the user says;
what another version of the package has made is kept.
"""

import fnmatch
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from ml_collections import ConfigDict

import stormpsr_jax
from stormpsr_jax.base import results, sources
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.base.results import MadeFrom, Record
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.features import FeatureSource
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import FPS, LABEL_FILES, Stage

# Fields that change how a run goes and not what comes out; "!" in Stage.fields marks further ones.
FREE = ("data.workers", "encoder.remat")


def flat_config(config: ConfigDict) -> dict[str, Any]:
    """The config as {field: JSON value}, fields joined by dots."""
    return results.flatten(json.loads(config.to_json()))  # tuples and lists compare alike


def fields(config: ConfigDict, stage: Stage, free: bool = False) -> dict[str, Any]:
    """The fields that a stage is made from, with their values; if asked for, those with "!" too."""
    unlike = [name[1:] for name in stage.fields if name.startswith("!")]
    names = (*stage.fields, *unlike) if free else stage.fields
    return {
        field: value
        for field, value in flat_config(config).items()
        if any(field == name or field.startswith(f"{name}.") for name in names)
        and not any(fnmatch.fnmatchcase(field, pattern) for pattern in FREE)
        and (free or field not in unlike)
    }


def made_from(context: Context, stage: Stage) -> dict[str, dict[str, Any]]:
    """What a stage would be made from now.

    Without "data", "files" and "procedure" where it reads a data folder that is not finished.
    """
    before = {
        other.name: of_results(context.workdir / other.name) for other in stage.after(context)
    }
    found: dict[str, Any] = {"config": fields(context.config, stage), "stages": before}
    found |= {"package": package(), "sources": stage.sources}
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
    return found | {"data": data, "files": stage.further(context), "procedure": procedure}


def _of_part(source: ClipSource | FeatureSource, part: str) -> Any:
    """The checksum of a part of a split, or its frames per second."""
    if part == FPS:
        return source.fps
    digest = hashlib.sha256()
    total = len(source.recordings)
    with Bar(total=total, desc=f"checksums {source.split}", unit="file", delay=2) as bar:
        for name, r in source.recordings.items():
            digest.update(f"{name}\0{r.first_frame}\0{r.num_frames}\0".encode())
            if part == "pictures":  # or embeddings in their place
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


def changes(context: Context, stage: Stage, record: Record, now: MadeFrom) -> list[str]:
    """Says in what a stage was made from something else, for people."""
    if damage := record.facts.get("damage"):
        return [damage]
    others = [section for section in now if section not in ("package", "sources")]
    found = results.differences(record.made_from, now, others)
    return found + ([] if kept(context, stage, record) else other_sources(stage, record))


def other_sources(stage: Stage, record: Record) -> list[str]:
    """Says which sources are not those that made a stage, or with which it was kept last."""
    known = {"sources": (record.kept or record.made_from).get("sources", {})}
    return results.differences(known, {"sources": stage.sources})


def kept(context: Context, stage: Stage, record: Record) -> str:
    """Says why other sources do not make a stage again; empty if they do."""
    version = (record.kept or record.made_from).get("package", {}).get("version")
    if version is None:
        return "an earlier version"
    if version != stormpsr_jax.__version__:
        return f"version {version}"
    return "other sources" if {"all", stage.name}.intersection(context.keep) else ""


def package() -> dict[str, Any]:
    """The version of the package, and the commit in a clone."""
    return {"version": stormpsr_jax.__version__, "commit": sources.commit()}


def code(context: Context, stages: Iterable[Stage]) -> dict[str, Any]:
    """By which code a run was made: `package`, and a digest of the sources of some stages."""
    known = {stage.name: read(context.workdir / stage.name) for stage in stages}
    made_by = {name: record.made_from.get("sources") for name, record in known.items() if record}
    return package() | {"digest": results.of_json(made_by)}


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
