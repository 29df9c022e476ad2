"""Results that runs share: DIR/NAME-IDENTITY holds what a stage made, for all that would make it.

There are no locks: two runs that make the same at once make it twice, and keep the first.
"""

import os
import shutil
from pathlib import Path

from stormpsr_jax.base import files, results
from stormpsr_jax.stages.rendering import Rendering
from stormpsr_jax.stages.stage import Run, Stage


def _place(run: Run, stage: Stage, shared: Path) -> Path | None:
    """Where its results are shared; None: they are not in a folder of their own."""
    outside = isinstance(stage, Rendering) and run.data.config.dir
    if outside or not all(pattern.startswith(f"{stage.name}/") for pattern in stage.results):
        return None
    return shared / f"{stage.name}-{results.of_json(stage.made_from(run))[:16]}"


def take(run: Run, stage: Stage, shared: Path) -> bool:
    """Leads WORKDIR/NAME to what another run has made, where this run has nothing of its own.

    Returns whether it did.
    """
    folder, place = run.workdir / stage.name, _place(run, stage, shared)
    if folder.is_symlink() and not folder.exists():
        folder.unlink()  # what it led to is gone
    if place is None or not place.is_dir() or folder.exists():
        return False
    folder.symlink_to(os.path.relpath(place, run.workdir), target_is_directory=True)
    return True


def give(run: Run, stage: Stage, shared: Path) -> None:
    """Moves what a run has made to where all find it."""
    folder, place = run.workdir / stage.name, _place(run, stage, shared)
    if place is None or folder.is_symlink():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and results.found(place) == results.found(folder):
        files.remove(folder)
    else:
        part = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.move(folder, part)
        files.remove(place)  # of other code of the package
        part.rename(place)
    take(run, stage, shared)
