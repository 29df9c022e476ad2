"""Bytes of zip files: the entries of the central directory, and the file that one of them lists.

A zip file ends with its central directory, an entry a file. To parse an entry, and to unpack its
file, is left to the standard library, which gets to see a zip file with this one entry.

Formats: APPNOTE.TXT 6.3.10 of PKWARE, 4.3.12 to 4.3.16 and 4.5.3.
"""

import bisect
import errno
import io
import os
import struct
import weakref
import zipfile
from collections.abc import Iterator, Sequence

_ENTRY_MARK, _END_MARK = b"PK\x01\x02", b"PK\x05\x06"
_END64_MARK, _LOCATOR_MARK = b"PK\x06\x06", b"PK\x06\x07"
# Of an entry: packed size, size, lengths of name, extra fields and comment.
_ENTRY = struct.Struct("<4s16xLLHHH12x")
_END = struct.Struct("<4s4xHHLLH")  # entries here and in all, size, offset, length of a comment
_LOCATOR = struct.Struct("<4sLQL")  # number of a disk, place of _END64, number of disks
_END64 = struct.Struct("<4sQHHLLQQQQ")  # its length, versions, disks, then as in _END
_EXTRA = struct.Struct("<HH")  # kind, length
_IN_ZIP64, _ZIP64 = 0xFFFFFFFF, 1  # the number stands in an extra field, of this kind
_LONGEST_ENTRY = _ENTRY.size + 3 * 0xFFFF
_CHUNK = 2**20


class Parts:
    """Open files, one after another; read at any place by any number of threads.

    Attributes:
        size: bytes of all of them.
    """

    def __init__(self, paths: Sequence[str]):
        self._files: list[int] = []
        weakref.finalize(self, _close, self._files)
        self._starts: list[int] = []
        self.size = 0
        for path in paths:
            self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            self._starts.append(self.size)
            self.size += os.fstat(self._files[-1]).st_size

    def read(self, at: int, size: int) -> bytes:
        """Returns the `size` bytes from `at` on, fewer at the end of the last file; OSError."""
        pieces = []
        while size > 0 and at < self.size:
            i = bisect.bisect(self._starts, at) - 1
            piece = os.pread(self._files[i], size, at - self._starts[i])
            if not piece:  # it has become shorter
                break
            pieces.append(piece)
            at, size = at + len(piece), size - len(piece)
        return b"".join(pieces)


def _close(numbers: Sequence[int]) -> None:
    for number in numbers:
        os.close(number)


class _View(io.RawIOBase):
    """Open files, and some bytes behind them, as one file."""

    def __init__(self, parts: Parts, tail: bytes):
        self._parts, self._tail, self._at = parts, tail, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._parts.size + len(self._tail)
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: end}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "a place before the start of the file")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = max(0, self._parts.size + len(self._tail) - self._at)
        data = self._parts.read(self._at, size)
        behind = max(0, self._at - self._parts.size)
        data += self._tail[behind : behind + size - len(data)]
        self._at += len(data)
        return data


def find_directory(parts: Parts) -> tuple[int, int, int, int]:
    """Finds the central directory of a zip file.

    Returns:
        Its start and end; the number of its entries, which programs without zip64 count modulo
        2^16; and by how many bytes more than they say files lie in the zip file, as where something
        was put in front of it.

    Raises:
        zipfile.BadZipFile: it has none, or is one of several disks.
        OSError: it cannot be read.
    """
    tail_at = max(0, parts.size - _END.size - 0xFFFF)
    tail = parts.read(tail_at, parts.size - tail_at)
    at = tail.rfind(_END_MARK, 0, max(0, len(tail) - _END.size + len(_END_MARK)))
    if at < 0:
        raise zipfile.BadZipFile("it does not end as one")
    _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    locator = parts.read(max(0, end - _LOCATOR.size), _LOCATOR.size)
    if locator.startswith(_LOCATOR_MARK):
        if _LOCATOR.unpack(locator)[3] > 1:
            raise zipfile.BadZipFile("it is one of several disks")
        end -= _LOCATOR.size + _END64.size
        record = parts.read(max(0, end), _END64.size)
        if not record.startswith(_END64_MARK):
            raise zipfile.BadZipFile("the end of its directory is damaged")
        *_, count, size, offset = _END64.unpack(record)
    start = end - size
    if start < 0 or offset > start:
        raise zipfile.BadZipFile("its directory is not where it should be")
    return start, end, count, start - offset


def entries(parts: Parts, start: int, end: int) -> Iterator[tuple[int, bytes, bytes, int]]:
    """Yields (position, entry, name with / between folders, packed size) from start to end.

    Raises:
        zipfile.BadZipFile: there is something else than entries.
        OSError: they cannot be read.
    """
    data, at, base = b"", 0, start
    while base + at < end:
        if len(data) - at < _LONGEST_ENTRY and base + len(data) < end:
            data, base, at = data[at:], base + at, 0
            there = base + len(data)
            data += parts.read(there, min(_CHUNK, end - there))
        if len(data) - at < _ENTRY.size:
            raise zipfile.BadZipFile("its directory is cut off")
        mark, packed, size, name_bytes, extra_bytes, comment_bytes = _ENTRY.unpack_from(data, at)
        name_at = at + _ENTRY.size
        extra_at = name_at + name_bytes
        after = extra_at + extra_bytes + comment_bytes
        if mark != _ENTRY_MARK or after > len(data):
            raise zipfile.BadZipFile("its directory is damaged")
        name = data[name_at:extra_at]
        if b"\\" in name:  # some Windows programs
            name = name.replace(b"\\", b"/")
        if packed == _IN_ZIP64:
            packed = _packed_size(data[extra_at : extra_at + extra_bytes], size == _IN_ZIP64)
        yield base + at, data[at:after], name, packed
        at = after


def _packed_size(extra: bytes, behind_size: bool) -> int:
    """Returns the packed size that stands in the zip64 field, there maybe behind the size."""
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if kind == _ZIP64:
            field = extra[at : at + length]
            return int.from_bytes(field[8:16] if behind_size else field[:8], "little")
        at += length
    return _IN_ZIP64


def open_member(parts: Parts, shift: int, entry: bytes) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    """Returns a zip file of one member, and the member.

    Args:
        parts: the zip file.
        shift: see find_directory.
        entry: of the member.

    Raises:
        zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError: the entry is damaged, or asks
            for what the standard library does not have.
    """
    at, size = parts.size - shift, len(entry)
    end = _END64.pack(_END64_MARK, _END64.size - 12, 45, 45, 0, 0, 1, 1, size, at)
    end += _LOCATOR.pack(_LOCATOR_MARK, 0, at + size, 1)
    end += _END.pack(_END_MARK, 0xFFFF, 0xFFFF, _IN_ZIP64, _IN_ZIP64, 0)
    file = zipfile.ZipFile(_View(parts, entry + end))
    (member,) = file.infolist()
    return file, member
