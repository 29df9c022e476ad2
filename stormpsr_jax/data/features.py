"""Frame embeddings on disk."""

import functools
import os
from pathlib import Path

import numpy as np

from stormpsr_jax.base import files, npy

# Memory-mapped files kept open per process; each holds a file descriptor, usually 1,024 at most.
MAX_OPEN_FILES = 512


class EmbeddingFile:
    """The embeddings (N, D) of a recording in an .npy file; only rows asked for are read.

    It takes the place of an array where rows are picked: `file[rows]`, `len(file)`, `file.shape`.
    The file is mapped into memory when rows are asked for and unmapped when many others have been
    since, and it is sent to a loader process as a path: memory does not grow with the data.
    """

    def __init__(self, path: str | Path):
        """Reads the header alone.

        Raises:
            OSError, ValueError: the file cannot be opened, is not an .npy file of float32 rows, or
                is shorter than its header says. Objects are never unpickled.
        """
        self.path = str(path)
        files.check_regular(path, "remove it")
        with open(path, "rb") as file:
            self.shape, fortran, dtype = npy.read_npy_header(file)
            self._offset = file.tell()
            status = os.fstat(file.fileno())
        if dtype != np.float32 or len(self.shape) != 2 or fortran:
            raise ValueError(f"{dtype} of shape {self.shape}, not rows of float32")
        if status.st_size != self._offset + 4 * self.shape[0] * self.shape[1]:
            raise ValueError(f"{status.st_size} bytes, which {self.shape} does not fit: truncated")
        # Tells this file from another one that is put under its name later.
        self._identity = (status.st_ino, status.st_mtime_ns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return _mapped(self.path, self._identity, self.shape, self._offset)[rows]


@functools.lru_cache(MAX_OPEN_FILES)
def _mapped(
    path: str, identity: tuple[int, int], shape: tuple[int, int], offset: int
) -> np.ndarray:
    del identity
    return np.asarray(np.memmap(path, np.float32, "r", offset, shape))
