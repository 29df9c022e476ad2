import shutil

import pytest

from data_prep import matching, own
from stormpsr_jax.recordings.find import SPLITS
from tests.support.own_data import PROCEDURE, STEPS, make, make_pictures, opened, write_pictures


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (7, (5, 1, 1)), (40, (28, 6, 6))])
def test_draws_have_the_shares_whatever_the_order(count, expected):
    names = [f"r{i}" for i in range(count)]
    drawn = matching.draw_splits(names, (70, 15, 15), 0, {}, {})
    assert tuple([*drawn.values()].count(s) for s in SPLITS) == expected
    assert drawn == matching.draw_splits(names[::-1], (70, 15, 15), 0, {}, {})
    others = [matching.draw_splits(names, (70, 15, 15), seed, {}, {}) for seed in range(1, 9)]
    assert any(other != drawn for other in others)
    assert {*matching.draw_splits(names, (1, 50, 49), 0, {}, {}).values()} == {*SPLITS}
    assert {*matching.draw_splits(names, (50, 50, 0), 0, {}, {}).values()} == {"train", "val"}


def test_labels_say_which_recordings_have_incorrect_installations(tmp_path):
    data = make_pictures(tmp_path, [f"bench{i}" for i in range(10)])
    for i, step in enumerate(("Incorrectly installed cover", "4")):
        (data / f"labels/bench{i}.csv").write_text(f"time,step\n1,0\n2.05,{step}\n")
    (data / "labels/bench2.csv").unlink()
    (data / "labels/bench2").mkdir()
    states = "000000.jpg,0,0,0\n000005.jpg,1,-1,0\n"
    (data / "labels/bench2/PSR_labels_raw.csv").write_text(states)
    for seed in range(5):
        found = own.find_recordings(data / "videos", data / "labels", PROCEDURE, split_seed=seed)
        splits = {recording.name: recording.split for recording in found}
        assert {splits[f"bench{i}"] for i in range(3)} == {*SPLITS}


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
    rows = "".join(f"{name},{SPLITS[name == 'bench4']}\n" for name in after)
    (folder / "splits.csv").write_text(f"recording,split\n{rows}")
    (moved,) = (name for name, split in before.items() if split == "val")
    with pytest.raises(ValueError, match=f"recording {moved}: is in split train now, and in val"):
        make(folder, out, splits=str(folder / "splits.csv"))
    shutil.rmtree(folder / "videos/bench4")
    (folder / "labels/bench4.csv").unlink()
    with pytest.raises(ValueError, match=r"recording bench4: is in .* not given any more"):
        make(folder, out)
