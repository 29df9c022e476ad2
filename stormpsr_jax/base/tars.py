"""Tar files, read in place: files in one by their names, without unpacking it.

Those that are compressed as a whole have no places to read from and are refused.
"""

import dataclasses
import functools
import io
import os
import posixpath
import tarfile
from collections.abc import Iterable
from typing import IO

from stormpsr_jax.base.zips import printable

ENDING = ".tar"
_MAX_BYTES = 2**30  # of a file, which is read whole


@dataclasses.dataclass(frozen=True)
class Tar:
    """A tar file, used as `zips.Zip` is. Picklable; a process reads its index when it first has to.

    Attributes:
        path: of the file.
    """

    path: str

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Returns the names of the folders and of the files in a folder; '' is the top.

        Raises:
            ValueError: no such folder; the file is no whole tar file, is compressed, or has what is
                neither a folder nor a file, or a name that leads out of it.
        """
        found = self._index()[1].get(folder)
        if found is None:
            raise ValueError(f"{self.show(folder)}: no such folder in the tar file")
        return list(found[0]), list(found[1])

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of that name; ValueError as for `entries`."""
        return name in self._index()[0]

    def size(self, name: str) -> int:
        """Returns the bytes of a file; ValueError: there is none."""
        return self._place(name)[1]

    def open(self, name: str, free: int = 0) -> tuple[IO[bytes], int]:
        """Returns a file that has been read, and its size; ValueError: there is none, too large.

        `free` is for zip files, whose members may be larger than they look.
        """
        start, size = self._place(name)
        if size > _MAX_BYTES:
            raise ValueError(f"{self.show(name)}: has more than 1 GiB; unpack the tar file")
        with open(self.path, "rb") as file:
            file.seek(start)
            return io.BytesIO(file.read(size)), size

    def show(self, name: str) -> str:
        """Returns the place of a file or folder as messages name it."""
        return printable(f"{self.path}/{name}" if name else self.path)

    def _place(self, name: str) -> tuple[int, int]:
        if (place := self._index()[0].get(name)) is None:
            raise ValueError(f"{self.show(name)}: no such file in the tar file")
        return place

    def _index(self) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[list, list]]]:
        status = os.stat(self.path)
        return _read(self.path, status.st_size, status.st_mtime_ns)


def find(folder: str, names: Iterable[str]) -> dict[str, Tar]:
    """Returns the tar files among the files of a folder, by their names."""
    return {name: Tar(os.path.join(folder, name)) for name in names if name.endswith(ENDING)}


@functools.lru_cache(maxsize=16)
def _read(
    path: str, *stamp: int
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[list, list]]]:
    """Returns {file: (start, size)} and {folder: (folders, files)} of a tar file."""
    members: dict[str, tuple[int, int]] = {}
    folders: dict[str, tuple[list, list]] = {"": ([], [])}

    def folder_of(name: str) -> tuple[list, list]:
        if name not in folders:
            folders[name] = ([], [])
            above, _, own = name.rpartition("/")
            folder_of(above)[0].append(own)
        return folders[name]

    try:
        with tarfile.open(path, "r:") as file:
            while (member := file.next()) is not None:
                file.members = []  # otherwise it keeps what it has read of each
                name = posixpath.normpath(member.name)
                place = printable(f"{path}/{name}")
                if name.startswith(("/", "../")) or name == ".." or name in members:
                    raise ValueError(f"{place}: a name that leads elsewhere, or comes twice")
                if not (member.isdir() or member.isreg()) or member.issparse():
                    raise ValueError(f"{place}: is neither a folder nor a whole file in the tar")
                if member.isreg():
                    members[name] = (member.offset_data, member.size)
                    above, _, own = name.rpartition("/")
                    folder_of(above)[1].append(own)
                elif name != ".":
                    folder_of(name)
            if file.offset > os.path.getsize(path):
                raise tarfile.ReadError("it ends in the middle of a file")
    except (tarfile.TarError, OSError, EOFError) as error:
        what = f"no whole tar file without compression ({error}); unpack it, or load it again"
        raise ValueError(f"{path}: {what}") from error
    return members, folders
