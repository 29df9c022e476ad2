import json
from pathlib import Path

import pytest

from data_prep import own
from tests.support.commands import refused
from tests.support.digests import digests
from tests.support.own_data import STEPS, make, make_pictures, opened, words

BOXES = {
    "images": [{"id": 7, "file_name": "000006.jpg", "width": 64, "height": 48}],
    "categories": [{"id": 1, "name": "pump"}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [16, 12, 16, 24]}],
}


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and inode of every file: a file that was written again has another inode."""
    return {path: (found, (folder / path).stat().st_ino) for path, found in digests(folder).items()}


@pytest.fixture
def data(tmp_path) -> Path:
    """Data whose shards are made, after which labels of bench1 and boxes of bench2 change."""
    folder = make_pictures(tmp_path / "data")
    boxes = folder / "boxes"
    boxes.mkdir()
    for name in ("bench1", "bench2", "bench3"):
        (boxes / f"{name}.json").write_text(json.dumps(BOXES))
    assert make(folder, folder / "out", boxes=boxes)
    (folder / "labels/bench1.csv").write_text(STEPS.replace("2.05", "2.45"))
    moved = BOXES | {"annotations": [BOXES["annotations"][0] | {"bbox": [16, 12, 20, 24]}]}
    (boxes / "bench2.json").write_text(json.dumps(moved))
    return folder


def remake(data: Path, **changes) -> bool:
    return make(data, data / "out", **({"boxes": data / "boxes", "remake": True} | changes))


def test_only_what_has_changed_is_made_again(data):
    before = state_of(data / "out")
    with pytest.raises(ValueError, match="--remake") as caught:
        remake(data, remake=False)
    first, *lines = str(caught.value).splitlines()
    assert "give the same command with --remake" in first
    assert [line.partition(" are not those")[0] for line in lines] == [
        "recording bench1: its labels",
        "recording bench2: its boxes",
    ]
    assert state_of(data / "out") == before
    assert remake(data)
    after = state_of(data / "out")
    kept = {path for path in after if before.get(path) == after[path]}
    shards_kept = {path for path in kept if path.startswith("clips-")}
    split = opened(data / "out")["bench3"][1].split  # which has no other recording
    assert shards_kept == {f"clips-{split}.array_record-00000-of-00001"}
    labels_kept = {path.split("/")[2] for path in kept if path.endswith("/frames.npz")}
    assert labels_kept == {"bench3"}
    # The same bytes as if it had been made anew.
    assert make(data, data / "anew", boxes=data / "boxes")
    assert digests(data / "out") == digests(data / "anew")
    assert opened(data / "out")["bench1"][0].states[12:14, 1].tolist() == [0, 1]
    assert remake(data)  # nothing left to do
    assert state_of(data / "out") == after


def test_command_has_the_flag(data, capsys):
    flags = words(data, data / "small", "--size=8", "--workers=1")
    assert own.main(flags) == 0
    (data / "labels/bench1.csv").write_text(STEPS)
    said = refused(capsys, own.main, flags, lines=2)
    assert said.count("error: ") == 2
    assert "no boxes in split" not in said
    assert own.main([*flags, "--remake"]) == 0


def test_a_picture_that_was_exchanged_is_noticed_wherever_it_is(tmp_path):
    folder = make_pictures(tmp_path / "data")
    assert make(folder, folder / "out")
    names = sorted((folder / "videos/bench2").glob("*.jpg"))
    names[5].write_bytes(names[-1].read_bytes() + bytes(9))
    with pytest.raises(ValueError, match="recording bench2: its pictures are not those"):
        make(folder, folder / "out")
    assert make(folder, folder / "out", remake=True)
