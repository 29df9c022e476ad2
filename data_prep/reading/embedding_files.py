"""Finds and reads ready-made embeddings: .npy and .npz files, as streams, never as pickles.

A compressed .npz cannot be mapped into memory, and a pickle would run code: so headers are read
alone, and rows in pieces.
"""

import contextlib
import fnmatch
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from stormpsr_jax.base import memory
from stormpsr_jax.base.files import check_name, check_regular
from stormpsr_jax.base.npy import UNREADABLE, reason
from stormpsr_jax.psr.files import csvfile

_VALUES_AT_ONCE = 2**20
MAX_WIDTH = 2**16  # D, of a model on embeddings
MAX_STRIDE = 2**24  # of a data folder
_FREE = 2**26  # bytes that a member of an .npz file may have however small it is packed
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Found(NamedTuple):
    """A recording's file or folder, and the name of the split folder it is in ('' without)."""

    split: str
    path: Path


class Header(NamedTuple):
    """What a file says before its rows are read.

    Attributes:
        shape: (N, D).
        first_frame: frame number of row 0.
        stride: frames between two rows; None if there is one row with a number of its own.
    """

    shape: tuple[int, int]
    first_frame: int
    stride: int | None


def find(root: Path, flag: str, patterns: tuple[str, str], mistakes: list[str]) -> dict[str, Found]:
    """Finds recordings, in split folders or not: files <name>.np?, folders <name>/PSR_labels*.csv.

    Args:
        root: where to look.
        flag: that names it.
        patterns: of files directly below it and one folder deeper.
        mistakes: to which names are added that are there twice or that no recording can have.

    Returns:
        By name.

    Raises:
        ValueError: no such folder, or nothing in it.
    """
    if not root.is_dir():
        raise ValueError(f"{flag}={root} is not a folder")
    found: dict[str, Found] = {}
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        recording = path.parent if path.suffix == ".csv" else path
        name = recording.name if path.suffix == ".csv" else recording.stem
        split = "" if recording.parent == root else recording.parent.name
        if name.startswith(".") or split.startswith("."):
            continue
        try:
            name = check_name(name, ascii(str(path)))
        except ValueError as error:
            mistakes.append(str(error))
            continue
        if name in found and found[name].path != recording:
            mistakes.append(f"recording {name!r} is there twice: {found[name].path}, {recording}")
        found[name] = Found(split, recording)
    if not found:
        raise ValueError(f"{flag}={root} holds neither {' nor '.join(patterns)}")
    return found


def split_of(name: str, array: Found, label: Found, splits: Mapping[str, str] | None) -> str:
    """The split of a recording, by its folders' names or by {split: glob on its name}.

    Raises:
        ValueError: none, several, or one that cannot be a file's name.
    """
    if splits is not None:
        matching = [split for split, glob in splits.items() if fnmatch.fnmatchcase(name, glob)]
        if len(matching) != 1:
            raise ValueError(
                f"--split: recording {name!r} is in {' and '.join(matching) or 'none of them'}"
            )
        split = matching[0]
    else:
        split = array.split or label.split
        if not split:
            raise ValueError(f"{array.path}: no split; move it into train/, val/ … or give --split")
        if label.split and label.split != split:
            raise ValueError(
                f"{array.path} is in split {split!r}, its labels in {label.split!r} ({label.path})"
            )
    if not re.fullmatch(r"[A-Za-z0-9_]+", split):
        raise ValueError(f"{array.path}: split {split!r}: use letters, digits and _ only")
    return split


def read_header(path: Path, stride: int | None, first_frame: int) -> Header:
    """Reads the header of a file, and its `frames` where it has them.

    Args:
        path: .npy, or .npz with one array beside `frames` or with one named `features`.
        stride, first_frame: hold for a file without `frames`; None is 1. With `frames`, a stride
            that is given has to be theirs.

    Raises:
        ValueError: naming the file; not such an array, truncated, or uneven `frames`.
    """
    with _open(path, "features") as (file, size):
        shape, fortran, dtype = _parse_header(file, path)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise ValueError(f"{path}: {dtype}; float16, float32 or float64 is needed")
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"{path}: shape {shape}; N frames × D are needed")
        if shape[1] > MAX_WIDTH:
            raise ValueError(
                f"{path}: rows of {shape[1]:,} numbers; at most {MAX_WIDTH:,} are read"
            )
        if fortran:
            raise ValueError(
                f"{path}: stored column by column (Fortran order), as np.save does with a "
                "transposed array; save np.ascontiguousarray of it"
            )
        if size - file.tell() != shape[0] * shape[1] * dtype.itemsize:
            raise ValueError(f"{path}: {size} bytes, which {dtype} {shape} does not fit: truncated")
    frames = _read_frames(path, shape[0])
    if frames is None:
        return Header(shape, first_frame, stride or 1)
    if len(frames) == 1:
        return Header(shape, int(frames[0]), stride)
    steps = np.diff(frames)
    if (steps != steps[0]).any() or steps[0] < 1:
        i = int(np.argmax(steps != steps[0]))  # 0 where they descend evenly
        raise ValueError(
            f"{path}: 'frames' has {frames[i + 1]} after {frames[i]}; they have to ascend evenly "
            f"({frames[0]}, {frames[1]}, …)"
        )
    if steps[0] > MAX_STRIDE:
        raise ValueError(f"{path}: 'frames' are {steps[0]:,} apart; at most {MAX_STRIDE:,} may be")
    if stride is not None and steps[0] != stride:
        raise ValueError(f"{path}: 'frames' are {steps[0]} apart, but --stride={stride}")
    return Header(shape, int(frames[0]), int(steps[0]))


