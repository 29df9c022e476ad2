"""Zip files of pictures, labels and predictions, whole or in parts, read without unpacking them.

A tar file that somebody names is read likewise.

`zipfile` takes .8 KiB a member, and data sets have a hundred thousand and more in each of several
files. So a process keeps few of them open, those that it has read from last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import lzma
import os
import posixpath
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from stormpsr_jax.base import files, memory
from stormpsr_jax.base.tars import TarArchive

MAX_DEPTH, MAX_FOLDERS, MAX_PATH = 64, 2**16, 1024  # of paths in a zip file; the last in characters
MAX_OPEN = 3  # labels and the predictions of two streams are read by turns
MAX_MEMBERS = 10_000  # that are unpacked; IndustReal has 84 recordings
MAX_BYTES = files.MAX_TEXT  # of these together
# Of labels and predictions that are unpacked, however small the zip file is: as tables or JSON they
# take up to 80 times as much memory.
FREE_BYTES = 2**22
# What zipfile raises; RuntimeError: the member is encrypted.
UNPACKING = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, UnicodeDecodeError),
    *(EOFError, NotImplementedError, RuntimeError, OverflowError),
)
LEFT_OUT = "__MACOSX"  # macOS puts that into zip files

_PART = re.compile(r"(.+\.zip)\.([0-9]{3})", re.IGNORECASE | re.ASCII | re.DOTALL)
# Paths that nothing is wrong with, as nearly all are; the others are looked at more closely.
_PLAIN = re.compile(r"(?:[\w-][\w. -]*/)*(?:[\w-][\w. -]*)?")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclasses.dataclass(frozen=True)
class Zip:
    """A zip file. Picklable; a process opens it when it first reads from it.

    Attributes:
        path: of the file; of one in parts, the path that it would have joined.
        parts: paths of the files that it is, in order.
    """

    path: str
    parts: tuple[str, ...]

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Returns the names of the folders and of the files in a folder; '' is the top.

        Raises:
            ValueError: there is no such folder, or the zip file cannot be read: it is no whole one,
                or has names that no file should have.
        """
        found = _open(self).folders.get(folder)
        if found is None:
            raise ValueError(f"{self.show(folder)}: no such folder in the zip file")
        folders, members = found
        return list(folders), [name.rpartition("/")[2] for name in members]

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of that name; ValueError as for `entries`."""
        return name in _open(self).members

    def members(self) -> list[str]:
        """Returns the paths of all files; ValueError as for `entries`."""
        return list(_open(self).members)

    def open(self, name: str, free: int) -> tuple[IO[bytes], int]:
        """Returns an open file, and its size in bytes as the zip file declares it.

        Args:
            free: bytes that it may have however few they are packed.

        Raises:
            ValueError: there is none, it is a link, or has more than `free` bytes and far more than
                it has packed; as for `entries` too.
        """
        archive, member, place = _open(self).archive, self._member(name), self.show(name)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{place}: is a link in the zip file; pack the files themselves")
        memory.check_growth(member.compress_size, member.file_size, free, f"{place}: what is in it")
        with read_errors(place):
            return archive.open(member), member.file_size

    def size(self, name: str) -> int:
        """Returns the bytes that a file has unpacked, as declared; ValueError: there is none."""
        return self._member(name).file_size

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError if files have more in them, all together, than is unpacked."""
        size = sum(map(self.size, names))
        packed, place = sum(map(os.path.getsize, self.parts)), printable(self.path)
        memory.check_growth(packed, size, FREE_BYTES, f"{place}: what is in it")
        if len(names) > MAX_MEMBERS or size > MAX_BYTES:
            raise ValueError(
                f"{place}: {len(names):,} files of {size:,} bytes are wanted of it, of which "
                f"{MAX_MEMBERS:,} files and {MAX_BYTES:,} bytes are the most that is read"
            )

    def _member(self, name: str) -> zipfile.ZipInfo:
        if (member := _open(self).members.get(name)) is None:
            raise ValueError(f"{self.show(name)}: no such file in the zip file")
        return member

    def show(self, name: str) -> str:
        """Returns the place of a file or folder as messages name it, without control characters."""
        return printable(f"{self.path}/{name}" if name else self.path)


def printable(place: str) -> str:
    """Returns a path as messages show it, without control characters."""
    return place if place.isprintable() else ascii(place)


