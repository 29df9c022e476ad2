"""Arrays of NumPy files, read with suspicion."""

import tokenize
import zipfile
import zlib
from typing import IO

import numpy as np

MAX_HEADER = 10_000  # characters of the header of an .npy file
# What NumPy, zipfile and the parser of a header raise for a damaged file.
UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, RecursionError),
    *(MemoryError, NotImplementedError, RuntimeError),
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns (shape, Fortran order, dtype) of an .npy file of version 1.0.

    Raises:
        ValueError: another version, or no header that can be read.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"an .npy file of version {version}, not (1, 0)")
        return np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEADER)
    except UNREADABLE as error:
        raise ValueError(f"the header of the .npy file: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The first line of an error, or its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