def read_rows(path: Path) -> Iterator[np.ndarray]:
    """Yields the rows of a file that `read_header` has accepted, some (B, D) at a time.

    Raises:
        ValueError: it ends early, or differs from its checksum (.npz).
    """
    with _open(path, "features") as (file, _):
        (num_rows, width), _, dtype = _parse_header(file, path)
        at_once = max(1, _VALUES_AT_ONCE // width)
        for start in range(0, num_rows, at_once):
            count = min(at_once, num_rows - start)
            yield _read_values(file, path, dtype, count * width).reshape(count, width)
        file.read(1)  # the end, where zipfile compares the checksum


def _read_frames(path: Path, num_rows: int) -> np.ndarray | None:
    try:
        with _open(path, "frames") as (file, _):
            shape, _, dtype = _parse_header(file, path)
            if dtype.kind not in "iu" or shape != (num_rows,):
                raise ValueError(
                    f"{path}: 'frames' is {dtype} of shape {shape}; {num_rows} whole numbers are "
                    "needed"
                )
            frames = _read_values(file, path, dtype, num_rows)
    except _Absent:
        return None
    if frames.min() < 0 or frames.max() > csvfile.MAX_FRAME:
        raise ValueError(f"{path}: 'frames' reaches from {frames.min()} to {frames.max()}")
    return frames.astype(np.int64)


def _read_values(file: IO[bytes], path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    memory.check_fits(count * dtype.itemsize, f"{path}: what is read at once")
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"{path}: ends early; it is truncated")
    return np.frombuffer(data, dtype)


class _Absent(Exception):
    """A file has no array of that name."""


@contextlib.contextmanager
def _open(path: Path, array: str) -> Iterator[tuple[IO[bytes], int]]:
    """Gives the stream of an array, 'features' or 'frames', from its header on, and its length.

    Raises:
        _Absent: the file has no such array.
    """
    check_regular(path, "remove it")
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            if path.suffix == ".npy":
                if array != "features":
                    raise _Absent
                yield file, path.stat().st_size
                return
            archive = stack.enter_context(zipfile.ZipFile(file))
            if (member := _member(path, archive, array)) is None:
                raise _Absent
            what = f"{path}: {member.filename}"
            try:
                memory.check_growth(member.compress_size, member.file_size, _FREE, what)
            except MemoryError as error:
                raise ValueError(str(error)) from error
            yield stack.enter_context(archive.open(member)), member.file_size
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # RuntimeError: the member is encrypted.
        raise ValueError(f"{path}: cannot be read ({error})") from error


def _member(path: Path, archive: zipfile.ZipFile, array: str) -> zipfile.ZipInfo | None:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if array == "features" and array not in members:
        others = sorted(members.keys() - {"frames"})
        if len(others) != 1:
            raise ValueError(
                f"{path}: holds {', '.join(others) or 'nothing'}; name the embeddings 'features'"
            )
        return members[others[0]]
    return members.get(array)


def _parse_header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the header of an .npy stream: shape, whether in Fortran order, dtype."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADER_READERS:
            raise ValueError(f"version {version}")
        shape, fortran, dtype = _HEADER_READERS[version](file)
    except UNREADABLE as error:
        raise ValueError(
            f"{path}: not an array as np.save writes it ({reason(error)}); pickles are never read"
        ) from error
    if dtype.hasobject:
        raise ValueError(
            f"{path}: pickled Python objects, which are never read, as reading can run code; save "
            "an array of float16, float32 or float64"
        )
    return shape, fortran, dtype