@contextlib.contextmanager
def read_errors(place: str) -> Iterator[None]:
    """Turns what can go wrong with a file, or its unpacking, into a ValueError that names it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{place}: cannot be read ({error.strerror or error})") from error
    except UNPACKING as error:
        raise ValueError(f"{place}: cannot be unpacked ({error})") from error


# --- Finding --------------------------------------------------------------------------------------


def find(folder: str, names: Iterable[str]) -> dict[str, Zip]:
    """Returns the zip files among the files of a folder, by name.

    `x.zip.001`, `x.zip.002`, … are x.zip cut into pieces. Beside x.zip they are left alone.
    """
    names = sorted(names)
    found = {name: [name] for name in names if name.lower().endswith(".zip")}
    pieces: dict[str, list[str]] = {}
    for name in names:
        match = _PART.fullmatch(name)
        if match and match[1] not in found:
            pieces.setdefault(match[1], []).append(name)
    return {
        name: Zip(os.path.join(folder, name), tuple(os.path.join(folder, p) for p in parts))
        for name, parts in sorted((found | pieces).items())
    }


def is_packed(path: str) -> bool:
    """Says whether a path is called like that of a zip file, of a part of one or of a tar file."""
    return path.lower().endswith((".zip", ".tar")) or _PART.fullmatch(path) is not None


def of(path: str | os.PathLike) -> Zip:
    """Returns the zip file at a path, which may be that of one of its parts."""
    folder, name = os.path.split(path)
    if match := _PART.fullmatch(name):
        parts = [part for part in os.listdir(folder or ".") if part.startswith(match[1] + ".")]
        return find(folder, parts)[match[1]]
    return Zip(os.fspath(path), (os.fspath(path),))


# --- Opening --------------------------------------------------------------------------------------


class _Joined(io.RawIOBase):
    """The parts of a zip file as one file."""

    def __init__(self, paths: Iterable[str]):
        self._files: list[io.FileIO] = []
        self._starts: list[int] = []
        self._size = self._at = 0
        for path in paths:
            self._files.append(open(path, "rb", buffering=0))
            self._starts.append(self._size)
            self._size += os.fstat(self._files[-1].fileno()).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if self._at < 0:
            raise OSError("a place before the start of the file")
        return self._at

    def readinto(self, buffer: Any) -> int:
        for start, file in reversed(list(zip(self._starts, self._files, strict=True))):
            if self._at >= start:
                file.seek(self._at - start)
                count = file.readinto(buffer) or 0
                self._at += count
                return count
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


class _Opened:
    """An open zip file.

    Attributes:
        members: its files by path, with / between folders.
        folders: of each, the names of the folders in it, and the paths of the files.
    """

    def __init__(self, zip: Zip):
        file: Any = zip.parts[0] if len(zip.parts) == 1 else io.BufferedReader(_Joined(zip.parts))
        # Without it, names that are not marked as UTF-8, which they nearly always are, are CP 437.
        self.archive: zipfile.ZipFile | TarArchive = (
            TarArchive(zip.path)
            if zip.path.endswith(".tar")
            else zipfile.ZipFile(file, metadata_encoding="utf-8")
        )
        self.members: dict[str, zipfile.ZipInfo] = {}
        self.folders: dict[str, tuple[list[str], list[str]]] = {"": ([], [])}
        packed = 0
        for member in self.archive.infolist():
            packed += member.compress_size
            name = member.orig_filename
            if not _PLAIN.fullmatch(name):
                name = _checked(zip, name)
            folder, _, last = name.rpartition("/")
            if last and name in self.members:
                raise ValueError(f"{zip.show(name)}: is in the zip file twice")
            if LEFT_OUT in folder.split("/"):
                continue
            _check_limits(zip, name, len(self.folders))
            inside = self.folders.get(folder) or self._add(zip, folder)
            if last:
                self.members[name] = member
                inside[1].append(name)
        if packed > (size := sum(os.path.getsize(part) for part in zip.parts)):
            raise zipfile.BadZipFile(f"its files overlap: they take {packed} bytes of {size}")
        self.archive.NameToInfo.clear()  # `members` has them
        self.archive.filelist.clear()

    def _add(self, zip: Zip, path: str) -> tuple[list[str], list[str]]:
        if path not in self.folders:
            _check_limits(zip, path, len(self.folders))
            above, _, name = path.rpartition("/")
            self._add(zip, above)[0].append(name)
            self.folders[path] = [], []
        return self.folders[path]


def _check_limits(zip: Zip, name: str, folders: int) -> None:
    if len(name) > MAX_PATH or name.count("/") >= MAX_DEPTH or folders > MAX_FOLDERS:
        raise ValueError(
            f"{printable(zip.path)}: has more than {MAX_FOLDERS:,} folders, or nested more than "
            f"{MAX_DEPTH} deep, or paths of more than {MAX_PATH:,} characters; unpack what you "
            "need of it, and give the folder"
        )


def _checked(zip: Zip, name: str) -> str:
    """Returns the path of a file or folder in a zip file; ValueError if it is no decent one."""
    name = name.replace("\\", "/")  # of some Windows programs
    shown = files.shorten(name)
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        raise ValueError(
            f"{printable(zip.path)}: {shown} leads out of the zip file; nothing of such a file is "
            "read"
        )
    if _CONTROL.search(name):
        raise ValueError(
            f"{printable(zip.path)}: the name {shown} in the zip file has control characters in "
            "it; rename that file, and pack it again"
        )
    is_folder = name.endswith(("/", "/.")) or name in ("", ".")
    path = posixpath.normpath(name)
    return ("" if path == "." else path) + "/" * is_folder


_kept: dict[tuple[object, ...], _Opened] = {}


def _open(zip: Zip) -> _Opened:
    """The open zip file; ValueError as for `Zip.entries`."""
    for number, part in enumerate(zip.parts, start=1):
        if _PART.fullmatch(part) and int(part[-3:]) != number:
            raise ValueError(
                f"{printable(zip.path)}.{number:03d} is missing, "
                f"{printable(os.path.basename(part))} is there: they are parts of one zip file; "
                "download it too, or move the others elsewhere"
            )
    try:
        status = [os.stat(part) for part in zip.parts]
        key = zip, os.getpid(), *((s.st_size, s.st_mtime_ns) for s in status)
        if (opened := _kept.pop(key, None)) is None:
            while len(_kept) >= MAX_OPEN:  # before another one takes its memory
                _kept.pop(next(iter(_kept)))
            opened = _Opened(zip)
        _kept[key] = opened
        return opened
    except OSError as error:
        where = printable(error.filename or zip.path)
        raise ValueError(f"{where}: cannot be read ({error.strerror or error})") from error
    except (*UNPACKING, MemoryError) as error:
        advice = "download it again if it should be one, or else move it elsewhere"
        if (last := zip.parts[-1]) != zip.path:
            advice = (
                f"of its parts, the last of which here is {printable(os.path.basename(last))}, "
                "one is missing, cut off or has another's name; download them again"
            )
        raise ValueError(
            f"{printable(zip.path)}: not a whole zip file ({error}); {advice}"
        ) from error
