"""Files of a data set as downloaded: a folder, or a zip file that is read without unpacking.

Both are trees of folders and files, whose names are given with / between them, relative to the top.
"""

import contextlib
import dataclasses
import functools
import lzma
import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from stormpsr_jax.mistakes import raise_all

# Far above any real picture or label file; what is larger, or grows larger when it is unpacked,
# is not read.
MAX_FILE_BYTES = 128 * 2**20
MAX_DEPTH = 64
# What zipfile raises; RuntimeError: the member is encrypted.
_UNPACKING = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError, RuntimeError),
)
_ENDS = 2**16  # bytes at either end of a file that tell its content


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder or a zip file. Picklable; a process opens the zip file when it first needs it.

    Attributes:
        path: of the folder or zip file.
        is_zip: which of the two it is.
        left_out: names of folders that `walk` leaves out; always also `__MACOSX`, which macOS puts
            into zip files.
    """

    path: str
    is_zip: bool = False
    left_out: frozenset[str] = frozenset()

    def show(self, name: str) -> str:
        """Returns the place of a file or folder as messages name it, without control characters."""
        place = f"{self.path}/{name}" if name else self.path
        return place if place.isprintable() else ascii(place)

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        """Returns the names of the folders and of the files in a folder, sorted.

        Hidden ones (their name begins with a dot) are left out.

        Raises:
            ValueError: no such folder; all names in it that are not UTF-8, links that lead nowhere
                and what is neither a folder nor a regular file.
        """
        if self.is_zip:
            if folder not in _open_zip(self.path).folders:
                raise ValueError(f"{self.show(folder)}: no such folder in the zip file")
            folders, files = _open_zip(self.path).folders[folder]
            folders, files = list(folders), list(files)
        else:
            folders, files = self._scan(folder)
        return (
            sorted(name for name in folders if not name.startswith(".")),
            sorted(name for name in files if not name.startswith(".")),
        )

    def _scan(self, folder: str) -> tuple[list[str], list[str]]:
        folders, files, mistakes = [], [], []
        try:
            with os.scandir(os.path.join(self.path, folder)) as found:
                for entry in found:
                    try:
                        _check_utf8(entry.name, self.show(folder))
                        if entry.is_dir():
                            folders.append(entry.name)
                        elif entry.name.startswith(".") or entry.is_file():
                            files.append(entry.name)
                        else:
                            _check_regular(entry.path, self.show(join(folder, entry.name)))
                    except ValueError as error:
                        mistakes.append(str(error))
        except OSError as error:
            raise ValueError(f"{self.show(folder)}: cannot be listed ({error.strerror})") from error
        raise_all(sorted(mistakes))
        return folders, files

    def exists(self, name: str) -> bool:
        """Says whether there is a file of that name; ValueError for what is no regular file."""
        if self.is_zip:
            return name in _open_zip(self.path).members
        path = os.path.join(self.path, name)
        if not os.path.lexists(path) or os.path.isdir(path):
            return False
        _check_regular(path, self.show(name))
        return True

    def size(self, name: str) -> int:
        """Returns how many bytes a file has, unpacked; ValueError if it cannot be opened."""
        with self.open(name) as file, read_errors(self.show(name)):
            if self.is_zip:
                return _open_zip(self.path).members[name].file_size
            return os.fstat(file.fileno()).st_size

    def fingerprint(self, name: str) -> int:
        """Returns a number of a file's size, first and last 64 KiB, to tell other content by."""
        size = self.size(name)
        with self.open(name) as file, read_errors(self.show(name)):
            digest = zlib.crc32(file.read(_ENDS), zlib.crc32(str(size).encode()))
            file.seek(max(size - _ENDS, 0))
            return zlib.crc32(file.read(_ENDS), digest)

    def read(self, name: str) -> bytes:
        """Returns the content of a picture or label file.

        Raises:
            ValueError: it cannot be read, or has more than MAX_FILE_BYTES.
        """
        with self.open(name) as file, read_errors(self.show(name)):
            declared = _open_zip(self.path).members[name].file_size if self.is_zip else 0
            content = file.read(MAX_FILE_BYTES + 1) if declared <= MAX_FILE_BYTES else b""
        if max(declared, len(content)) > MAX_FILE_BYTES:
            raise ValueError(
                f"{self.show(name)}: has more than {MAX_FILE_BYTES >> 20} MiB, which no picture or "
                "label file has; it is not read"
            )
        return content

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading; ValueError if it cannot be opened."""
        with read_errors(self.show(name)):
            if not self.is_zip:
                return Path(self.path, name).open("rb")
            opened = _open_zip(self.path)
            if name not in opened.members:
                raise ValueError(f"{self.show(name)}: no such file in the zip file")
            member = opened.members[name]
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(
                    f"{self.show(name)}: is a link in the zip file; pack the files themselves"
                )
            return opened.file.open(member)

    @contextlib.contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Gives a label file as a path; messages of a ValueError name its place in the zip file."""
        if not self.is_zip:
            yield Path(self.path, name)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, PurePosixPath(name).name)
            copy.write_bytes(self.read(name))
            try:
                yield copy
            except ValueError as error:
                raise ValueError(str(error).replace(str(copy), self.show(name))) from error

    def walk(self, folder: str = "") -> Iterator[tuple[str, list[str], list[str]]]:
        """Yields (folder, folders, files) for a folder and all below it but those left out.

        Symbolic links are followed.

        Raises:
            ValueError: a link leads back to a folder above it.
        """
        yield from self._walk(folder, ())

    def _walk(self, folder: str, above: tuple) -> Iterator[tuple[str, list[str], list[str]]]:
        identity = folder
        if not self.is_zip:
            with read_errors(self.show(folder)):
                status = os.stat(os.path.join(self.path, folder))
            identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise ValueError(
                f"{self.show(folder)}: symlink loop, it leads back to a folder above it; remove it"
            )
        folders, files = self.entries(folder)
        folders = [name for name in folders if name not in {*self.left_out, "__MACOSX"}]
        yield folder, folders, files
        for name in folders:
            yield from self._walk(join(folder, name), (*above, identity))


