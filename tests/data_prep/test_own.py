"""A user's own recordings: pictures, states and splits of their shards, and what is made again."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import matching, own
from stormpsr_jax.base import files
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media import video
from stormpsr_jax.recordings.find import SPLITS
from tests.support.digests import digests
from tests.support.own_data import (
    FPS,
    LEVELS,
    PROCEDURE,
    STEPS,
    grey,
    make,
    make_data,
    make_pictures,
    opened,
    rotate,
    words,
    write_pictures,
    write_video,
)
from tests.support.processes import environment, refused


def test_variable_frame_rate_goes_by_time(tmp_path):
    rng = np.random.default_rng(0)
    times = 0.3 + np.cumsum(rng.uniform(0.03, 0.5, 20))
    (tmp_path / "labels").mkdir()
    endings = ("mp4", "mkv", "mov")
    for i, ending in enumerate(endings):
        write_video(tmp_path / "videos" / f"bench{i}.{ending}", times)
        (tmp_path / "labels" / f"bench{i}.csv").write_text(STEPS)
    make(tmp_path, tmp_path / "out")
    rounded = np.round(times, 3)
    found = opened(tmp_path / "out")
    for i in range(len(endings)):
        recording, source = found[f"bench{i}"]
        shown = [
            max(m for m in range(20) if rounded[m] - rounded[0] <= n / FPS + 1e-3)
            for n in range(recording.num_frames)
        ]
        length = times[-1] - times[0]
        assert (recording.num_frames - 1) / FPS <= length < recording.num_frames / FPS
        images = source.frames(f"bench{i}", range(recording.num_frames))
        levels = (images.mean(axis=(1, 2, 3)) - 8) / LEVELS
        np.testing.assert_allclose(levels, shown, atol=0.3)


def test_a_portrait_video_among_others_is_padded(tmp_path, caplog):
    make_data(tmp_path)
    rotate(tmp_path / "videos/bench2.mp4")
    assert own.main(words(tmp_path, tmp_path / "out", "--size=32", "--workers=1")) == 0
    assert "recording bench2: its pictures, of 48x64, have another shape" in caplog.text
    for name, at in (("bench1", (2, 16)), ("bench2", (16, 2))):
        assert opened(tmp_path / "out")[name][1].frames(name, [9])[0][at].max() < 20


def test_forms_of_labels_are_one_and_each_file_and_index_is_read_once(tmp_path, monkeypatch):
    data = make_pictures(tmp_path / "data")
    shutil.rmtree(data / "videos/bench1")
    write_video(data / "videos/bench1.mp4", codec="mpeg4")
    labels, was_read = data / "labels", []

    def counted(read):
        return lambda path, *args: was_read.append(Path(path)) or read(path, *args)

    monkeypatch.setattr(files, "read_bytes", counted(files.read_bytes))
    monkeypatch.setattr(video, "read_index", counted(video.read_index))
    (labels / "bench2.csv").write_text(
        "start;END;worker;step\r\n0:03;0:03,4;B;6\r\n0,5;1;A;Install seal\r\n1;2,05;;3\r\n"
    )
    (labels / "bench3.csv").unlink()
    (labels / "bench3").mkdir()
    (labels / "bench3" / "PSR_labels_raw.csv").write_text(
        "00000.jpg,0,0,0\n5.jpg,1,0,0\n11.jpg,1,1,0\n17.jpg,1,1,1\n"
    )
    make(data, tmp_path / "out")
    recordings = opened(tmp_path / "out")
    expected = np.zeros((20, 3), int)
    expected[5:, 0] = expected[11:, 1] = expected[17:, 2] = 1
    for name, (recording, _) in recordings.items():
        np.testing.assert_array_equal(recording.states, expected, err_msg=name)
    names = ["bench1.csv", "bench2.csv", "PSR_labels_raw.csv"]
    inputs = [path.name for path in was_read if data in path.parents]
    assert sorted(inputs) == sorted(["bench1.mp4", *names])
    for path in (tmp_path / "out/labels").rglob("PSR_labels.csv"):
        rows = [row.split(",")[:2] for row in path.read_text().split() if "," in row]
        assert rows == [["00005.jpg", "0"], ["00011.jpg", "3"], ["00017.jpg", "6"]]


def test_initial_state_errors_and_removals(tmp_path):
    data = make_pictures(tmp_path / "data", ("bench1", "repair1", "repair2"))
    (data / "labels/repair1.csv").write_text(
        "time,step\n1,Remove screw\n2,Incorrectly installed screw\n3,8\n3.99,Install screw\n"
    )
    (data / "labels/repair2.csv").unlink()
    (data / "labels/repair2").mkdir()
    (data / "labels/repair2/PSR_labels.csv").write_text("00004.jpg,8,x\n00009.jpg,6,x\n")
    (data / "labels/repair2/PSR_labels_with_errors.csv").write_text(
        "00004.jpg,8,x\n00006.jpg,7,x\n00009.jpg,6,x\n"
    )
    make(data, tmp_path / "out")
    found = opened(tmp_path / "out")
    one = found["repair1"][0].states
    assert (one[:, :2] == 1).all()
    # Less than a frame after the last one still counts.
    assert one[:, 2].tolist() == [1] * 5 + [0] * 5 + [-1] * 5 + [0] * 4 + [1]
    two = found["repair2"][0].states
    assert two[:, 2].tolist() == [1] * 4 + [0] * 2 + [-1] * 3 + [1] * 11


def test_names_in_both_normal_forms_are_one_name(tmp_path):
    """Videos as macOS names them, everything else as other systems do, or the other way round."""
    names = ("bench_Prüfstand", "bench_é", "bench_ö")
    nfc, nfd = (
        lambda text, form=form: unicodedata.normalize(form, text) for form in ("NFC", "NFD")
    )
    data = make_pictures(tmp_path / "data", tuple(map(nfd, names)))
    for path in (data / "labels").iterdir():
        path.rename(path.with_name(nfc(path.name)))
    images = [f"{nfc(names[0])}/000006.jpg", f"frames/{nfd(names[1])}/000006.jpg"]
    listed = [
        {"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(images)
    ]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [9, 9, 16, 24]} for i in range(2)]
    (data / "all.json").write_text(json.dumps({"images": listed, "annotations": boxes}))
    rows = zip(map(nfd, names), ("train", "val", "test"), strict=True)
    (data / "splits.csv").write_text(
        "recording,split\n" + "".join(f"{name},{split}\n" for name, split in rows), "utf-8"
    )
    given = {"boxes": data / "all.json", "splits": str(data / "splits.csv")}
    make(data, tmp_path / "out", **given)
    recordings = opened(tmp_path / "out")
    splits = {name: source.split for name, (_, source) in recordings.items()}
    assert splits == dict(zip(map(nfc, names), ("train", "val", "test"), strict=True))
    boxed = [name for name, (recording, _) in recordings.items() if recording.classes[6] == 1]
    assert sorted(boxed) == sorted(map(nfc, names[:2]))


@pytest.mark.system
def test_help_needs_no_network_library():
    """Nor does a run whose product is large enough in its pictures (`locating`)."""
    words = [sys.executable, "-X", "importtime", "-m", "data_prep.own", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment())
    assert "--locate" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "data_prep.writing.locating" in imported
    assert not imported & {"jax", "flax", "optax", "orbax", "grain", "tensorflow"}


def words_for(source: Path, tmp_path: Path) -> list[str]:
    """The words of a command on a copy of videos and labels, to make tmp_path/out."""
    data = shutil.copytree(source, tmp_path / "data", ignore=shutil.ignore_patterns("out"))
    return words(data, tmp_path / "out", "--size=16", "--workers=1")


def test_command_makes_shards_of_another_rate(own_videos, tmp_path, capsys):
    flags = words_for(own_videos, tmp_path)
    assert own.main([*flags, "--fps=10", "--splits=50/25/25"]) == 0
    source = ClipSource(tmp_path / "out", "train", PROCEDURE)
    (recording,) = source.recordings.values()
    assert (source.fps, recording.num_frames) == (10, 39)
    assert recording.states[:, 0].tolist() == [0] * 10 + [1] * 29
    videos = tmp_path / "data/videos"
    os.rename(videos / "bench1.mp4", os.fsencode(videos) + b"/bench\xff.mp4")
    said = refused(capsys, own.main, flags)
    assert said.startswith(f"error: {videos}: the name ")
    assert r"bench\xff.mp4' is not UTF-8; rename it" in said
    os.rename(os.fsencode(videos) + b"/bench\xff.mp4", videos / "bench\n1.mp4")
    said = refused(capsys, own.main, flags)
    assert r"bench\n1.mp4" in said
    assert said.endswith("; rename it")


def test_exported_frames_are_those_of_the_shards_and_of_one_rate(own_pictures, tmp_path, capsys):
    export = [
        *words_for(own_pictures, tmp_path),
        f"--export_frames={tmp_path}/frames",
        "--export_every=8",
    ]
    assert own.main(export) == 0
    paths = sorted((tmp_path / "frames/bench2").iterdir())
    assert [path.name for path in paths] == ["000000.jpg", "000008.jpg", "000016.jpg"]
    for path, i in zip(paths, (0, 8, 16), strict=True):
        image = simplejpeg.decode_jpeg(path.read_bytes())
        assert image.shape == (48, 64, 3)
        assert image.mean() == pytest.approx(grey(i), abs=3)
    (tmp_path / "frames/bench1/._000003.jpg").touch()  # as macOS leaves it on disks of others
    assert own.main(export) == 0
    said = refused(capsys, own.main, [*export, "--export_every=10"], lines=None)
    line = f"{tmp_path}/frames/bench1/000008.jpg: is there from another export (2 of its pictures"
    assert line in said
    assert said.count("error: ") == 3


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
    make(folder, folder / "out", boxes=boxes)
    (folder / "labels/bench1.csv").write_text(STEPS.replace("2.05", "2.45"))
    moved = BOXES | {"annotations": [BOXES["annotations"][0] | {"bbox": [16, 12, 20, 24]}]}
    (boxes / "bench2.json").write_text(json.dumps(moved))
    return folder


def remake(data: Path, **changes) -> None:
    make(data, data / "out", **({"boxes": data / "boxes", "remake": True} | changes))


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
    remake(data)
    after = state_of(data / "out")
    kept = {path for path in after if before.get(path) == after[path]}
    shards_kept = {path for path in kept if path.startswith("clips-")}
    split = opened(data / "out")["bench3"][1].split  # which has no other recording
    assert shards_kept == {f"clips-{split}.array_record-00000-of-00001"}
    labels_kept = {path.split("/")[2] for path in kept if path.endswith("/frames.npz")}
    assert labels_kept == {"bench3"}
    # The same bytes as if it had been made anew.
    make(data, data / "anew", boxes=data / "boxes")
    assert digests(data / "out") == digests(data / "anew")
    assert opened(data / "out")["bench1"][0].states[12:14, 1].tolist() == [0, 1]
    remake(data)  # nothing left to do
    assert state_of(data / "out") == after


def test_a_picture_that_was_exchanged_is_noticed_wherever_it_is(tmp_path):
    folder = make_pictures(tmp_path / "data")
    make(folder, folder / "out")
    names = sorted((folder / "videos/bench2").glob("*.jpg"))
    names[5].write_bytes(names[-1].read_bytes() + bytes(9))
    with pytest.raises(ValueError, match="recording bench2: its pictures are not those"):
        make(folder, folder / "out")
    make(folder, folder / "out", remake=True)


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (7, (5, 1, 1)), (40, (28, 6, 6))])
def test_draws_have_the_shares_whatever_the_order(count, expected):
    names = [f"r{i}" for i in range(count)]
    wrong = dict.fromkeys(names, False)
    drawn = matching.draw_splits(names, (70, 15, 15), 0, {}, wrong)
    assert tuple([*drawn.values()].count(s) for s in SPLITS) == expected
    assert drawn == matching.draw_splits(names[::-1], (70, 15, 15), 0, {}, wrong)
    others = [matching.draw_splits(names, (70, 15, 15), seed, {}, wrong) for seed in range(1, 9)]
    assert any(other != drawn for other in others)
    assert {*matching.draw_splits(names, (1, 50, 49), 0, {}, wrong).values()} == {*SPLITS}
    assert {*matching.draw_splits(names, (50, 50, 0), 0, {}, wrong).values()} == {"train", "val"}


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
    make(folder, out)
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
