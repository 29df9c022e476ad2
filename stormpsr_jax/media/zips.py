"""What is in the zip files of data sets, which are read without unpacking.

They have a hundred thousand files and more each, of which `zipfile` keeps .8 KiB a file in every
process. Here the central directory is gone through once. Kept is where the entries of each folder
stand in it, which is next to nothing, as they follow upon each other. That index travels to other
processes with what they have to do, and each looks at the entries of the folder that it reads.
"""

import array
import dataclasses
import functools
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.media import zip_bytes
from stormpsr_jax.media.zip_bytes import Parts

# IndustReal, the largest data set that is read here, has a million files in 600 folders, in nine
# zip files, and paths of 40 bytes.
MAX_FILES = 2**21
MAX_FOLDERS = 2**16
MAX_DEPTH = 64
MAX_PATH_BYTES = 1024
MAX_DIRECTORY_BYTES = 2**28

_LEFT_OUT = "__MACOSX"  # macOS puts that into zip files
# Names that nothing is wrong with, as nearly all are; the others are looked at more closely.
_PLAIN = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_. -]*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_PART = re.compile(r"(.+\.zip)\.([0-9]{3})", re.IGNORECASE | re.ASCII | re.DOTALL)


def find_zips(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the zip files among the files of a folder, each with the files that it is.

    `x.zip.001`, `x.zip.002`, … are x.zip cut into pieces. Beside x.zip they are left alone.
    """
    names = sorted(names)
    found = {name: [name] for name in names if name.lower().endswith(".zip")}
    pieces: dict[str, list[str]] = {}
    for name in names:
        whole = joined_name(name)
        if whole is not None and whole not in found:
            pieces.setdefault(whole, []).append(name)
    return dict(sorted((found | pieces).items()))


def check_pieces(path: str, parts: Sequence[str]) -> None:
    """Raises ValueError if the files that a zip file is, as find_zips gives them, lack a piece."""
    if len(parts) == 1 and joined_name(parts[0]) is None:
        return
    for number, part in enumerate(parts, start=1):
        if int(part[-3:]) != number:
            raise ValueError(
                f"{printable(path)}.{number:03d} is missing, {printable(part)} is there: they are "
                "parts of one zip file; download it too, or move the others elsewhere"
            )


def joined_name(name: str) -> str | None:
    """Returns x.zip of x.zip.001, x.zip.002, …, None of other names."""
    match = _PART.fullmatch(name)
    return match[1] if match else None


def printable(place: str) -> str:
    """Returns a path as messages show it, without control characters."""
    return place if place.isprintable() else ascii(place)


@dataclasses.dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of a zip file.

    Attributes:
        folders: names of those in it.
        runs: start and end of each run of entries of its files, in the bytes of the zip file.
    """

    folders: list[str] = dataclasses.field(default_factory=list)
    runs: array.array = dataclasses.field(default_factory=lambda: array.array("Q"))


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """What is in a zip file. Picklable; a process opens the file when it first reads from it.

    Attributes:
        path: of the zip file; of one in parts, the path that it would have joined.
        parts: paths of the files that it is, in order.
        size: bytes of these together.
        shift: see zip_bytes.find_directory.
        folders: by path; '' is the top.
    """

    path: str
    parts: tuple[str, ...]
    size: int
    shift: int
    folders: dict[str, _Folder]

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Returns the names of the folders and of the files in a folder, in no order.

        Raises:
            ValueError: there is no such folder, or it has two files of one name.
            zipfile.BadZipFile, OSError: the zip file cannot be read any more.
        """
        place = printable(f"{self.path}/{folder}")
        if folder not in self.folders:
            raise ValueError(f"{place}: no such folder in the zip file")
        names = _open_folder(self, folder).names()
        if len(set(names)) < len(names):
            twice = next(name for name, other in pairwise(sorted(names)) if name == other)
            raise ValueError(f"{place}: {twice!r} is in the zip file twice")
        return list(self.folders[folder].folders), names

    def open(self, name: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo] | None:
        """Returns a zip file of one member, and that member; None if there is no such file.

        Raises:
            zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OSError: it cannot be read.
        """
        folder, _, last = name.rpartition("/")
        if folder not in self.folders:
            return None
        opened = _open_folder(self, folder)
        entry = opened.find(last)
        return None if entry is None else zip_bytes.open_member(opened.parts, self.shift, entry)


def read_index(path: str, parts: Sequence[str], left_out: Iterable[str] = ()) -> Index:
    """Goes through the central directory of a zip file.

    Args:
        path: of the zip file; of one in parts, the path that it would have joined.
        parts: paths of the files that it is, in order.
        left_out: names of folders that are left out, with all that is in them.

    Raises:
        ValueError: it cannot be read, is no whole zip file, is larger than the limits, or has names
            that no file should have.
    """
    try:
        opened = Parts(parts)
        start, end, count, shift = zip_bytes.find_directory(opened)
        index = Index(path, tuple(parts), opened.size, shift, {"": _Folder()})
        _check_limit(path, "a directory of {} bytes", end - start, MAX_DIRECTORY_BYTES)
        _fill(index, zip_bytes.entries(opened, start, end), count, start, {*left_out, _LEFT_OUT})
    except OSError as error:
        where = printable(error.filename or path)
        raise ValueError(f"{where}: cannot be read ({error.strerror})") from error
    except zipfile.BadZipFile as error:
        advice = "download it again if it should be one, or else move it elsewhere"
        if list(parts) != [path]:
            advice = (
                f"of its parts, the last of which here is {printable(os.path.basename(parts[-1]))},"
                " one is missing, cut off or has another's name; download them again"
            )
        raise ValueError(f"{printable(path)}: not a whole zip file ({error}); {advice}") from error
    return index


def _fill(
    index: Index,
    entries: Iterable[tuple[int, bytes, bytes, int]],
    count: int,
    room: int,
    left_out: set[str],
) -> None:
    """Fills the folders of an index with entries, of which there should be `count`.

    `room` bytes lie before the directory, which the files have to fit into.
    """
    found = taken = 0
    before, folder = None, None
    for found, (at, entry, name, packed) in enumerate(entries, start=1):
        if found > MAX_FILES:
            _check_limit(index.path, "{} files or more", found, MAX_FILES)
        taken += packed + len(name)
        above = name[: name.rfind(b"/") + 1]
        if above != before:
            folder, before = _add_folder(index, above, left_out), above
        if folder is None:
            continue
        last = name[len(above) :]
        if not _PLAIN.fullmatch(last):
            if last in (b"", b"."):  # a folder
                continue
            _check_name(index.path, name)
        if len(name) > MAX_PATH_BYTES:
            _check_limit(index.path, "a path of {} bytes", len(name), MAX_PATH_BYTES)
        if folder.runs and folder.runs[-1] == at:
            folder.runs[-1] = at + len(entry)
        else:
            folder.runs.extend((at, at + len(entry)))
    if found % 2**16 != count % 2**16:
        raise zipfile.BadZipFile(f"it lists {found} files, and says that it has {count}")
    if taken > room:
        raise zipfile.BadZipFile(f"its files overlap: they take {taken} bytes of {room}")


def _add_folder(index: Index, path: bytes, left_out: set[str]) -> _Folder | None:
    """Returns a folder, made with those above it if it is new; None of one that is left out."""
    names = [n for n in _check_name(index.path, path).split("/") if n not in ("", ".")]
    if not left_out.isdisjoint(names):
        return None
    _check_limit(index.path, "a path of {} bytes", len(path), MAX_PATH_BYTES)
    _check_limit(index.path, "folders nested {} deep", len(names), MAX_DEPTH)
    folder, there = index.folders[""], ""
    for name in names:
        there = f"{there}/{name}" if there else name
        if there not in index.folders:
            folder.folders.append(name)
            index.folders[there] = _Folder()
            _check_limit(index.path, "{} folders or more", len(index.folders), MAX_FOLDERS)
        folder = index.folders[there]
    return folder


def _check_limit(path: str, what: str, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(
            f"{printable(path)}: has {what.format(size)}, the most that is read is {limit}; unpack "
            "what you need of it, and give the folder"
        )


def _check_name(path: str, name: bytes) -> str:
    """Returns the name of a file or folder in a zip file; ValueError if it is no decent one."""
    place = printable(path)
    try:
        text = name.decode()  # which it nearly always is, marked so or not
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place}: the name {name[:40]!r} in the zip file is not UTF-8; pack it again"
        ) from error
    shown = files.shorten(text)
    if text.startswith("/") or re.match("[A-Za-z]:", text) or ".." in text.split("/"):
        raise ValueError(
            f"{place}: {shown} leads out of the zip file; nothing of such a file is read"
        )
    if _CONTROL.search(text):
        raise ValueError(
            f"{place}: the name {shown} in the zip file has control characters in it; rename that "
            "file, and pack it again"
        )
    return text


class _OpenFolder:
    """The files in a folder of an open zip file, by name."""

    def __init__(self, index: Index, folder: str):
        self.parts = Parts(index.parts)
        if self.parts.size != index.size:
            raise ValueError(
                f"{printable(index.path)}: has changed since it was listed; run the command again"
            )
        self._runs = index.folders[folder].runs

    def names(self) -> list[str]:
        """Returns the names of the files."""
        return [_last(name).decode() for _, _, name, _ in self._entries()]

    def find(self, name: str) -> bytes | None:
        """Returns the entry of a file, None if there is no such file."""
        wanted = name.encode()
        keys, places = self._places
        i = int(np.searchsorted(keys, np.uint32(zlib.crc32(wanted))))
        while i < len(keys) and keys[i] == zlib.crc32(wanted):
            start, length = places[i].tolist()
            _, entry, found, _ = next(zip_bytes.entries(self.parts, start, start + length))
            if _last(found) == wanted:
                return entry
            i += 1
        return None

    @functools.cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """CRC-32 of the names, ascending, and where the entries are: 20 bytes a file."""
        found = array.array("Q")
        for at, entry, name, _ in self._entries():
            found.extend((zlib.crc32(_last(name)), at, len(entry)))
        rows = np.frombuffer(found, np.uint64).reshape(-1, 3)
        order = np.argsort(rows[:, 0])
        return rows[order, 0].astype(np.uint32), rows[order, 1:]

    def _entries(self) -> Iterator[tuple[int, bytes, bytes, int]]:
        for start, end in zip(self._runs[::2], self._runs[1::2], strict=True):
            yield from zip_bytes.entries(self.parts, start, end)


def _last(name: bytes) -> bytes:
    return name[name.rfind(b"/") + 1 :]


@functools.lru_cache(4)
def _open_folder(index: Index, folder: str) -> _OpenFolder:
    return _OpenFolder(index, folder)
