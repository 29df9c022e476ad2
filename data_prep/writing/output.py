"""The files of an output folder, which several processes, on several machines, write at once.

A file appears under its name only when it is whole. Until then it is in folder `unfinished`, as
are the locks that keep two processes from making the same one.
"""

import contextlib
import fcntl
import io
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stormpsr_jax import files
from stormpsr_jax.mistakes import raise_all
from stormpsr_jax.psr.procedure import Procedure

SETTINGS = "settings.json"
UNFINISHED = "unfinished"  # a folder, so that no listing of shards can meet what is in it


def claim(out: Path, procedure: Procedure, settings: Mapping[str, Any]) -> list[str]:
    """Writes procedure.json and settings.json, what the folder is made from, if it is new.

    Args:
        out: the folder.
        procedure: of all recordings.
        settings: JSON values; `sources` is an object with what each recording is made from.

    Returns:
        Of an older folder the recordings whose `sources` are others now, nothing else being so.

    Raises:
        ValueError: the folder was made with other arguments; says what differs.
    """
    out.mkdir(parents=True, exist_ok=True)
    contents = {"procedure.json": procedure.to_json(), SETTINGS: settings}
    if not all((out / file).exists() for file in contents):
        with lock(out, SETTINGS, wait=True):  # two runs may start at the same time
            for file, content in contents.items():
                if not (out / file).exists():
                    write_json(out, file, content)
    mistakes = []
    changed: list[str] = []
    for file, content in contents.items():
        there, asked = files.read_json(out / file), _as_read(content)
        if there == asked:
            continue
        if file == SETTINGS and (changed := _changed_sources(there, asked)):
            continue
        mistakes.append(
            f"{out / file}: this folder was made with other arguments "
            f"({'; '.join(_differences(there, asked))}); give the same ones, write into another "
            "folder, or delete this one"
        )
    raise_all(mistakes)
    return changed


def is_claimed_with(out: Path, settings: Mapping[str, Any]) -> bool:
    """Says whether settings.json still is what `claim` was called with."""
    return files.read_json(out / SETTINGS) == _as_read(settings)


def _changed_sources(there: Any, asked: dict[str, Any]) -> list[str]:
    """Returns the recordings with other `sources`, if nothing but these differs."""
    if not isinstance(there, dict) or there | {"sources": asked["sources"]} != asked:
        return []
    before, now = there.get("sources"), asked["sources"]
    if not isinstance(before, dict) or before.keys() != now.keys():
        return []
    return [name for name in now if before[name] != now[name]]


def _as_read(content: Any) -> Any:
    """Returns JSON values as they come back from a file: lists for tuples, for example."""
    return json.loads(json.dumps(content))


def _differences(there: Any, asked: Any, name: str = "") -> list[str]:
    """Lists where two JSON values differ, nested keys joined by dots."""
    if there == asked:
        return []
    if isinstance(there, dict) and isinstance(asked, dict):
        return [
            line
            for key in dict.fromkeys([*there, *asked])
            for line in _differences(there.get(key), asked.get(key), f"{name}.{key}".strip("."))
        ]
    if isinstance(there, list) and isinstance(asked, list) and len(repr(there)) > 60:
        there, asked = [v for v in there if v not in asked], [v for v in asked if v not in there]
        name += " (what differs)"
    shown = [text if len(text := repr(v)) <= 60 else text[:57] + "..." for v in (there, asked)]
    return [f"{name} was {shown[0]}, now {shown[1]}"]


def _owner() -> str:
    """Returns a suffix for temporary files that no other process, on any machine, uses now."""
    return f"{socket.gethostname()}.{os.getpid()}"


@contextlib.contextmanager
def unfinished(out: Path, final: Path) -> Iterator[Path]:
    """Gives a path to write a file to, which becomes `final`, or is removed after an error.

    The file is locked meanwhile: that is how remove_leftovers tells it from one whose process
    was killed.
    """
    path = out / UNFINISHED / f"{final.name}.{_owner()}"
    with files.open_locked(path, wait=True) as file:
        file.truncate(0)  # a killed process of the same number may have left something
        with files.replacing(final, path):
            yield path


@contextlib.contextmanager
def lock(out: Path, name: str, wait: bool) -> Iterator[bool]:
    """Holds the lock `name` of folder `out`, which one process has at a time, on any machine.

    Gives False, and holds nothing, if another process has it and `wait` is false. On a network
    disk without locks everybody gets it: work is then done twice, with the same result.
    """
    path = out / UNFINISHED / f"{name}.lock"
    file = files.open_locked(path, wait)
    if file is None:
        yield False
        return
    with file:
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def remove_leftovers(out: Path) -> None:
    """Removes the unfinished files of killed processes, and their folder when it is empty."""
    try:
        paths = list((out / UNFINISHED).iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: somebody is writing it
            if files.still_there(file, path):  # not one that another process made since
                path.unlink()
    with contextlib.suppress(OSError):
        (out / UNFINISHED).rmdir()


def write_json(out: Path, file: str, content: Any) -> None:
    """Writes a JSON file of folder `out`, atomically, with sorted keys but in a procedure."""
    order = file != "procedure.json"
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=order)
    write_atomically(out, out / file, text.encode())


def write_atomically(out: Path, final: Path, content: bytes) -> None:
    """Writes a file in folder `out` that is never seen half-written under its name."""
    with unfinished(out, final) as path:
        path.write_bytes(content)


def write_arrays(out: Path, final: Path, **arrays: Any) -> None:
    """Writes an .npz file, atomically; the same arrays give the same bytes."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # its zip members carry a constant time
    write_atomically(out, final, content.getvalue())
