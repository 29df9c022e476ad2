"""A user's data folder that grows: videos that are added, and the splits they come into."""

import pytest

from data_prep.reading import own_splits
from tests.support.own_data import STEPS, make, make_data, opened, write_video


@pytest.mark.usefixtures("system")  # videos
def test_growth_leaves_recordings_as_they_are_in_the_splits_they_have(tmp_path):
    folder = make_data(tmp_path / "data")
    out = folder / "out"
    assert make(folder, out)
    before = {name: source.split for name, (_, source) in opened(out).items()}
    kept = {path.stat().st_ino for path in out.glob("clips-*")}
    write_video(folder / "videos/bench4.mp4", codec="mpeg4")
    (folder / "labels/bench4.csv").write_text(STEPS)
    assert make(folder, out)
    after = {name: source.split for name, (_, source) in opened(out).items()}
    assert after == before | {"bench4": "train"}
    assert len({path.stat().st_ino for path in out.glob("clips-*")} - kept) == 1
    (folder / "videos/bench4.mp4").unlink()
    (folder / "labels/bench4.csv").unlink()
    with pytest.raises(ValueError, match=r"recording bench4: is in .* not given any more"):
        make(folder, out)


def test_draws_fill_up_what_the_shares_ask_for():
    before = {f"r{i}": "train" for i in range(20)} | {"v": "val", "t": "test"}
    new = [f"n{i}" for i in range(18)]
    drawn = own_splits.draw_splits([*before, *new], (70, 15, 15), 0, before)
    assert {name: drawn[name] for name in before} == before
    assert [[*drawn.values()].count(s) for s in ("train", "val", "test")] == [28, 6, 6]
    gone = {name: split for name, split in before.items() if name != "v"}
    with pytest.raises(ValueError, match="none is left for val: record more"):
        own_splits.draw_splits([*gone], (70, 15, 15), 0, gone)
    assert own_splits.draw_splits([*gone, "n"], (70, 15, 15), 0, gone)["n"] == "val"
