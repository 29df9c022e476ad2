"""The state file of a work station: what is in it, and whether it may be gone on from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from stormpsr_jax.base import files
from stormpsr_jax.live import past
from stormpsr_jax.serving.checklist import Frame
from stormpsr_jax.serving.files import unit
from stormpsr_jax.serving.named_files import seal

MAX_UNTOLD = 2000  # lines that wait with --hold; then the oldest goes


class Saved(msgspec.Struct, forbid_unknown_fields=True):
    """A saved state; `live` is that of `Live`, `told` that of `Told`, `untold` lines that wait."""

    source: str
    start: Annotated[float, msgspec.Meta(ge=-files.MAX_WHOLE, le=files.MAX_WHOLE)]
    frame: Frame | None
    dropped: Frame
    unit: unit.State
    told: list[Annotated[int, msgspec.Meta(ge=-1, le=1)]]
    untold: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_UNTOLD)]
    live: dict[str, Any]
    past: past.State
    format: Literal[4] = 4
    checksum: str = ""


def sealed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state with its checksum, which tells damage; one that it had counts for nothing."""
    content = {key: value for key, value in state.items() if key != "checksum"}
    return content | {"checksum": seal(content)}


def write(path: Path, saved: Saved) -> None:
    """Writes a state with its checksum, whole or not at all; OSError where that fails."""
    files.write_json(path, sealed(msgspec.to_builtins(saved)))


def read(path: Path, source: str) -> Saved:
    """Returns the state of this source; ValueError if it is damaged, or of another one."""
    content = files.read_json(path)
    saved = files.fit(content, Saved, "state")
    if saved.checksum != sealed(content)["checksum"]:
        raise ValueError("the saved state is damaged (its checksum is of another one)")
    if saved.source != source:
        others = f"{files.shorten(saved.source)}; this one is {files.shorten(source)}"
        raise ValueError(f"is the state of another source, {others}")
    return saved
