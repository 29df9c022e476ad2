import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep import own
from stormpsr_jax.media import finding
from tests.support.commands import refused
from tests.support.damage import Damage, all_of, edited, moved, removed, written
from tests.support.own_data import FPS, STEPS, make, words, write_pictures, write_video

LABELS = "labels/bench1.csv"


def replaced(old: str, new: str) -> Damage:
    return edited(LABELS, old, new)


def in_psr_format(rows: str) -> Damage:
    return all_of(removed(LABELS), written("labels/bench1/PSR_labels.csv", rows))


def cut_video(data: Path) -> None:
    removed("videos/bench1")(data)
    content = write_video(data / "videos/bench1.mp4").read_bytes()
    (data / "videos/bench1.mp4").write_bytes(content[: int(0.7 * len(content))])


# By the message, what is done to the data. More of videos that cannot be read is in tests/media,
# and more of labels that cannot in tests/psr/files.
ERRORS = {
    r"bench1.mp4: is cut off: it ends at [0-2]\.. s, its head says (3\.8|4\.0) s": cut_video,
    r"labels without frames .*: bench1\n.*frames without labels: bench8": moved(
        ("videos/bench1", "videos/bench8")
    ),
    "recording bench1: frames in .*again/bench1.mp4 and .*videos/bench1; keep one of .* rename": (
        written("videos/again/bench1.mp4", b"")
    ),
    "recording bench1: labels in .*bench1.csv and .*train/bench1.csv; keep one": written(
        "labels/train/bench1.csv", STEPS
    ),
    "labels/bench1.csv: no step of bench1 is labelled; label it, or take the labels away": written(
        LABELS, "time,step\n"
    ),
    "labels/bench1: no step of bench1 is labelled; .* bench1/PSR_labels_raw.csv says so": (
        in_psr_format("")
    ),
    "2 recordings are too few to draw train, val, test .*cut a long .*--splits=FILE": removed(
        "videos/bench1", LABELS
    ),
    "line 1: header: '1,0' is neither time,step nor start,end,step": replaced("time,step\n", ""),
    "line 4: time: 4.1 s is after the end of the recording, 4.0 s": replaced("3.4", "0:04.1"),
    r"line 3: step: 2 \(Remove seal\) falls into the same frame as the one of the same component "
    "since line 2": replaced("\n1,0", "\n0,0\n0,2"),
    r"line 4: step: 0 \(Install seal\) changes nothing: it is installed since line 2": replaced(
        "3.4,6", "3.4,0"
    ),
    "bench1.csv: line 2: not UTF-8": written(LABELS, b"time,step\n1,Install \xfcber\n"),
    "no variant matches recording 'x' in procedure 'pump'; .*'recordings' globs": moved(
        ("videos/bench1", "videos/x"), (LABELS, "labels/x.csv")
    ),
    "labels/bench1/PSR_labels.csv: step 0 at frame 0 is not after frame 0": in_psr_format(
        "00000.jpg,0,Install seal\n"
    ),
    "labels/PSR_labels.csv: belongs into a folder of the recording's name": written(
        "labels/PSR_labels.csv", "00009.jpg,0,x\n"
    ),
    "frames without labels: bench2\n.*bench2.json: is of no label format that is read: .*"
    "Label Studio": all_of(
        removed("labels/bench2.csv"), written("labels/bench2.json", '[{"data": {}, "result": []}]')
    ),
    r"bench\\n3.mp4.*; rename it": written("videos/bench\n3.mp4", b""),
    "--videos=.*: no videos and no folders of images": removed("videos/*", "labels/*"),
    r"splits.csv: has no row for recordings bench2, bench3\n.*: recordings without video and labels"
    ": bench9": written("splits.csv", "recording,split\nbench1,train\nbench9,val\n"),
    "splits.csv: line 1: header: has to be recording,split": written(
        "splits.csv", "bench1,train\n"
    ),
    "line 2: split: 'dev' is not one of train": written(
        "splits.csv", "recording,split\nbench1,dev\n"
    ),
    "line 3: recording: bench1 is in val above": written(
        "splits.csv", "recording,split\nbench1,val\nbench1,test\n"
    ),
    "bench1.csv: is in no folder .*\n.*bench2: frames in split val, labels in test": moved(
        ("videos/bench2", "videos/val/bench2"), ("labels/bench2.csv", "labels/test/bench2.csv")
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_are_named(own_pictures, tmp_path, message, capsys):
    data = tmp_path / "data"
    for part in ("videos", "labels"):
        shutil.copytree(own_pictures / part, data / part)
    ERRORS[message](data)
    flags = words(data, tmp_path / "out", "--workers=1")
    if (data / "splits.csv").exists():
        flags.append(f"--splits={data / 'splits.csv'}")
    assert re.search(message, refused(capsys, own.main, flags, lines=None))
    assert not (tmp_path / "out").exists()


def test_errors_of_all_files_and_recordings_come_at_once(own_pictures, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(own_pictures, data, ignore=shutil.ignore_patterns("out"))
    text = STEPS.replace("Install cover", "install covers").replace("3.4,6", "9:99,6")
    (data / LABELS).write_text(text)
    (data / "labels/bench2.csv").unlink()
    (data / "labels/bench2").mkdir()
    (data / "labels/bench2/PSR_labels.csv").write_text("5.jpg,0\n99.jpg,3\n2.jpg,6\n")
    (data / "labels/bench2/PSR_labels_with_errors.csv").write_text("5.jpg,77\n")
    (data / "boxes/bench3").mkdir(parents=True)
    (data / "boxes/bench3/000001.txt").write_text("0 .5 .5 .1 .1\n0 5 .5 .1 .1\n0 .5 .5 0 .1\n")
    (data / "boxes/bench3/000002.txt").write_text("0 .5 .5\n")
    removed("videos/bench3")(data)
    write_pictures(data / "videos/bench3", shape=(64, 48))
    with pytest.raises(ValueError, match="bench1") as caught:
        make(data, tmp_path / "out", boxes=data / "boxes")
    said = str(caught.value).splitlines()
    for line, part in zip(
        said,
        (
            "bench1.csv: line 3: step: 'install covers' is no step of procedure 'pump'; near it",
            "bench1.csv: line 4: time: '9:99' is not a time",
            "bench2/PSR_labels.csv: line 2: image: frame 99 is not among the recording's frames",
            "bench2/PSR_labels.csv: line 3: image: frame 2 comes after frame 99",
            "bench2/PSR_labels_with_errors.csv: line 1: step id: '77' is not in 0…8",
            "bench3/000001.txt: line 2: x: the box is outside the picture",
            "bench3/000001.txt: line 3: w: a box of size 0",
            "bench3/000002.txt: line 1: w: is missing",
            "--aspect=stretch would distort recording bench3: its pictures, of 48x64, have another "
            "shape than those of bench",
        ),
        strict=True,
    ):
        assert part in line
    assert not [record for record in caplog.records if "detector" in record.getMessage()]


def test_damage_inside_is_an_error_not_a_shorter_recording(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.arange(0, 12, 0.2))
    opened_video = finding.open_recording(path, FPS)
    write_video(path, np.arange(0, 6, 0.2))
    with pytest.raises(ValueError, match=r"a.mkv: \d+ frames can be decoded, its index has"):
        list(opened_video.read())
