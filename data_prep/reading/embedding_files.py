"""Reads ready-made embeddings, .npy and .npz files; pickles are never read."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stormpsr_jax.base import memory, npy
from stormpsr_jax.base.files import check_regular
from stormpsr_jax.psr.files import csvfile

MAX_WIDTH = 2**16  # D, of a model on embeddings
MAX_STRIDE = 2**24  # of a data folder
_FREE = 2**26  # bytes that a member of an .npz file may have however small it is packed


class Header(NamedTuple):
    """What a file says of its rows.

    Attributes:
        shape: (N, D).
        first_frame: frame number of row 0.
        stride: frames between two rows.
    """

    shape: tuple[int, int]
    first_frame: int
    stride: int


def read_header(path: Path, stride: int | None, first_frame: int) -> Header:
    """Reads what a file says of its rows.

    Args:
        path: .npy, or .npz with one array beside `frames` or with one named `features`.
        stride, first_frame: hold for a file without `frames`; None is 1. With `frames`, a stride
            that is given has to be theirs.

    Raises:
        ValueError: naming the file; not such an array, truncated, or uneven `frames`.
    """
    rows, frames = _read(path)
    if frames is None:
        return Header(rows.shape, first_frame, stride or 1)
    if frames.dtype.kind not in "iu" or frames.shape != rows.shape[:1]:
        raise ValueError(
            f"{path}: 'frames' is {frames.dtype} of shape {frames.shape}; {len(rows)} whole "
            "numbers are needed"
        )
    first, steps = int(frames[0]), np.unique(np.diff(frames.astype(np.int64))).tolist()
    if len(steps) > 1 or not all(0 < step <= MAX_STRIDE for step in steps):
        raise ValueError(
            f"{path}: 'frames' are {', '.join(map(str, steps[:5]))} apart; they have to ascend "
            f"evenly, by {MAX_STRIDE:,} at most"
        )
    if first < 0 or frames[-1] > csvfile.MAX_FRAME:
        raise ValueError(f"{path}: 'frames' reaches from {first} to {frames[-1]}")
    if steps and stride not in (None, *steps):
        raise ValueError(f"{path}: 'frames' are {steps[0]} apart, but --stride={stride}")
    return Header(rows.shape, first, steps[0] if steps else stride or 1)


def read_rows(path: Path) -> np.ndarray:
    """Returns the rows (N, D) of a file that `read_header` has accepted."""
    return _read(path)[0]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the embeddings (N, D) of a file, mapped if it is an .npy file, and `frames`."""
    check_regular(path, "remove it")
    try:
        if path.suffix == ".npy":
            rows, frames = np.load(path, mmap_mode="r", allow_pickle=False), None
        else:
            with zipfile.ZipFile(path) as archive:  # compressed, little can be much
                for member in archive.infolist():
                    what = f"{path}: {member.filename}"
                    memory.check_growth(member.compress_size, member.file_size, _FREE, what)
                    memory.check_fits(member.file_size, what)
            with np.load(path, allow_pickle=False) as file:
                others = [name for name in file.files if name != "frames"]
                name = "features" if "features" in others else "".join(others[:1])
                if name != "features" and len(others) != 1:
                    what = ", ".join(others) or "nothing"
                    raise ValueError(f"holds {what}; name the embeddings 'features'")
                rows, frames = file[name], file.get("frames")
    except npy.UNREADABLE as error:
        raise ValueError(
            f"{path}: not arrays as np.save or np.savez writes them ({npy.reason(error)}); pickles "
            "are never read"
        ) from error
    if rows.dtype.kind != "f" or rows.dtype.itemsize > 8:
        raise ValueError(f"{path}: {rows.dtype}; float16, float32 or float64 is needed")
    if rows.ndim != 2 or not rows.size or rows.shape[1] > MAX_WIDTH:
        raise ValueError(
            f"{path}: shape {rows.shape}; N frames × D are needed, D at most {MAX_WIDTH:,}"
        )
    return rows, frames
