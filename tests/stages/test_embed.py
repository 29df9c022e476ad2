from collections import deque

import numpy as np
import pytest

from stormpsr_jax.stages import embed
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import tiny


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("batch", [1, 4, 50])
def test_distinct_rows_come_back_and_nothing_is_there_twice(chunk, batch):
    rng = np.random.default_rng(chunk)
    pictures = rng.integers(0, 3, (60, 2, 2, 3), np.uint8).repeat(rng.integers(1, 5, 60), axis=0)
    chunks = [(i, pictures[i : i + chunk]) for i in range(0, len(pictures), chunk)]
    under_way = deque()
    found = [(images, under_way.popleft()) for images in embed.distinct(chunks, batch, under_way)]
    again = np.concatenate([images.repeat(counts, axis=0) for images, counts in found])
    np.testing.assert_array_equal(again, pictures)
    # Every batch but the last is full, so that none is spent on less than it could take.
    assert {len(images) for images, _ in found[:-1]} <= {batch}
    for images, counts in found:
        assert len(images) == len(counts) <= batch
        assert (images[1:] != images[:-1]).any(axis=(1, 2, 3)).all()
    changes = (pictures[1:] != pictures[:-1]).any(axis=(1, 2, 3)).sum()
    # One more a batch at most, where a picture goes on in the next one.
    assert changes + 1 <= sum(len(images) for images, _ in found) <= changes + len(found)


def test_frames_that_are_not_encoded_repeat_the_one_before(finished, tmp_path):
    for every in (1, 4):
        folder = tmp_path / str(every)
        folder.mkdir()
        for name in ("data", "pretrain"):
            (folder / name).symlink_to(finished / name)
        embed.run(Context(tiny(**{"embed.every": every}), folder, make_mesh(1, 1)))
    paths = sorted((tmp_path / "1" / "embed").rglob("*.npy"))
    assert paths
    for path in paths:
        each = np.load(path)
        held = np.load(tmp_path / "4" / path.relative_to(tmp_path / "1"))
        np.testing.assert_array_equal(held, each[np.arange(len(each)) // 4 * 4])
