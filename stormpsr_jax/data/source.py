"""What all sources of recordings have in common: frame numbers and rows.

Row i of a recording is its i-th picture, counted from 0. The number of the frame that it shows is
the one in labels and predictions.
"""

import contextlib
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

Numbers = Sequence[int] | np.ndarray  # of frames or rows


class RowSource:
    """One split of a data folder.

    Attributes:
        readers: threads that read ahead where rows are asked for in order.
        recordings: what is known of each recording's rows, by name, sorted by name.
    """

    split: str
    fps: float
    readers: int = 1
    recordings: Mapping[str, Any]

    def frames(self, recording: str, frames: Numbers) -> np.ndarray:
        """Returns the pictures (T, …) of T frame numbers."""
        raise NotImplementedError

    def numbers(self, recording: str) -> np.ndarray:
        """Returns the frame numbers (N,) of a recording's rows."""
        r = self.recordings[recording]
        return r.first_frame + np.arange(r.num_frames)

    def rows(self, recording: str, rows: Numbers) -> np.ndarray:
        """Returns the pictures (T, …) of T rows; errors as in `frames`."""
        first = self.recordings[recording].first_frame
        return self.frames(recording, first + np.asarray(rows, np.int64))

    def chunks(
        self, recording: str, batch: int, every: int = 1
    ) -> Generator[tuple[int, np.ndarray]]:
        """Yields (row of the first one, at most `batch` pictures) in order.

        With `every`, of every so-manieth row alone. Threads read the next chunks while one is in
        use.
        """
        rows = np.arange(0, self.recordings[recording].num_frames, every)
        parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        read = in_order(functools.partial(self.rows, recording), parts, self.readers)
        with contextlib.closing(read):
            for part in parts:
                yield int(part[0]), next(read)


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
