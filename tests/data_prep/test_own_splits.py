"""Splits of a user's own recordings: drawn, by folders, by a file."""

import pytest

from data_prep.reading import own_splits
from tests.support.own_data import make, make_data, opened


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (7, (5, 1, 1)), (40, (28, 6, 6))])
def test_draw_splits_counts_and_order(count, expected):
    names = [f"r{i}" for i in range(count)]
    drawn = own_splits.draw_splits(names, (70, 15, 15), 0, {})
    assert tuple(list(drawn.values()).count(s) for s in ("train", "val", "test")) == expected
    assert drawn == own_splits.draw_splits(names[::-1], (70, 15, 15), 0, {})
    others = [own_splits.draw_splits(names, (70, 15, 15), seed, {}) for seed in range(1, 9)]
    assert any(other != drawn for other in others)
    assert set(own_splits.draw_splits(names, (1, 50, 49), 0, {}).values()) == {
        "train",
        "val",
        "test",
    }
    assert set(own_splits.draw_splits(names, (50, 50, 0), 0, {}).values()) == {"train", "val"}


def test_own_splits_by_folders(tmp_path):
    data = make_data(tmp_path / "data")
    for name, split in (("bench1", "train"), ("bench2", "Val"), ("bench3", "test")):
        (data / "videos" / split).mkdir()
        (data / "videos" / f"{name}.mp4").rename(data / "videos" / split / f"{name}.mp4")
    # What lies above --videos says nothing.
    (data / "labels").rename(data / "test")
    make(data, tmp_path / "out", labels=data / "test")
    splits = {name: source.split for name, (_, source) in opened(tmp_path / "out").items()}
    assert splits == {"bench1": "train", "bench2": "val", "bench3": "test"}


SPLIT_MISTAKES = {
    "recording,split\nbench1,train\nbench9,val\n": r"no row for recordings bench2, bench3\n"
    r".*: recordings without video and labels: bench9",
    "bench1,train\n": "line 1: header: has to be recording,split",
    "recording,split\nbench1,dev\n": "line 2: split: 'dev' is not one of train, val, test",
    "recording,split\nbench1,val\nbench1,test\n": "line 3: recording: bench1 is in val above",
}


@pytest.mark.parametrize("text", SPLIT_MISTAKES)
def test_own_mistakes_in_a_file_of_splits(own_videos, tmp_path, text):
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(ValueError, match=SPLIT_MISTAKES[text]):
        make(own_videos, tmp_path / "out", splits=str(tmp_path / "splits.csv"))
