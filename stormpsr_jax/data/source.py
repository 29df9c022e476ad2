"""What all sources of recordings have in common: frame numbers and rows.

Row i of a recording is its i-th picture (or embedding), counted from 0. The number of the frame
that it shows is the one in labels and predictions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.media.ahead import ahead

Numbers = Sequence[int] | np.ndarray  # of frames or rows


class Source:
    """One split of a data folder.

    Attributes:
        split: its name.
        fps: frames per second of the videos.
        frame_step: video frames from one row to the next.
        recordings: what is known of each recording's rows, by name, sorted by name.
    """

    split: str
    fps: float
    frame_step: int
    recordings: Mapping[str, Any]

    def frames(self, recording: str, frames: Numbers) -> np.ndarray:
        """Returns the pictures or embeddings (T, …) of T frame numbers."""
        raise NotImplementedError

    def numbers(self, recording: str) -> np.ndarray:
        """Returns the frame numbers (N,) of a recording's rows."""
        r = self.recordings[recording]
        return r.first_frame + self.frame_step * np.arange(r.num_frames)

    def rows(self, recording: str, rows: Numbers) -> np.ndarray:
        """Returns the pictures or embeddings (T, …) of T rows; errors as in `frames`."""
        first = self.recordings[recording].first_frame
        return self.frames(recording, first + self.frame_step * np.asarray(rows, np.int64))

    def chunks(
        self, recording: str, batch: int, every: int = 1
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (row of the first one, at most `batch` pictures or embeddings) in order.

        With `every`, of every so-manieth row alone. The next chunk is read while one is in use.
        """
        rows = np.arange(0, self.recordings[recording].num_frames, every)
        parts = (rows[start : start + batch] for start in range(0, len(rows), batch))
        yield from ahead(((int(part[0]), self.rows(recording, part)) for part in parts), 1)
