"""Folders of a user's files: what is in them, in order, and what is refused in a line."""

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from stormpsr_jax.base.errors import raise_all

_LEFT_OUT = "__MACOSX"  # macOS puts that into zip files
_ARCHIVE = re.compile(
    r".+\.(zip|zip\.[0-9]{3}|tar|tar\.[a-z0-9]+|tgz|7z|rar)", re.IGNORECASE | re.ASCII | re.DOTALL
)


def printable(path: str | os.PathLike) -> str:
    """Returns a path as messages show it, without control characters."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)


@contextlib.contextmanager
def read_errors(place: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError inside into a ValueError that names the file."""
    try:
        yield
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise ValueError(f"{printable(place)}: {what}") from error


def is_archive(path: str | os.PathLike) -> bool:
    """Says by its name whether a file is an archive, or a part of one; none is read."""
    return _ARCHIVE.fullmatch(os.path.basename(path)) is not None


def require(path: str | os.PathLike, flag: str, also: str = "") -> Path:
    """Returns the folder that a flag names, or `also` a file, such as "or a label file".

    ValueError: there is none, or it is an archive.
    """
    place = f"{flag}={printable(path)}"
    if is_archive(path) and not os.path.isdir(path):
        raise ValueError(f"{place}: archives are not read; unpack it, and give the folder")
    if not (os.path.exists(path) if also else os.path.isdir(path)):
        raise ValueError(f"{place}: is not a folder{also and ' '}{also}")
    return Path(path)


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the names of the folders and of the files in a folder, sorted, but hidden ones.

    ValueError: no such folder; all names in it that are not UTF-8, links that lead nowhere, and
    what is neither a folder nor a regular file.
    """
    inner, names, errors = list[str](), list[str](), list[str]()
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith("."):
                    continue
                try:
                    entry.name.encode()
                except UnicodeEncodeError:
                    problem = f"the name {os.fsencode(entry.name)!r} is not UTF-8; rename it"
                    errors.append(f"{printable(folder)}: {problem}")
                    continue
                if entry.is_dir():
                    inner.append(entry.name)
                elif entry.is_file():
                    names.append(entry.name)
                else:
                    problem = "is a link to nothing, a pipe or a device; remove it"
                    errors.append(f"{printable(entry.path)}: {problem}")
    except OSError as error:
        raise ValueError(f"{printable(folder)}: cannot be listed ({error.strerror})") from error
    raise_all(sorted(errors))
    return sorted(inner), sorted(names)


def walk(top: Path, left_out: Collection[str] = ()) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yields (folder, names of its folders, names of its files), for `top` and all below it.

    Of a file, it is that file alone. Folders named in `left_out` are not looked into, nor those
    that the caller takes out of the list. Links are followed; ValueError as of `entries`, as of
    links that lead back to a folder above them.
    """
    if top.is_file():
        yield top.parent, [], [top.name]
        return
    inner, names = entries(top)
    inner = [name for name in inner if name not in left_out and name != _LEFT_OUT]
    yield top, inner, names
    for name in inner:
        yield from walk(top / name, left_out)
