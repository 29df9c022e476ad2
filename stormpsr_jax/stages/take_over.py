"""Finished stages of other work folders, taken over by a run that would make the very same.

A stage is the same if its record says so: the config fields that it reads, the data, and the
checksums of the results before it. The run compares the checksums of the stage's own results too,
before it counts the stage as done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from stormpsr_jax.stages import provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage

_MAX_DEPTH = 32  # of folders in the folder of a stage


def take(context: Context, stage: Stage, others: Iterable[Path]) -> Path | None:
    """Links a finished stage of another work folder into a run that has not begun it.

    Args:
        context: the run; the stages before this one are finished.
        stage: to take over.
        others: work folders, of which the first that has the very same is taken.

    Returns:
        That work folder, None if there is none.

    Raises:
        ValueError: there is something else than files and folders in it; names it.
    """
    if not stage.taken_over or (context.workdir / stage.name).exists():
        return None
    made_from = provenance.made_from(context, stage)
    if None in made_from["stages"].values():
        return None  # of what it reads, something is not there yet
    for other in others:
        if is_made(other, stage, made_from):
            # What says that the stage is finished comes last.
            for name in provenance.folders(stage):
                _link(other / name, context.workdir / name)
            return other
    return None


def is_made(workdir: Path, stage: Stage, made_from: dict) -> bool:
    """Whether a work folder has finished a stage, made from just this and from no older weights."""
    record = provenance.read(workdir / stage.name)
    if record is None or "results" not in record or len(record["trained"]) > 1:
        return False
    return not provenance.changes(record, made_from)


def _link(source: Path, target: Path) -> None:
    """Copies a folder, with links for files: a run replaces files and never writes into them."""
    _check(source)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, copy_function=_link_or_copy)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def _check(source: Path) -> None:
    """Raises ValueError for what has no end in a folder: links to folders, pipes, devices."""
    for folder, folders, names in os.walk(source):
        for path in (Path(folder, name) for name in (*folders, *names)):
            is_folder = path.is_dir() and not path.is_symlink()
            depth = len(path.relative_to(source).parts)
            if depth > _MAX_DEPTH or not (is_folder or path.is_file()):
                raise ValueError(
                    f"{path}: is a link to a folder, no regular file, or nested too deeply; a "
                    "stage with that in it is not taken over: remove it, or leave that work "
                    "folder out"
                )


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copy2(source, target)
