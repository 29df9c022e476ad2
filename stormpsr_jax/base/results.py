"""What a result was made from, so that a change makes again what depends on it, and nothing else.

A result is files with one record, FOLDER/record.json: written when the result is begun, and again
when it is finished, then with the checksums of its files. Fresh is what has an equal record.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from stormpsr_jax.base import files

RECORD = "record.json"
# By section, {name: JSON value}: "config" {field: value}, "data", "files" and "procedure" {what:
# checksum}, "stages" {what it reads: checksum of its results, None if it is not finished},
# "package" {"version", "digest" of its code}.
MadeFrom = Mapping[str, Mapping[str, Any]]
_OTHER = {"data": "other {}", "files": "other {}", "procedure": "another procedure ({})"}


class Training(msgspec.Struct):
    """A training that weights went through, with the recordings that it saw, by split.

    `steps` are all that it takes, and once it is finished those up to the weights that were best.
    """

    steps: int
    recordings: dict[str, list[str]]


class Record(msgspec.Struct, omit_defaults=True):
    """The record of a result.

    Attributes:
        made_from: see `MadeFrom`.
        trained: of weights, the trainings that they went through, its own last.
        results: the checksum of each of its files; None until it is finished.
        facts: what else its maker says of it.
    """

    made_from: dict[str, dict[str, Any]]
    trained: list[Training] = []
    results: dict[str, str] | None = None
    facts: dict[str, Any] = {}


Kind = TypeVar("Kind", bound=Record)


def read(folder: Path, kind: type[Kind] = Record) -> Kind | None:  # type: ignore[assignment]
    """Returns the record in a folder, None if there is none; ValueError if it is damaged."""
    path = folder / RECORD
    if not os.path.lexists(path):
        return None
    return files.fit(files.read_json(path), kind, str(path))


def found(folder: Path) -> Record | None:
    """The record in a folder, None if it has none; a damaged one is of something unknown."""
    try:
        return read(folder)
    except ValueError as error:
        return Record({}, facts={"damage": str(error)})


def of_results(folder: Path) -> str | None:
    """One checksum of all files of a finished result, None if it is not finished."""
    record = found(folder)
    return None if record is None or record.results is None else of_json(record.results)


def write(folder: Path, record: Record) -> None:
    """Writes a record, whole; OSError names it."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / RECORD, msgspec.to_builtins(record))


def checksums(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """The checksums of a result's files, by their names within `root`."""
    return {path.relative_to(root).as_posix(): files.checksum(path) for path in paths}


def damage(root: Path, record: Record) -> list[str]:
    """Says which files of a finished result are not what its maker left."""
    damaged = []
    for name, known in (record.results or {}).items():
        if not (root / name).is_file():
            damaged.append(f"{name} is missing")
        elif files.checksum(root / name) != known:
            damaged.append(f"{name} was damaged or changed")
    return damaged


def differences(before: MadeFrom, now: MadeFrom) -> list[str]:
    """Says in what two results are made from something else, for people.

    What is not finished yet makes no difference.
    """
    reasons = []
    for section, new in now.items():
        old = before.get(section, {})
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) == new.get(name) or (name in new and new[name] is None):
                continue
            if section in _OTHER:
                reasons.append(_OTHER[section].format(name))
            elif section != "stages":
                values = [str(of.get(name, "absent")) for of in (old, new)]
                cut = [text if len(text) <= 60 else text[:57] + "…" for text in values]
                reasons.append(f"{name} {' → '.join(cut)}")
            elif name in old and name in new:
                reasons.append(f"another result of {name}")
            else:
                reasons.append(f"stage {name} is new" if name in new else f"without stage {name}")
    return reasons


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested JSON objects as one, names joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


# --- Checksums ------------------------------------------------------------------------------------


def of_json(content: Any) -> str:
    """The checksum of a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def of_input(path: Path, compute: Callable[[], str] | None = None) -> str:
    """The checksum of an input file, which is read again only when its size or time is another.

    It is kept for the user, whatever the work folder: a data set is of many gigabytes. `compute`
    gives it where it is not that of the whole content.
    """
    status = os.stat(path)
    key = [str(path.absolute()), status.st_size, status.st_mtime_ns, compute is None]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = home / "stormpsr_jax" / "checksums" / f"{of_json(key[::3])}.json"
    with contextlib.suppress(ValueError):
        match files.read_json(kept):
            case {"of": of, "sum": str(known)} if of == key:
                return known
    digest = files.checksum(path) if compute is None else compute()
    with contextlib.suppress(OSError):  # a home that cannot be written costs time alone
        kept.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(kept, kept.with_suffix(f".{os.getpid()}")) as part:
            part.write_text(json.dumps({"of": key, "sum": digest}))
    return digest


def of_folder(folder: Path, pattern: str = "**/*") -> str:
    """One checksum of the names and contents of all files in a folder that match a pattern."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.glob(pattern) if p.is_file()}
    return of_json({name: of_input(path) for name, path in found.items()})
