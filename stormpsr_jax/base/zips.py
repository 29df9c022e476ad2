"""Zip files of pictures, labels and predictions, whole or in parts, read without unpacking them.

A tar file that somebody names is read likewise.

`zipfile` takes .8 KiB a member, and data sets have a hundred thousand and more in each of several
files. So a process keeps few of them open, those that it has read from last.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.base.tars import TarArchive

MAX_DEPTH, MAX_FOLDERS, MAX_PATH = 64, 2**16, 1024  # of paths in a zip file; the last in characters
MAX_OPEN = 3  # labels and the predictions of two streams are read by turns
MAX_MEMBERS = 10_000  # that are read together; IndustReal has 84 recordings
MAX_BYTES = files.MAX_TEXT  # of these together
# Of labels and predictions that are read, however small the zip file is: as tables or JSON they
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


def find(folder: str, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns the paths of the parts of the zip files among the files of a folder, by name.

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
        name: tuple(os.path.join(folder, part) for part in parts)
        for name, parts in sorted((found | pieces).items())
    }


def parts_of(path: str | os.PathLike) -> tuple[str, tuple[str, ...]]:
    """Returns the path of a whole zip file and those of its parts, given that of any of these."""
    folder, name = os.path.split(path)
    if match := _PART.fullmatch(name):
        parts = [part for part in os.listdir(folder or ".") if part.startswith(match[1] + ".")]
        return os.path.join(folder, match[1]), find(folder, parts)[match[1]]
    return os.fspath(path), (os.fspath(path),)


def is_packed(path: str) -> bool:
    """Says whether a path is called like that of a zip file, of a part of one or of a tar file."""
    return path.lower().endswith((".zip", ".tar")) or _PART.fullmatch(path) is not None


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


class Archive:
    """An open zip file.

    Attributes:
        members: its files by path, with / between folders.
        folders: of each, the names of the folders in it, and the paths of the files.
    """

    def __init__(self, path: str, parts: Sequence[str]):
        file: Any = parts[0] if len(parts) == 1 else io.BufferedReader(_Joined(parts))
        # Without it, names that are not marked as UTF-8, which they nearly always are, are CP 437.
        self.file: zipfile.ZipFile | TarArchive = (
            TarArchive(path)
            if path.endswith(".tar")
            else zipfile.ZipFile(file, metadata_encoding="utf-8")
        )
        self._path = path
        self.members: dict[str, zipfile.ZipInfo] = {}
        self.folders: dict[str, tuple[list[str], list[str]]] = {"": ([], [])}
        packed = 0
        for member in self.file.infolist():
            packed += member.compress_size
            name = member.orig_filename
            if not _PLAIN.fullmatch(name):
                name = _checked(path, name)
            folder, _, last = name.rpartition("/")
            if last and name in self.members:
                raise ValueError(f"{printable(f'{path}/{name}')}: is in the zip file twice")
            if LEFT_OUT in folder.split("/"):
                continue
            self._check_limits(name)
            inside = self.folders.get(folder) or self._add(folder)
            if last:
                self.members[name] = member
                inside[1].append(name)
        if packed > (size := sum(os.path.getsize(part) for part in parts)):
            raise zipfile.BadZipFile(f"its files overlap: they take {packed} bytes of {size}")
        self.file.NameToInfo.clear()  # `members` has them
        self.file.filelist.clear()

    def _add(self, path: str) -> tuple[list[str], list[str]]:
        if path not in self.folders:
            self._check_limits(path)
            above, _, name = path.rpartition("/")
            self._add(above)[0].append(name)
            self.folders[path] = [], []
        return self.folders[path]

    def _check_limits(self, name: str) -> None:
        too_many = len(self.folders) > MAX_FOLDERS
        if too_many or len(name) > MAX_PATH or name.count("/") >= MAX_DEPTH:
            raise ValueError(
                f"{printable(self._path)}: has more than {MAX_FOLDERS:,} folders, or nested more "
                f"than {MAX_DEPTH} deep, or paths of more than {MAX_PATH:,} characters; unpack "
                "what you need of it, and give the folder"
            )


def _checked(zip: str, name: str) -> str:
    """Returns the path of a file or folder in a zip file; ValueError if it is no decent one."""
    name = name.replace("\\", "/")  # of some Windows programs
    shown = files.shorten(name)
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        raise ValueError(
            f"{printable(zip)}: {shown} leads out of the zip file; nothing of such a file is read"
        )
    if _CONTROL.search(name):
        raise ValueError(
            f"{printable(zip)}: the name {shown} in the zip file has control characters in it; "
            "rename that file, and pack it again"
        )
    is_folder = name.endswith(("/", "/.")) or name in ("", ".")
    path = posixpath.normpath(name)
    return ("" if path == "." else path) + "/" * is_folder


_kept: dict[tuple[object, ...], Archive] = {}


def opened(path: str, parts: Sequence[str]) -> Archive:
    """Returns an open zip file.

    Args:
        path: of the file; of one in parts, the path that it would have joined.
        parts: paths of the files that it is, in order.

    Raises:
        ValueError: it is no whole one, or has names that no file should have.
    """
    for number, part in enumerate(parts, start=1):
        if _PART.fullmatch(part) and int(part[-3:]) != number:
            raise ValueError(
                f"{printable(path)}.{number:03d} is missing, "
                f"{printable(os.path.basename(part))} is there: they are parts of one zip file; "
                "download it too, or move the others elsewhere"
            )
    try:
        status = [os.stat(part) for part in parts]
        key = path, *parts, os.getpid(), *((s.st_size, s.st_mtime_ns) for s in status)
        if (archive := _kept.pop(key, None)) is None:
            while len(_kept) >= MAX_OPEN:  # before another one takes its memory
                _kept.pop(next(iter(_kept)))
            archive = Archive(path, parts)
        _kept[key] = archive
        return archive
    except OSError as error:
        where = printable(error.filename or path)
        raise ValueError(f"{where}: cannot be read ({error.strerror or error})") from error
    except (*UNPACKING, MemoryError) as error:
        advice = "download it again if it should be one, or else move it elsewhere"
        if (last := parts[-1]) != path:
            advice = (
                f"of its parts, the last of which here is {printable(os.path.basename(last))}, "
                "one is missing, cut off or has another's name; download them again"
            )
        raise ValueError(f"{printable(path)}: not a whole zip file ({error}); {advice}") from error
