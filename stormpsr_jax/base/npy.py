"""Arrays of NumPy files, read with suspicion."""

import tokenize
import zipfile
import zlib

MAX_HEADER = 10_000  # characters of the header of an .npy file
# What NumPy, zipfile and the parser of a header raise for a damaged file.
UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, RecursionError),
    *(MemoryError, NotImplementedError, RuntimeError),
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def reason(error: BaseException) -> str:
    """The first line of an error, or its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
