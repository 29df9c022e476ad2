"""What a flag takes: a folder, a zip or a tar file that is read as it is, or a single file.

All are trees of folders and files, whose names are given with / between them, relative to the top.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar, NamedTuple, TypeVar

from stormpsr_jax.base import files, memory, zips
from stormpsr_jax.base.errors import lines_of, raise_all
from stormpsr_jax.base.zips import printable, read_errors

# Far above any real picture or label file; what is larger, and no video, is not read.
MAX_FILE_BYTES = 128 * 2**20
T = TypeVar("T")
_ENDS = 2**16  # bytes at either end of a file that tell its content


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder, a zip or a tar file (`Zip`), or a single file. Picklable.

    Attributes:
        path: of the folder or zip file; of one in parts, the path that it would have joined.
        left_out: names of folders that `walk` leaves out; always also `zips.LEFT_OUT`.
        only: the one file of the folder that the tree has; '' for a whole folder.
        packed: whether it is a zip or a tar file.
    """

    path: str
    left_out: frozenset[str] = frozenset()
    only: str = ""
    packed: ClassVar[bool] = False

    def show(self, name: str) -> str:
        """Returns the place of a file or folder as messages name it, without control characters."""
        return printable(os.path.join(self.path, name) if name else self.path)

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        """Returns the names of the folders and of the files in a folder, sorted.

        Hidden ones (their name begins with a dot) are left out.

        Raises:
            ValueError: no such folder; all names in it that are not UTF-8, links that lead nowhere
                and what is neither a folder nor a regular file; in a zip file, one that is twice.
        """
        if self.only:
            return [], [self.only]
        folders, names = self._scan(folder)
        return (
            sorted(name for name in folders if not name.startswith(".")),
            sorted(name for name in names if not name.startswith(".")),
        )

    def _scan(self, folder: str) -> tuple[list[str], list[str]]:
        folders, names, errors = [], [], []
        try:
            with os.scandir(os.path.join(self.path, folder)) as found:
                for entry in found:
                    try:
                        entry.name.encode()
                        if entry.is_dir():
                            folders.append(entry.name)
                        elif entry.name.startswith(".") or entry.is_file():
                            names.append(entry.name)
                        else:
                            _check_regular(entry.path, self.show(join(folder, entry.name)))
                    except UnicodeEncodeError:
                        what = f"the name {os.fsencode(entry.name)!r} is not UTF-8; rename it"
                        errors.append(f"{self.show(folder)}: {what}")
                    except ValueError as error:
                        errors.append(str(error))
        except OSError as error:
            raise ValueError(f"{self.show(folder)}: cannot be listed ({error.strerror})") from error
        raise_all(sorted(errors))
        return folders, names

    def exists(self, name: str) -> bool:
        """Says whether there is a file of that name; ValueError for what is no regular file."""
        path = os.path.join(self.path, name)
        if not os.path.lexists(path) or os.path.isdir(path):
            return False
        _check_regular(path, self.show(name))
        return True

    def size(self, name: str) -> int:
        """Returns how many bytes a file has, unpacked; ValueError if there is none."""
        with read_errors(self.show(name)):
            return os.stat(os.path.join(self.path, name)).st_size

    def fingerprint(self, name: str) -> int:
        """Returns a number of a file's size, first and last 64 KiB, to tell other content by."""
        file, size = self.open(name)
        with file, read_errors(self.show(name)):
            digest = zlib.crc32(file.read(_ENDS), zlib.crc32(str(size).encode()))
            file.seek(max(size - _ENDS, 0))
            return zlib.crc32(file.read(_ENDS), digest)

    def fingerprint_all(self, names: Sequence[str]) -> int:
        """Returns a number to tell other content of files by, of which three are opened.

        It is of how many bytes each has: of pictures that are exchanged hardly one has as many.
        """
        sizes = ",".join(str(self.size(name)) for name in names)
        ends = (names[0], names[len(names) // 2], names[-1])
        return zlib.crc32(f"{sizes} {[self.fingerprint(name) for name in ends]}".encode())

    def read(self, name: str) -> bytes:
        """Returns the content of a picture or label file.

        Raises:
            ValueError: it cannot be read, or has more than MAX_FILE_BYTES.
        """
        file, size = self.open(name)
        with file, read_errors(self.show(name)):
            content = file.read(MAX_FILE_BYTES + 1) if size <= MAX_FILE_BYTES else b""
        if max(size, len(content)) > MAX_FILE_BYTES:
            raise ValueError(
                f"{self.show(name)}: has more than {MAX_FILE_BYTES >> 20} MiB, which no picture or "
                "label file has; it is not read"
            )
        return content

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """Returns an open file and its size in bytes; ValueError if it cannot be opened."""
        with read_errors(self.show(name)):
            file = Path(self.path, name).open("rb")
            return file, os.fstat(file.fileno()).st_size

    @contextlib.contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Gives a label file as a path; messages of a ValueError name its place in the zip file."""
        yield Path(self.path, name)

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError if files of a zip file have more in them than is read together."""

    def walk(
        self, folder: str = "", above: tuple[object, ...] = ()
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yields (folder, folders, files) for a folder and all below it but those left out.

        Who takes names out of `folders` leaves these out too. Symbolic links are followed;
        ValueError if one leads back to a folder `above` it.
        """
        identity: object = folder
        if not self.packed and not self.only:
            with read_errors(self.show(folder)):
                status = os.stat(os.path.join(self.path, folder))
            identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise ValueError(
                f"{self.show(folder)}: symlink loop, it leads back to a folder above it; remove it"
            )
        folders, names = self.entries(folder)
        folders = [name for name in folders if name not in {*self.left_out, zips.LEFT_OUT}]
        yield folder, folders, names
        for name in folders:
            yield from self.walk(join(folder, name), (*above, identity))

    def files(self) -> Iterator[Place]:
        """Yields all files, those of a folder in order; errors as of `walk`."""
        for folder, _, names in self.walk():
            yield from (Place(self, join(folder, name)) for name in names)


@dataclasses.dataclass(frozen=True)
class Zip(Tree):
    """A zip or a tar file; a process opens it when it first reads from it.

    Attributes:
        parts: paths of the files that it is, in order.
    """

    parts: tuple[str, ...] = ()
    packed: ClassVar[bool] = True

    @property
    def archive(self) -> zips.Archive:
        """The open file; ValueError if it cannot be read."""
        return zips.opened(self.path, self.parts)

    def _scan(self, folder: str) -> tuple[list[str], list[str]]:
        if (found := self.archive.folders.get(folder)) is None:
            raise ValueError(f"{self.show(folder)}: no such folder in the zip file")
        return found[0], [name.rpartition("/")[2] for name in found[1]]

    def exists(self, name: str) -> bool:
        """As of a folder, without one on a disk."""
        return name in self.archive.members

    def size(self, name: str) -> int:
        """As it is declared."""
        return self._member(name).file_size

    def open(self, name: str, free: int = MAX_FILE_BYTES) -> tuple[IO[bytes], int]:
        """As of a folder; `free`: bytes that it may have however few they are packed."""
        archive, member, place = self.archive.file, self._member(name), self.show(name)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{place}: is a link in the zip file; pack the files themselves")
        memory.check_growth(member.compress_size, member.file_size, free, f"{place}: what is in it")
        with read_errors(place):
            return archive.open(member), member.file_size

    @contextlib.contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """A copy, for as long as the block runs."""
        packed, size = self.open(name, zips.FREE_BYTES)
        with packed, tempfile.TemporaryDirectory() as folder:
            place, copy = self.show(name), Path(folder, PurePosixPath(name).name)
            if size > files.MAX_TEXT:
                what = f"has {size:,} bytes, {files.MAX_TEXT:,} are the most that is read"
                raise ValueError(f"{place}: {what}")
            with read_errors(place), copy.open("wb") as file:
                shutil.copyfileobj(packed, file)
            try:
                yield copy
            except ValueError as error:
                raise_all([line.replace(str(copy), place) for line in lines_of(error)])

    def check(self, names: Sequence[str]) -> None:
        """As of a folder, which has no such limit."""
        size = sum(map(self.size, names))
        packed, place = sum(map(os.path.getsize, self.parts)), self.show("")
        memory.check_growth(packed, size, zips.FREE_BYTES, f"{place}: what is in it")
        if len(names) > zips.MAX_MEMBERS or size > zips.MAX_BYTES:
            raise ValueError(
                f"{place}: {len(names):,} files of {size:,} bytes are wanted of it, of which "
                f"{zips.MAX_MEMBERS:,} files and {zips.MAX_BYTES:,} bytes are the most that is read"
            )

    def _member(self, name: str) -> zipfile.ZipInfo:
        if (member := self.archive.members.get(name)) is None:
            raise ValueError(f"{self.show(name)}: no such file in the zip file")
        return member


class Place(NamedTuple):
    """A folder or file of a tree; as a text it is the place as messages name it."""

    tree: Tree
    name: str

    def __str__(self) -> str:
        return self.tree.show(self.name)

    def __truediv__(self, name: str) -> Place:
        return Place(self.tree, join(self.name, name))

    @property
    def last(self) -> str:
        """The name of the file or folder itself; '' of the top."""
        return self.name.rpartition("/")[2]

    @property
    def above(self) -> Place:
        """The folder that it is in."""
        return Place(self.tree, self.name.rpartition("/")[0])

    def is_file(self) -> bool:
        """Says whether it is a file; ValueError for what is neither that nor a folder."""
        return self.tree.exists(self.name)

    @property
    def path(self) -> Path:
        """Of what is in no zip file."""
        return Path(self.tree.path, self.name)

    def read(self, read: Callable[..., T], *args: Any, **options: Any) -> T:
        """Returns read(path, …) of a file; see `Tree.on_disk`."""
        with self.tree.on_disk(self.name) as path:
            return read(path, *args, **options)


def place_of(path: str | os.PathLike) -> Place:
    """Returns the place of a file or folder on a disk."""
    folder, name = os.path.split(os.fspath(path))
    return Place(Tree(folder), name)


def join(folder: str, name: str) -> str:
    """Returns folder/name; the top folder is ''."""
    return f"{folder}/{name}" if folder else name


def open_trees(
    path: str | os.PathLike,
    left_out: Iterable[str] = (),
    spare: Callable[[str], bool] = lambda name: False,
    unread: list[str] | None = None,
) -> list[Tree]:
    """Returns the trees of a --flag that takes a folder, a zip file or a single file.

    A folder counts together with the zip files that lie directly in it, as after a download;
    folders named in `left_out` are not looked into. A zip file may be cut into parts, x.zip.001,
    x.zip.002 and so on; each of them stands for all. `spare` says by its name of which zip file in
    the folder it is no error if it cannot be read, as of downloads that are not all finished; what
    is wrong with it is added to `unread`.

    Raises:
        ValueError: there is nothing at that path; see `zips.opened`.
    """
    path, left_out = os.fspath(path), frozenset(left_out)
    trees = [open_tree(path, left_out)]
    if os.path.isdir(path):
        for name, parts in zips.find(path, trees[0].entries()[1]).items():
            try:
                trees.append(zip_of(parts[0], left_out))
            except ValueError as error:
                if unread is None or not spare(name):
                    raise
                unread.append(str(error))
    return trees


def open_tree(path: str, left_out: frozenset[str] = frozenset()) -> Tree:
    """Returns the tree of a folder, a zip file or a single file; errors as of `open_trees`."""
    if os.path.isdir(path):
        return Tree(path, left_out)
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such folder or zip file")
    if not zips.is_packed(path):
        return Tree(os.path.dirname(path), only=os.path.basename(path))
    return zip_of(path, left_out)


def zip_of(path: str | os.PathLike, left_out: frozenset[str] = frozenset()) -> Zip:
    """Returns the zip or tar file at a path, maybe of a part; ValueError if it cannot be read."""
    whole, parts = zips.parts_of(path)
    tree = Zip(whole, left_out, parts=parts)
    tree.entries()  # can it be read?
    return tree


def _check_regular(path: str, place: str) -> None:
    """Raises ValueError if there is something that is neither a folder nor a regular file."""
    if not os.path.exists(path):
        target = os.readlink(path)
        raise ValueError(f"{place}: is a link to {target}, which does not exist; fix or remove it")
    if not os.path.isfile(path):
        raise ValueError(f"{place}: is no regular file (a pipe or a device?); remove it")
