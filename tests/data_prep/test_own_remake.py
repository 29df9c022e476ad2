"""Labels, boxes or videos that change after the clip shards have been made: --remake."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import own
from data_prep.writing import parallel, shards
from stormpsr_jax.media.framing import Framing
from tests.support.commands import refused
from tests.support.own_data import PROCEDURE, STEPS, make, make_data, opened, write_video
from tests.support.pictures_data import photograph

BOXES = {
    "images": [{"id": 7, "file_name": "000006.jpg", "width": 64, "height": 48}],
    "categories": [{"id": 1, "name": "pump"}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [16, 12, 16, 24]}],
}

WHITE = np.full((48, 64, 3), 255, np.uint8)


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and inode of every file: a file that was written again has another inode."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_ino,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shard_of(out: Path, name: str) -> str:
    """The shard of a recording, the only one of its split."""
    return f"clips-{opened(out)[name][1].split}.array_record-00000-of-00001"


@pytest.fixture
def data(tmp_path) -> Path:
    """Data whose shards are made, after which labels of bench1 and boxes of bench2 change."""
    folder = make_data(tmp_path / "data")
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


@pytest.mark.usefixtures("system")
def test_remake_only_what_has_changed_is_made_again(data):
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
    assert shards_kept == {shard_of(data / "out", "bench3")}
    labels_kept = {path.split("/")[2] for path in kept if path.endswith("/frames.npz")}
    assert labels_kept == {"bench3"}
    # The same bytes as if it had been made anew.
    assert make(data, data / "anew", boxes=data / "boxes")
    contents = [
        {path: content for path, (content, _) in state_of(data / folder).items()}
        for folder in ("out", "anew")
    ]
    assert contents[0] == contents[1]
    recording = opened(data / "out")["bench1"][0]
    assert recording.states[12:14, 1].tolist() == [0, 1]
    assert remake(data)  # nothing left to do
    assert state_of(data / "out") == after


def test_remake_interrupted_it_looks_unfinished_and_goes_on(data, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(parallel, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remake(data)
    with pytest.raises(ValueError, match="was not finished"):
        opened(data / "out")
    # Without --remake too: settings.json is that of the new labels already.
    assert remake(data, remake=False)
    assert opened(data / "out")["bench1"][0].states[12:14, 1].tolist() == [0, 1]


def test_remake_interrupted_and_labels_put_back_makes_the_old_ones(data, monkeypatch):
    before = {path: content for path, (content, _) in state_of(data / "out").items()}

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shards.output, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remake(data)
    (data / "labels/bench1.csv").write_text(STEPS)
    (data / "boxes/bench2.json").write_text(json.dumps(BOXES))
    assert remake(data, remake=False)
    assert {path: content for path, (content, _) in state_of(data / "out").items()} == before


@pytest.mark.usefixtures("system")
def test_remake_another_video_counts_and_another_size_needs_another_folder(data):
    make(data, data / "out", boxes=data / "boxes", remake=True)
    write_video(data / "videos/bench3.mp4", codec="mpeg4", picture=lambda i: WHITE)
    with pytest.raises(ValueError, match=r"recording bench3: its pictures are not those"):
        remake(data, remake=False)
    assert remake(data)
    with pytest.raises(ValueError, match=r"other arguments .*size.* write into another folder"):
        remake(data, framing=Framing((16, 16)))


def make_pictures(folder: Path) -> Path:
    """Recordings of twelve pictures each, as files."""
    data = make_data(folder)
    for name in ("bench1", "bench2", "bench3"):
        (data / f"videos/{name}.mp4").unlink()
        (data / "videos" / name).mkdir()
        for i in range(12):
            picture = Image.fromarray(photograph(i, 48, 64))
            picture.save(data / f"videos/{name}/{i:05d}.jpg")
        (data / f"labels/{name}.csv").write_text("frame,step\n5,0\n8,3\n")
    return data


def test_remake_pictures_of_other_numbers_are_made_again(tmp_path):
    data = make_pictures(tmp_path / "data")
    assert make(data, data / "out")
    for i in reversed(range(12)):
        path = data / f"videos/bench1/{i:05d}.jpg"
        path.rename(path.with_name(f"{i + 1:05d}.jpg"))
    with pytest.raises(ValueError, match=r"recording bench1: its frame numbers are not those"):
        make(data, data / "out")
    assert make(data, data / "out", remake=True)
    first = {name: recording.first_frame for name, (recording, _) in opened(data / "out").items()}
    assert first == {"bench1": 1, "bench2": 0, "bench3": 0}


@pytest.mark.parametrize("key", ["first_frame"])
def test_remake_a_folder_of_an_older_version_counts_as_unchanged(tmp_path, key):
    data = make_pictures(tmp_path / "data")
    assert make(data, data / "out")
    before = state_of(data / "out")
    path = data / "out/settings.json"
    settings = json.loads(path.read_text())
    for source in settings["sources"].values():
        del source[key]
    path.write_text(json.dumps(settings))
    assert make(data, data / "out")
    after = state_of(data / "out")
    assert {name: found[0] for name, found in after.items()} == {
        name: found[0] for name, found in before.items()
    }
    shards = [name for name in before if name.startswith("clips-")]
    assert shards
    assert all(before[name] == after[name] for name in shards)


def test_command_has_the_flag(data, capsys):
    (data / "pump.json").write_text(json.dumps(PROCEDURE.to_json()))
    flags = [f"--{key}={data}/{key}" for key in ("videos", "labels", "out")]
    flags += [f"--procedure={data}/pump.json", "--size=8", "--workers=1"]
    assert own.main([*flags, f"--out={data}/small"]) == 0
    (data / "labels/bench1.csv").write_text(STEPS)
    capsys.readouterr()
    said = refused(capsys, own.main, [*flags, f"--out={data}/small"], lines=2)
    assert said.count("error: ") == 2
    assert "no boxes in split" not in said
    assert own.main([*flags, f"--out={data}/small", "--remake"]) == 0
