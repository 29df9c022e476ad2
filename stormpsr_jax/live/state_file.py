"""The state file of a work station: what is in it, and whether it may be gone on from."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from stormpsr_jax.base import files
from stormpsr_jax.live.unit_history import UnitHistory
from stormpsr_jax.serving.files import unit
from stormpsr_jax.serving.model_files import check_checksum, with_checksum


class Saved(msgspec.Struct, forbid_unknown_fields=True):
    """A saved state; `live` is that of `Live`."""

    source: str
    start: float
    frame: int | None
    dropped: int
    unit: unit.UnitState
    live: dict[str, Any]
    past: UnitHistory
    format: Literal[6] = 6
    checksum: str = ""


def write(path: Path, saved: Saved) -> None:
    """Writes a state with its checksum, whole or not at all; OSError where that fails."""
    files.write_json(path, with_checksum(msgspec.to_builtins(saved)))


def read(path: Path, source: str) -> Saved:
    """Returns the state of this source; ValueError if it is damaged, or of another one."""
    content = files.read_json(path)
    saved = files.fit(content, Saved, "state")
    check_checksum(content)
    if saved.source != source:
        others = f"{files.shorten(saved.source)}; this one is {files.shorten(source)}"
        raise ValueError(f"is the state of another source, {others}")
    return saved
