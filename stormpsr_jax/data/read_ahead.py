"""Reads parts of a source in order, the next ones while one is in use."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np


def in_order(
    read: Callable[[Any], np.ndarray], parts: Sequence[Any], threads: int
) -> Generator[np.ndarray]:
    """Yields what is read of each part, in order, while threads read the next parts.

    Threads are enough, and start at once: to decode a JPEG takes nearly all the time of reading a
    picture, and other threads run meanwhile.
    """
    import grain  # here, as small installations do without it

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    read_parts = grain.MapDataset.range(len(parts)).map(lambda index: read(parts[index]))
    iterator = iter(read_parts.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()