def join(folder: str, name: str) -> str:
    """Returns folder/name; the top folder is ''."""
    return f"{folder}/{name}" if folder else name


def open_trees(path: str | os.PathLike, left_out: Iterable[str] = ()) -> list[Tree]:
    """Returns the trees of a --flag that takes a folder or a zip file.

    A folder counts together with the zip files that lie directly in it, as after a download.
    Folders of the names `left_out` are not looked into.

    Raises:
        ValueError: there is nothing at that path, or it is a file but no zip file.
    """
    left_out = frozenset(left_out)
    if os.path.isdir(path):
        tree = Tree(os.fspath(path), left_out=left_out)
        zips = [name for name in tree.entries()[1] if name.lower().endswith(".zip")]
        return [tree, *(Tree(os.path.join(path, name), True, left_out) for name in zips)]
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such folder or zip file")
    _open_zip(os.fspath(path))
    return [Tree(os.fspath(path), True, left_out)]


@dataclasses.dataclass(frozen=True)
class _OpenZip:
    """Index of a zip file: names of folders and files by folder, and its members by path."""

    file: zipfile.ZipFile
    folders: dict[str, tuple[set[str], list[str]]]
    members: dict[str, zipfile.ZipInfo]


@functools.lru_cache(16)
def _open_zip(path: str) -> _OpenZip:
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a whole zip file ({error}); download it again if it should be one"
        ) from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    folders: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
    members: dict[str, zipfile.ZipInfo] = {}
    for info in file.infolist():
        name = _member_name(info, path)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts:
            continue
        if len(parts) > MAX_DEPTH:
            raise ValueError(f"{path}: has folders nested more than {MAX_DEPTH} deep")
        depth = len(parts) if name.endswith("/") else len(parts) - 1
        for i in range(depth):
            above = "/".join(parts[:i])
            folders[above][0].add(parts[i])
            folders.setdefault(join(above, parts[i]), (set(), []))
        if depth < len(parts):
            if "/".join(parts) in members:
                raise ValueError(f"{path}: {name!r} is in the zip file twice")
            members["/".join(parts)] = info
            folders["/".join(parts[:-1])][1].append(parts[-1])
    return _OpenZip(file, folders, members)


def _member_name(info: zipfile.ZipInfo, path: str) -> str:
    """Returns the name of a member, with / between folders; ValueError if it is no decent name."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        # Not marked as UTF-8, though nearly always it is.
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError as error:
            raise ValueError(
                f"{path}: the name {name!r} in the zip file is not UTF-8; pack it again"
            ) from error
    name = name.replace("\\", "/")  # some Windows programs
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        raise ValueError(
            f"{path}: {name!r} leads out of the zip file; nothing of such a file is read"
        )
    return name


def _check_utf8(name: str, place: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: the name {os.fsencode(name)!r} is not UTF-8; rename it"
        ) from error


def _check_regular(path: str, place: str) -> None:
    """Raises ValueError if there is something that is neither a folder nor a regular file."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise ValueError(
            f"{place}: is a link to {os.readlink(path)}, where nothing is; mend or remove it"
        ) from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{place}: is no regular file (a pipe or a device?); remove it")


@contextlib.contextmanager
def read_errors(place: str) -> Iterator[None]:
    """Turns what can go wrong with a file, or its unpacking, into a ValueError that names it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{place}: cannot be read ({error.strerror or error})") from error
    except _UNPACKING as error:
        raise ValueError(f"{place}: cannot be unpacked ({error})") from error
