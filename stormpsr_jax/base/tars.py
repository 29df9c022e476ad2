"""Tar files without compression, as far as `zips` uses zipfile.ZipFile: read in place, by name."""

import io
import tarfile
import zipfile
from typing import IO


class TarArchive:
    """An index of a tar file.

    Attributes:
        filelist, NameToInfo: as those of a ZipFile; what is in it, nothing packed.
    """

    def __init__(self, path: str):
        """Raises zipfile.BadZipFile: not whole, compressed, or it has links or devices."""
        self._path, self.filelist, self.NameToInfo = path, [], dict[str, zipfile.ZipInfo]()
        try:
            with tarfile.open(path, "r:") as file:
                for entry in file:
                    if not (entry.isdir() or entry.isreg()) or entry.issparse():
                        raise zipfile.BadZipFile(f"{entry.name!a} is no plain file in it")
                    info = zipfile.ZipInfo(entry.name.removeprefix("./") + "/" * entry.isdir())
                    info.file_size = info.compress_size = entry.size
                    info.header_offset = entry.offset_data
                    self.filelist.append(info)
        except tarfile.TarError as error:
            raise zipfile.BadZipFile(f"as a tar file without compression: {error}") from error

    def infolist(self) -> list[zipfile.ZipInfo]:
        """What is in it."""
        return list(self.filelist)

    def open(self, member: zipfile.ZipInfo) -> IO[bytes]:
        """Returns a member, which has been read whole; BadZipFile: the file ends before."""
        with open(self._path, "rb") as file:
            file.seek(member.header_offset)
            content = file.read(member.file_size)
        if len(content) < member.file_size:
            raise zipfile.BadZipFile("the tar file ends in the middle of it")
        return io.BytesIO(content)
