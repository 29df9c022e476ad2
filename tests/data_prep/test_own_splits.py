"""Splits of a user's own recordings: drawn, by folders, and as the data folder grows."""

import shutil

import pytest

from data_prep.reading import own_splits
from stormpsr_jax.psr.files.label_files import SPLITS
from tests.support.own_data import STEPS, make, opened, write_pictures


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (7, (5, 1, 1)), (40, (28, 6, 6))])
def test_draws_have_the_shares_whatever_the_order(count, expected):
    names = [f"r{i}" for i in range(count)]
    drawn = own_splits.draw_splits(names, (70, 15, 15), 0, {})
    assert tuple([*drawn.values()].count(s) for s in SPLITS) == expected
    assert drawn == own_splits.draw_splits(names[::-1], (70, 15, 15), 0, {})
    others = [own_splits.draw_splits(names, (70, 15, 15), seed, {}) for seed in range(1, 9)]
    assert any(other != drawn for other in others)
    assert {*own_splits.draw_splits(names, (1, 50, 49), 0, {}).values()} == {*SPLITS}
    assert {*own_splits.draw_splits(names, (50, 50, 0), 0, {}).values()} == {"train", "val"}


def test_growth_leaves_recordings_as_they_are_in_the_splits_they_have(own_pictures, tmp_path):
    folder = shutil.copytree(own_pictures, tmp_path / "data")
    out = folder / "out"
    before = {name: source.split for name, (_, source) in opened(out).items()}
    kept = {path.stat().st_ino for path in out.glob("clips-*")}
    write_pictures(folder / "videos/bench4")
    (folder / "labels/bench4.csv").write_text(STEPS)
    assert make(folder, out)
    after = {name: source.split for name, (_, source) in opened(out).items()}
    assert after == before | {"bench4": "train"}
    assert len({path.stat().st_ino for path in out.glob("clips-*")} - kept) == 1
    shutil.rmtree(folder / "videos/bench4")
    (folder / "labels/bench4.csv").unlink()
    with pytest.raises(ValueError, match=r"recording bench4: is in .* not given any more"):
        make(folder, out)
