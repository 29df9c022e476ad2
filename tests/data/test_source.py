"""What all sources have in common."""

import types

import numpy as np
import pytest

from stormpsr_jax.data.source import Source


class Counted(Source):
    """Rows are their own numbers; frame numbers begin at 5 and are 2 apart."""

    frame_step = 2

    def __init__(self, count: int):
        self.recordings = {"a": types.SimpleNamespace(first_frame=5, num_frames=count)}

    def frames(self, recording, frames):
        if max(frames, default=0) >= 205:
            raise ValueError("no such frame")
        return (np.asarray(frames) - 5) // 2


@pytest.mark.parametrize("count", [0, 1, 20, 21])
@pytest.mark.parametrize("every", [1, 4])
def test_chunks_have_every_so_manieth_row_in_order(count, every):
    chunks = list(Counted(count).chunks("a", 5, every))
    assert all(len(rows) == 5 for _, rows in chunks[:-1])
    assert all(start == rows[0] for start, rows in chunks)
    found = [row for _, rows in chunks for row in rows.tolist()]
    assert found == list(range(0, count, every))
