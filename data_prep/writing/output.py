"""The files of an output folder, which one run at a time writes, with all its workers.

A file, or a recording's folder, appears under its name only when it is whole. Until then it is in
folder `unfinished`, as is the lock of the run.
"""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stormpsr_jax.base import files, results
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.recordings.procedure import Procedure

SETTINGS = "settings.json"
UNFINISHED = "unfinished"  # a folder, so that no listing of shards can meet what is in it


@contextlib.contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Keeps other runs out of folder `out` (ValueError), and in `unfinished` what is being made."""
    try:
        with files.only_writer(lock_of(out), out):
            _remove_unfinished(out)  # what a killed run has left
            try:
                yield
            finally:
                _remove_unfinished(out)
                lock_of(out).unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):  # another run has the folder
            (out / UNFINISHED).rmdir()


def lock_of(out: Path) -> Path:
    """The file that the run which writes to `out` has locked."""
    return out / UNFINISHED / "lock"


def _remove_unfinished(out: Path) -> None:
    for path in (out / UNFINISHED).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != lock_of(out):
            path.unlink(missing_ok=True)


def claim(out: Path, procedure: Procedure, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Writes procedure.json and settings.json, what the folder is made from, if it is new.

    `sources` and `splits` of the settings may be others than those of an older folder, where both
    say what all their recordings are made from. Returns the settings of an older folder that differ
    in nothing else; None if they are the same. ValueError says what else differs.
    """
    errors, before = [], None
    for file, content in _contents(procedure, settings).items():
        if not (out / file).exists():
            write_json(out, file, content)
        there, asked = files.read_json(out / file), _as_read(content)
        if there == asked:
            continue
        free = _changing(there, asked) if file == SETTINGS else ()
        old, new = (
            {"config": results.flatten({k: v for k, v in of.items() if k not in free})}
            for of in (there, asked)
        )
        if why := results.differences(old, new):
            errors.append(
                f"{out / file}: this folder was made with other arguments ({'; '.join(why)}); give "
                "the same ones, write into another folder, or delete this one"
            )
        else:
            before = there
    raise_all(errors)
    return before


def is_claimed_with(out: Path, procedure: Procedure, settings: Mapping[str, Any]) -> bool:
    """Says whether the folder is made from what `claim` was called with."""
    return all(
        (out / file).exists() and files.read_json(out / file) == _as_read(content)
        for file, content in _contents(procedure, settings).items()
    )


def _contents(procedure: Procedure, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"procedure.json": procedure.to_json(), SETTINGS: settings}


def _changing(there: dict[str, Any], asked: dict[str, Any]) -> tuple[str, ...]:
    """The keys in which the settings of a folder may differ: what recordings are made from."""
    if all(
        sorted(of["sources"]) == sorted(name for names in of["splits"].values() for name in names)
        for of in (there, asked)
    ):
        return "sources", "splits"
    return ("sources",) if there["sources"].keys() == asked["sources"].keys() else ()


def _as_read(content: Any) -> Any:
    """Returns JSON values as they come back from a file: lists for tuples, for example."""
    return json.loads(json.dumps(content))


def _unfinished(out: Path, name: str) -> Path:
    """Where something is until it is whole; no other process, on any machine, has the same path."""
    return out / UNFINISHED / f"{name}.{socket.gethostname()}.{os.getpid()}"


@contextlib.contextmanager
def whole_folder(out: Path, final: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `final`; after an error it is removed."""
    part = _unfinished(out, f"clips-{final.name}")
    part.mkdir(parents=True)
    try:
        yield part
        for path in part.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # a power cut must not truncate what has its name
        final.parent.mkdir(exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(out: Path, file: str, content: Any) -> None:
    """Writes a JSON file of folder `out`, atomically, with sorted keys but in a procedure."""
    order = file != "procedure.json"
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=order)
    write_atomically(out, out / file, text.encode())


def write_atomically(out: Path, final: Path, content: bytes) -> None:
    """Writes a file in folder `out` that is never seen half-written under its name."""
    with files.replacing(final, _unfinished(out, final.name)) as path:
        path.write_bytes(content)
