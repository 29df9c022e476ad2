"""One folder of shards filled by several runs, and label files that are kept as shipped."""

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep.writing import output, shards
from stormpsr_jax.psr.procedure import Procedure

SPLITS = {"train": ["a", "b", "c"], "test": ["d"]}
STATES = np.array([[0, 0]] * 2 + [[1, 0]] * 3 + [[1, -1]])
RAW = b"00001.jpg,0,0\n00003.jpg,1,0\n00006.jpg,1,-1\n"


def toy_procedure() -> Procedure:
    return Procedure.from_json(
        {
            "name": "toy",
            "fps": 5,
            "components": ["base", "lid"],
            "states": ["10", "11"],
            "variants": {"all": {"initial_state": "00", "expected": [0], "recordings": ["*"]}},
        }
    )


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
    """Makes toy recordings, slowly if asked to, and remembers which."""

    def __init__(self, sleep: float = 0, label_files=None):
        self.made = []
        self._sleep = sleep
        self._label_files = label_files

    def __call__(self, split: str, name: str) -> shards.RecordingData:
        time.sleep(self._sleep)
        self.made.append(name)
        return toy_recording(name, self._label_files)


def build(out: Path, make=None, **changes) -> bool:
    arguments = {"fps": 5, "image_size": (8, 8), "splits": SPLITS, "clip_length": 4}
    return shards.build(
        out, procedure=toy_procedure(), make=make or Make(), **(arguments | changes)
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "data"
    assert build(folder)
    return folder


def test_build_property_only_the_glob_is_made(built, tmp_path, capsys):
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


def test_build_property_longest_recording_first(built, tmp_path):
    make = Make()
    sizes = {"a": 6, "b": 60, "c": 7, "d": 9}
    assert build(tmp_path / "out", make, num_frames=sizes)
    assert make.made == ["b", "d", "c", "a"]
    assert digests(tmp_path / "out") == digests(built)


def test_build_property_two_runs_share_the_work(built, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "WAIT", 0.02)
    out, makes = tmp_path / "out", [Make(sleep=0.15), Make(sleep=0.15), Make(sleep=0.15)]
    results = {}

    def run(i: int) -> None:
        results[i] = build(out, makes[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {0: True, 1: True, 2: True}  # each of them ends with a complete folder
    assert sorted(name for make in makes for name in make.made) == ["a", "b", "c", "d"]
    assert digests(out) == digests(built)
    assert not (out / "unfinished").exists()


def test_build_property_waits_for_a_recording_made_elsewhere(built, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shards, "WAIT", 0.02)
    out, make = tmp_path / "out", Make()
    assert not build(out, make, recordings="[ab]")
    shard = "clips-train.array_record-00002-of-00003"  # c
    with output.lock(out, shard, wait=False) as free:
        assert free
        thread = threading.Thread(target=build, args=(out, make))
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive()
        assert make.made == ["a", "b", "d"]
        assert "waiting for recordings that another run is making: c" in capsys.readouterr().out
    thread.join(30)  # the other run gave up; this one makes it
    assert make.made == ["a", "b", "d", "c"]
    assert digests(out) == digests(built)


def test_lock_property_one_holder_at_a_time(tmp_path):
    inside, most = [], []

    def work() -> None:
        for _ in range(40):
            with output.lock(tmp_path, "name", wait=True):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0002)
                inside.pop()
            output.remove_leftovers(tmp_path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 160
    assert max(most) == 1


def test_remove_leftovers_property_keeps_a_lock_taken_while_it_looks(tmp_path, monkeypatch):
    path = tmp_path / output.UNFINISHED / "name.lock"
    path.parent.mkdir()
    path.touch()  # left by a killed process
    flock, held = output.fcntl.flock, []

    def taken_by_another_just_before(file, operation):
        monkeypatch.undo()
        path.unlink()
        held.append(path.open("ab+"))
        flock(held[0], output.fcntl.LOCK_EX)
        flock(file, operation)

    monkeypatch.setattr(output.fcntl, "flock", taken_by_another_just_before)
    output.remove_leftovers(tmp_path)
    assert path.exists()
    with output.lock(tmp_path, "name", wait=False) as free:
        assert not free
    held[0].close()
    output.remove_leftovers(tmp_path)
    assert not path.exists()


def test_build_property_network_disk_without_locks_still_works(built, tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(output.fcntl, "flock", refuse)
    assert build(tmp_path / "out")
    assert {
        name: digest
        for name, digest in digests(tmp_path / "out").items()
        if not name.startswith("unfinished")
    } == digests(built)


def test_build_property_shipped_label_files_are_kept_byte_for_byte(tmp_path):
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
def test_build_property_label_files_that_do_not_fit_are_refused(tmp_path, shipped, message):
    with pytest.raises(ValueError, match=f"recording train/a: .*{message}"):
        build(tmp_path / "out", Make(label_files=shipped), splits={"train": ["a"]})
    assert not list((tmp_path / "out").glob("clips-*"))
