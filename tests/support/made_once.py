"""What is costly to make and that no test changes: made once for all test processes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stormpsr_jax.base import files


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Returns the folder of this name, which the first process that asks for it has filled."""
    base = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent  # of all workers
    folder, done = base / name, base / f"{name}.made"
    with files.open_locked(base / f"{name}.lock", wait=True):
        if not done.exists():
            make(folder)
            done.touch()
    return folder
