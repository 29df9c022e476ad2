"""Files of a data set as downloaded: a folder, or a zip file that is read without unpacking.

Both are trees of folders and files, whose names are given with / between them, relative to the top.
"""

import contextlib
import dataclasses
import lzma
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from stormpsr_jax.base import files, memory
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.media import zips
from stormpsr_jax.media.zips import printable

# Far above any real picture or label file; what is larger, and no video, is not read.
MAX_FILE_BYTES = 128 * 2**20
# Of a label file that is read as a table or JSON, which takes up to 80 times as much memory; larger
# ones have a twentieth of their size in the zip file at least.
FREE_LABELS = 2**22
# What zipfile raises; RuntimeError: the member is encrypted.
_UNPACKING = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    UnicodeDecodeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
_ENDS = 2**16  # bytes at either end of a file that tell its content


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder or a zip file. Picklable; another process does not have to list a zip file again.

    Attributes:
        path: of the folder or zip file; of one in parts, the path that it would have joined.
        left_out: names of folders that `walk` leaves out; always also `__MACOSX`, which macOS puts
            into zip files.
        index: of the zip file; None for a folder.
    """

    path: str
    left_out: frozenset[str] = frozenset()
    index: zips.Index | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def is_zip(self) -> bool:
        """Whether it is a zip file."""
        return self.index is not None

    def show(self, name: str) -> str:
        """Returns the place of a file or folder as messages name it, without control characters."""
        return printable(f"{self.path}/{name}" if name else self.path)

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        """Returns the names of the folders and of the files in a folder, sorted.

        Hidden ones (their name begins with a dot) are left out.

        Raises:
            ValueError: no such folder; all names in it that are not UTF-8, links that lead nowhere
                and what is neither a folder nor a regular file; in a zip file, one that is twice.
        """
        if self.index is not None:
            with read_errors(self.show("")):
                folders, files = self.index.entries(folder)
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
        if self.index is not None:
            with read_errors(self.show("")):
                return self.index.open(name) is not None
        path = os.path.join(self.path, name)
        if not os.path.lexists(path) or os.path.isdir(path):
            return False
        _check_regular(path, self.show(name))
        return True

    def size(self, name: str) -> int:
        """Returns how many bytes a file has, unpacked; ValueError if it cannot be opened."""
        file, size = self._open(name)
        file.close()
        return size

    def fingerprint(self, name: str) -> int:
        """Returns a number of a file's size, first and last 64 KiB, to tell other content by."""
        file, size = self._open(name)
        with file, read_errors(self.show(name)):
            digest = zlib.crc32(file.read(_ENDS), zlib.crc32(str(size).encode()))
            file.seek(max(size - _ENDS, 0))
            return zlib.crc32(file.read(_ENDS), digest)

    def read(self, name: str) -> bytes:
        """Returns the content of a picture or label file.

        Raises:
            ValueError: it cannot be read, or has more than MAX_FILE_BYTES.
        """
        file, size = self._open(name)
        with file, read_errors(self.show(name)):
            content = file.read(MAX_FILE_BYTES + 1) if size <= MAX_FILE_BYTES else b""
        if max(size, len(content)) > MAX_FILE_BYTES:
            raise ValueError(
                f"{self.show(name)}: has more than {MAX_FILE_BYTES >> 20} MiB, which no picture or "
                "label file has; it is not read"
            )
        return content

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading; ValueError if it cannot be opened."""
        return self._open(name)[0]

    def _open(self, name: str) -> tuple[IO[bytes], int]:
        """Returns an open file and its size in bytes, as a zip file declares it."""
        place = self.show(name)
        with read_errors(place):
            if self.index is None:
                file = Path(self.path, name).open("rb")
                return file, os.fstat(file.fileno()).st_size
            if (opened := self.index.open(name)) is None:
                raise ValueError(f"{place}: no such file in the zip file")
            archive, member = opened
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"{place}: is a link in the zip file; pack the files themselves")
            _check_growth(member, MAX_FILE_BYTES, place)
            return archive.open(member), member.file_size

    @contextlib.contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Gives a label file as a path; messages of a ValueError name its place in the zip file."""
        if self.index is None:
            yield Path(self.path, name)
            return
        place = self.show(name)
        with read_errors(place):
            opened = self.index.open(name)
        if opened is not None:  # otherwise `read` says so
            _check_growth(opened[1], FREE_LABELS, place)
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
            ValueError: a link leads back to a folder above it; folders nested deeper than
                `zips.MAX_DEPTH`, or more of them than `zips.MAX_FOLDERS`, as links that lead to
                folders with links can make of a few.
        """
        for count, found in enumerate(self._walk(folder, ())):
            if count == zips.MAX_FOLDERS:
                raise ValueError(
                    f"{self.show(found[0])}: is one more than the {zips.MAX_FOLDERS} folders that "
                    "are looked into; give a folder below it"
                )
            yield found

    def _walk(
        self, folder: str, above: tuple[object, ...]
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        if len(above) > zips.MAX_DEPTH:
            raise ValueError(
                f"{self.show(folder)}: folders nested more than {zips.MAX_DEPTH} deep are not "
                "looked into; give a folder below it"
            )
        identity: object = folder
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


def _check_growth(member: zipfile.ZipInfo, free: int, place: str) -> None:
    """Raises ValueError if a file has more than `free` bytes, and far more than it has packed."""
    try:
        memory.check_growth(member.compress_size, member.file_size, free, f"{place}: what is in it")
    except MemoryError as error:
        raise ValueError(str(error)) from error


def join(folder: str, name: str) -> str:
    """Returns folder/name; the top folder is ''."""
    return f"{folder}/{name}" if folder else name


def open_trees(
    path: str | os.PathLike,
    left_out: Iterable[str] = (),
    spare: Callable[[str], bool] = lambda name: False,
    unread: list[str] | None = None,
) -> list[Tree]:
    """Returns the trees of a --flag that takes a folder or a zip file.

    A folder counts together with the zip files that lie directly in it, as after a download. A zip
    file may be cut into parts, x.zip.001, x.zip.002 and so on; each of them stands for all.

    Args:
        path: of the folder or zip file.
        left_out: names of folders that are not looked into.
        spare: says by its name of which zip file in the folder it is no error if it cannot be read,
            as of downloads that are not all finished.
        unread: to which is added what is wrong with each of these.

    Raises:
        ValueError: there is nothing at that path, or it is a file but no zip file; see
            zips.read_index.
    """
    path, left_out = os.fspath(path), frozenset(left_out)
    if os.path.isdir(path):
        trees = [Tree(path, left_out)]
        for name, parts in zips.find_zips(trees[0].entries()[1]).items():
            try:
                trees.append(_open_zip(path, name, parts, left_out))
            except ValueError as error:
                if unread is None or not spare(name):
                    raise
                unread.append(str(error))
        return trees
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such folder or zip file")
    folder, name = os.path.split(path)
    if (whole := zips.joined_name(name)) is None:
        return [_open_zip(folder, name, [name], left_out)]
    parts = [part for part in Tree(folder or ".").entries()[1] if zips.joined_name(part) == whole]
    return [_open_zip(folder, whole, zips.find_zips(parts)[whole], left_out)]


def _open_zip(folder: str, name: str, parts: Sequence[str], left_out: frozenset[str]) -> Tree:
    path = os.path.join(folder, name)
    zips.check_pieces(path, parts)
    index = zips.read_index(path, [os.path.join(folder, part) for part in parts], left_out)
    return Tree(path, left_out, index)


def _check_utf8(name: str, place: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: the name {os.fsencode(name)!r} is not UTF-8; rename it"
        ) from error


def _check_regular(path: str, place: str) -> None:
    """Raises ValueError if there is something that is neither a folder nor a regular file."""
    if not os.path.exists(path):
        raise ValueError(
            f"{place}: is a link to {os.readlink(path)}, where nothing is; mend or remove it"
        )
    try:
        files.check_regular(path, "remove it")
    except ValueError as error:  # whose path may have control characters
        what = "is no regular file (a pipe or a device?); remove it"
        raise ValueError(f"{place}: {what}") from error


@contextlib.contextmanager
def read_errors(place: str) -> Iterator[None]:
    """Turns what can go wrong with a file, or its unpacking, into a ValueError that names it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{place}: cannot be read ({error.strerror or error})") from error
    except _UNPACKING as error:
        raise ValueError(f"{place}: cannot be unpacked ({error})") from error
