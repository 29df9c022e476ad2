"""Label and prediction files in zip files as downloaded, unpacked for as long as they are read.

Only the files that are wanted leave a zip file, under names that were checked, and no more of them
than a data set has. Whoever reads them sees a folder; messages name the place in the zip file.
"""

import contextlib
import dataclasses
import lzma
import os
import pathlib
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from stormpsr_jax.base import files, memory
from stormpsr_jax.base.errors import lines_of, raise_all

MAX_MEMBERS = 10_000  # wanted files of all zip files together; IndustReal has 84 recordings
MAX_BYTES = files.MAX_TEXT  # of them, unpacked
FREE_BYTES = 2**22  # of those of a zip file, however small it is
MAX_INDEX = 2**25  # bytes of a zip file's table of contents; that of 150,000 pictures has 15 MB
# What zipfile raises; RuntimeError: the member is encrypted.
_UNPACKING = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)
# (zip file, member) → where in the folder it belongs, None for what is not wanted.
Place = Callable[[pathlib.Path, pathlib.PurePosixPath], pathlib.PurePosixPath | None]


@contextlib.contextmanager
def unpacked(
    zips: Iterable[pathlib.Path], place: Place, path: pathlib.Path
) -> Iterator[pathlib.Path]:
    """Gives a folder with the wanted files of zip files; it is removed at the end of the block.

    Args:
        zips: the zip files.
        place: says where each member belongs.
        path: stands for the folder in messages: the zip file, or the folder of the zip files.

    Raises:
        ValueError: a zip file that is not whole, or has more in it than the limits above; names
            that no file can have; two members for one place. What a ValueError inside of the block
            says of an unpacked file names its place in the zip file.
    """
    with tempfile.TemporaryDirectory() as folder:
        copies = _Copies(pathlib.Path(folder), place)
        for file in zips:
            copies.add(file)
        try:
            yield copies.folder
        except ValueError as error:
            lines = [copies.in_zip(line).replace(folder, str(path)) for line in lines_of(error)]
            raise_all(lines)


@dataclasses.dataclass
class _Copies:
    """Unpacked files.

    Attributes:
        folder: that they are in.
        place: see `unpacked`.
        members: the place in the zip file of each, by its path.
        size: of all, bytes.
        of_zip: of those of the zip file at hand.
    """

    folder: pathlib.Path
    place: Place
    members: dict[pathlib.Path, str] = dataclasses.field(default_factory=dict)
    size: int = 0
    of_zip: int = 0

    def in_zip(self, line: str) -> str:
        """Returns a message that names the places in the zip files."""
        for copy, member in self.members.items():
            line = line.replace(str(copy), member)
        return line

    def add(self, path: pathlib.Path) -> None:
        """Unpacks what is wanted of a zip file."""
        self.of_zip = 0
        try:
            with path.open("rb") as file:
                if (size := _index_size(file)) > MAX_INDEX:
                    raise ValueError(
                        f"{path}: its table of contents has {size} bytes, more than {MAX_INDEX}; "
                        "such a zip file is not read"
                    )
                with zipfile.ZipFile(file) as opened:
                    for info in opened.infolist():
                        self._extract(opened, info, path)
        except MemoryError as error:
            raise ValueError(str(error)) from error
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
        except _UNPACKING as error:
            what = str(error) or "it ends too early"
            raise ValueError(
                f"{path}: not a whole zip file ({what}); download it again if it should be one"
            ) from error

    def _extract(self, opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: pathlib.Path) -> None:
        member = pathlib.PurePosixPath(info.filename.replace("\\", "/"))
        if info.is_dir() or "__MACOSX" in member.parts:
            return
        if (target := self.place(path, member)) is None:
            return
        where = f"{path}/{info.filename}"
        where = where if where.isprintable() else ascii(where)
        copy = self.folder.joinpath(*(files.check_name(part, where) for part in target.parts))
        if copy in self.members:
            raise ValueError(f"{where}: is in {self.members[copy]} too; keep one")
        if len(self.members) == MAX_MEMBERS:
            raise ValueError(f"{where}: is one more than the {MAX_MEMBERS} files that are read")
        packed = path.stat().st_size  # what a member says of itself may be said of others too
        unpacked = self.of_zip + info.file_size
        memory.check_growth(packed, unpacked, FREE_BYTES, f"{where}: with it what is unpacked")
        left = MAX_BYTES - self.size
        content = b""
        if info.file_size <= left:
            with opened.open(info) as file:
                content = file.read(info.file_size + 1)
        if max(info.file_size, len(content)) > left:
            raise ValueError(
                f"{where}: with it there would be more than {MAX_BYTES} bytes, the most that is "
                "read of zip files"
            )
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
        self.members[copy] = where
        self.size += len(content)
        self.of_zip += len(content)


def _index_size(file: BinaryIO) -> int:
    """Returns the bytes of the table of contents that a zip file declares at its end."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 2**16 - 100, 0))  # a comment of 64 KiB may follow
    tail = file.read()
    sizes = [0]
    if (at := tail.rfind(b"PK\5\6")) >= 0:
        sizes += struct.unpack_from("<L", tail, at + 12)
        if (large := tail.rfind(b"PK\6\6", 0, at)) >= 0:  # Zip64, whose size counts
            sizes = list(struct.unpack_from("<Q", tail, large + 40))
    return max(sizes)
