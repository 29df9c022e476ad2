"""Stage embed: pictures that repeat the one before are encoded once."""

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
    found = list(embed.distinct(chunks, batch))
    again = np.concatenate([images.repeat(counts, axis=0) for _, images, counts in found])
    np.testing.assert_array_equal(again, pictures)
    assert [row for row, _, _ in found] == np.cumsum(
        [0, *(sum(counts) for _, _, counts in found[:-1])]
    ).tolist()
    # Every batch but the last is full, so that none is spent on less than it could take.
    assert {len(images) for _, images, _ in found[:-1]} <= {batch}
    for _, images, counts in found:
        assert len(images) == len(counts) <= batch
        assert (images[1:] != images[:-1]).any(axis=(1, 2, 3)).all()
    changes = (pictures[1:] != pictures[:-1]).any(axis=(1, 2, 3)).sum()
    # One more a batch at most, where a picture goes on in the next one.
    assert changes + 1 <= sum(len(images) for _, images, _ in found) <= changes + len(found)


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


def test_augmented_views_are_the_same_for_any_number_of_pictures_at_once(finished, tmp_path):
    found = []
    for batch in (64, 7):
        folder = tmp_path / str(batch)
        folder.mkdir()
        for name in ("data", "pretrain"):
            (folder / name).symlink_to(finished / name)
        config = tiny(**{"embed.batch": batch, "embed.views": 1})
        context = Context(config, folder, make_mesh(1, 1))
        for split in ("train", "val"):  # one recording is enough
            recordings = context.source(split).recordings
            for other in list(recordings)[1:]:
                del recordings[other]
        embed.run(context)
        found.append([np.load(context.embedding_path("train", "train_000", i)) for i in (0, 1)])
    (plain, view), (_, again) = found
    assert np.abs(view - plain).max() > 0.1
    np.testing.assert_allclose(again, view, atol=0.01)
