"""A folder of shards has one run at a time, and label files that are kept as shipped."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep.writing import output, recording_shard, shards
from stormpsr_jax.base import files
from stormpsr_jax.psr.procedure import Procedure
from tests.support import toy
from tests.support.digests import digests

SPLITS = {"train": ["a", "b", "c"], "test": ["d"]}
STATES = np.array([[0, 0]] * 2 + [[1, 0]] * 3 + [[1, -1]])
RAW = b"00001.jpg,0,0\n00003.jpg,1,0\n00006.jpg,1,-1\n"


def toy_procedure() -> Procedure:
    return toy.procedure("base, lid", "10 11", expected=[0])


def toy_recording(name: str, label_files=None) -> shards.RecordingData:
    n = len(STATES)
    image = np.full((8, 8, 3), ord(name[0]), np.uint8)
    return shards.RecordingData(
        name=name,
        first_frame=1,
        jpegs=iter([simplejpeg.encode_jpeg(image)] * n),
        states=STATES,
        boxes=np.full((n, 4), np.nan),
        classes=np.full(n, -1),
        visible=np.full(n, np.nan),
        label_files=label_files or {},
    )


class Make:
    """Makes toy recordings, and remembers which."""

    def __init__(self, label_files=None):
        self.made = []
        self._label_files = label_files

    def __call__(self, split: str, name: str) -> shards.RecordingData:
        self.made.append(name)
        return toy_recording(name, self._label_files)


def build(out: Path, make=None, **changes) -> bool:
    arguments = {"fps": 5, "image_size": (8, 8), "splits": SPLITS, "clip_length": 4}
    return shards.build(
        out, procedure=toy_procedure(), make=make or Make(), **(arguments | changes)
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "data"
    assert build(folder)
    return folder


def test_build_only_the_glob_is_made(built, tmp_path, capsys):
    out, make = tmp_path / "out", Make()
    assert not build(out, make, recordings="[ac]")
    assert make.made == ["a", "c"]
    said = capsys.readouterr().out
    assert "2 of 4 recordings are still missing (d, b)" in said
    assert not (out / "dataset_info.json").exists()
    assert not build(out, make, recordings="test/*")
    assert make.made == ["a", "c", "d"]
    assert build(out, make, recordings="train/*")  # completes the folder
    assert make.made == ["a", "c", "d", "b"]
    assert digests(out) == digests(built)
    assert build(out, None, recordings="a")
    with pytest.raises(ValueError, match=r"--recordings=x\* matches none of the 4"):
        build(tmp_path / "other", recordings="x*")


def test_build_longest_recording_first(built, tmp_path):
    make = Make()
    sizes = {"a": 6, "b": 60, "c": 7, "d": 9}
    assert build(tmp_path / "out", make, num_frames=sizes)
    assert make.made == ["b", "d", "c", "a"]
    assert digests(tmp_path / "out") == digests(built)


def test_build_errors_a_second_run_is_told_who_has_the_folder(built, tmp_path):
    out, begun, go_on = tmp_path / "out", threading.Event(), threading.Event()

    def slow(split: str, name: str) -> shards.RecordingData:
        begun.set()
        assert go_on.wait(60)
        return toy_recording(name)

    first = threading.Thread(target=build, args=(out, slow))
    first.start()
    assert begun.wait(60)
    with pytest.raises(ValueError, match=rf"another process \({os.getpid()} on .* writing to"):
        build(out)
    go_on.set()
    first.join(60)
    assert digests(out) == digests(built)  # the second one disturbed nothing
    assert not (out / "unfinished").exists()
    with output.only_writer(out):
        assert build(out)  # what is complete is only read


def test_only_writer_removes_what_a_killed_run_has_left(tmp_path):
    left = tmp_path / output.UNFINISHED / "clips-train.array_record-00001-of-00003.host.1"
    left.parent.mkdir()
    left.write_bytes(b"a killed process was at work")
    output.lock_of(tmp_path).write_text("host 1 x")
    with output.only_writer(tmp_path):
        assert not left.exists()
        with output.unfinished(tmp_path, tmp_path / "a") as part:
            part.write_bytes(b"whole")
        (tmp_path / "a").unlink()
        assert [path.name for path in left.parent.iterdir()] == ["lock"]
        left.touch()
    assert not list(tmp_path.iterdir())


def test_only_writer_errors_a_link_whose_target_would_be_emptied(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/unfinished").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="is a symbolic link"):
        build(tmp_path / "out")
    assert (tmp_path / "mine/file").exists()


def test_build_network_disk_without_locks_still_works(built, tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    assert build(tmp_path / "out")
    assert digests(tmp_path / "out") == digests(built)


def test_build_waits_until_a_network_disk_shows_what_others_made(built, tmp_path, monkeypatch):
    real, first_seen = recording_shard.is_finished, {}

    def late(job: recording_shard.Job) -> bool:
        now = time.monotonic()
        return real(job) and now >= first_seen.setdefault(job.name, now) + 0.3

    monkeypatch.setattr(recording_shard, "is_finished", late)
    assert build(tmp_path / "out")
    assert digests(tmp_path / "out") == digests(built)


def test_build_shipped_label_files_are_kept_byte_for_byte(tmp_path):
    shipped = {
        "PSR_labels_raw.csv": RAW,
        "PSR_labels.csv": b"000003.jpg,0,put the base there\n",
    }
    assert build(tmp_path / "out", Make(label_files=shipped), splits={"train": ["a"]})
    folder = tmp_path / "out/labels/train/a"
    for file, content in shipped.items():
        assert (folder / file).read_bytes() == content
    derived = (folder / "PSR_labels_with_errors.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in derived] == [["00003.jpg", "0"], ["00006.jpg", "4"]]


@pytest.mark.parametrize(
    ("shipped", "message"),
    [
        ({"PSR_labels_raw.csv": RAW.replace(b"6", b"5")}, "gives frame 5 another state"),
        ({"PSR_labels_raw.csv": RAW.replace(b",-1", b"")}, "PSR_labels_raw.csv: line 3: s_1"),
        ({"../PSR_labels.csv": b""}, "'../PSR_labels.csv' is not one of PSR_labels.csv"),
    ],
)
def test_build_label_files_that_do_not_fit_are_refused(tmp_path, shipped, message):
    with pytest.raises(ValueError, match=f"recording train/a: .*{message}"):
        build(tmp_path / "out", Make(label_files=shipped), splits={"train": ["a"]})
    assert not list((tmp_path / "out").glob("clips-*"))
