"""Mistakes in a user's own videos and labels: each is one message that names the place."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from stormpsr_jax.media import finding
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.trees import Tree
from tests.support.own_data import FPS, STEPS, make, make_data, opened, write_video


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def replaced(old: str, new: str) -> Callable:
    """Another text in the labels of a recording."""
    return lambda data: edit(data / LABELS, old, new)


def written(content: str | bytes, file: str = "labels/bench1.csv") -> Callable:
    """A file of another content."""
    if isinstance(content, bytes):
        return lambda data: (data / file).write_bytes(content)
    return lambda data: (data / file).write_text(content)


def in_psr_format(rows: str) -> Callable:
    """Labels of a recording in a folder."""

    def change(data: Path) -> None:
        (data / LABELS).unlink()
        (data / "labels/bench1").mkdir()
        (data / "labels/bench1/PSR_labels.csv").write_text(rows)

    return change


def moved(**names: str) -> Callable:
    """Videos of other names."""

    def change(data: Path) -> None:
        for old, new in names.items():
            (data / f"videos/{old}.mp4").rename(data / f"videos/{new}.mp4")

    return change


def removed(*globs: str) -> Callable:
    """Files less."""
    return lambda data: [path.unlink() for glob in globs for path in data.glob(glob)]


def write_labels_twice(data: Path) -> None:
    (data / "labels/train").mkdir()
    (data / "labels/train/bench1.csv").write_text(STEPS)


def name_x(data: Path) -> None:
    moved(bench1="x")(data)
    (data / LABELS).rename(data / "labels/x.csv")


LABELS = "labels/bench1.csv"
# By the message, what is done to the data. Videos that cannot be read are in tests/hostile.
MISTAKES = {
    r"bench1.mp4: is empty \(0 bytes\)": written(b"", "videos/bench1.mp4"),
    r"bench1.mp4: is cut off: it ends at [0-2]\.. s, its head says (3\.8|4\.0) s": lambda d: cut(
        d / "videos/bench1.mp4", 0.7
    ),
    r"labels without a video in .*: bench1, bench2\nvideos without labels in .*: bench8, bench9$": (
        moved(bench1="bench8", bench2="bench9")
    ),
    r"recording bench1: video in .*again/bench1.mp4.* rename.*\(the last one to again_bench1\)": (
        lambda d: write_video(d / "videos/again/bench1.mp4")
    ),
    "recording bench1: labels in .*labels/bench1.csv and .*train/bench1.csv; a recor": (
        write_labels_twice
    ),
    "2 recordings are too few to draw train, val, test .*cut a long .*--splits=FILE": removed(
        "videos/bench1.mp4", LABELS
    ),
    "line 1: header: '1,0' is neither time,step nor start,end,step": replaced("time,step\n", ""),
    "bench1.csv: line 1: header: '' is neither": written(""),
    "bench1.csv: line 3: time: '2:75' is not a time such as": replaced("2.05", "2:75"),
    "line 3: time: '9{37}…' is not a time such as": replaced("2.05", "9" * 400),
    "line 2: end: 1 is before the start, 2": written("start,end,step\n2,1,0\n"),
    "line 4: time: 4.1 s is after the end of the recording, 4.0 s": replaced("3.4", "0:04.1"),
    r"line 3: step: 2 \(Remove seal\) falls into the same frame as the one of the same component "
    "since line 2": replaced("\n1,0", "\n0,0\n0,2"),
    "line 4: step: '9' is not in 0…8": replaced("3.4,6", "3.4,9"),
    "line 3: step: 'install covers' is no step of procedure 'pump'; near it are 'Install cover'.*"
    "procedure show": replaced("Install cover", "install covers"),
    r"line 4: step: 0 \(Install seal\) changes nothing: it is installed since line 2": replaced(
        "3.4,6", "3.4,0"
    ),
    r"line 5: step: 8 \(Remove screw\) falls into the same frame .* since line 4": replaced(
        "3.4,6", "3.41,6\n3.42,8"
    ),
    "bench1.csv: line 4: step: is missing": replaced("3.4,6", "3.4"),
    "bench1.csv: line 2: not UTF-8": written(b"time,step\n1,Install \xfcber\n"),
    "no variant matches recording 'x' in procedure 'pump'; mend the 'recordings' globs": name_x,
    "PSR_labels.csv: line 1: image: frame 20 is not among the recording's frames 0…19": (
        in_psr_format("00020.jpg,0,Install seal\n")
    ),
    "labels/bench1/PSR_labels.csv: step 0 at frame 0 is not after frame 0": in_psr_format(
        "00000.jpg,0,Install seal\n"
    ),
    "PSR_labels.csv: line 2: image: frame 3 comes after frame 9": in_psr_format(
        "00009.jpg,0,x\n00003.jpg,3,x\n"
    ),
    "labels/PSR_labels.csv: belongs into a folder with the recording's name": written(
        "00009.jpg,0,x\n", "labels/PSR_labels.csv"
    ),
    "--videos=.*: no videos and no folders of images": removed("videos/*", "labels/*"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_own_mistakes_are_named(own_videos, tmp_path, message):
    data = tmp_path / "data"
    for path in (*own_videos.glob("videos/*"), *own_videos.glob("labels/*")):
        copy = data / path.relative_to(own_videos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    MISTAKES[message](data)
    with pytest.raises(ValueError, match=message):
        make(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_own_errors_of_all_files_and_recordings_come_at_once(own_videos, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(own_videos, data, ignore=shutil.ignore_patterns("out"))
    edit(data / "labels/bench1.csv", "Install cover", "install covers")
    edit(data / "labels/bench1.csv", "3.4,6", "9:99,6")
    (data / "labels/bench2.csv").unlink()
    (data / "labels/bench2").mkdir()
    (data / "labels/bench2/PSR_labels.csv").write_text("5.jpg,0\n99.jpg,3\n2.jpg,6\n")
    (data / "labels/bench2/PSR_labels_with_errors.csv").write_text("5.jpg,77\n")
    (data / "labels/bench2/PSR_labels_raw.csv").mkdir()
    (data / "boxes/bench3").mkdir(parents=True)
    (data / "boxes/bench3/000001.txt").write_text("0 .5 .5 .1 .1\n0 5 .5 .1 .1\n0 .5 .5 0 .1\n")
    (data / "boxes/bench3/000099.txt").write_text("0 .5 .5 .1 .1\n")
    (data / "boxes/bench3/000002.txt").write_text("0 .5 .5\n")
    turned = np.full((64, 48, 3), 99, np.uint8)
    for path in (data / "videos").glob("bench3*"):
        path.unlink()
    (data / "videos/bench3").mkdir()
    for i in range(20):
        jpeg = simplejpeg.encode_jpeg(turned, 95)
        (data / "videos/bench3" / f"{i:06d}.jpg").write_bytes(jpeg)
    with pytest.raises(ValueError, match="bench1") as caught:
        make(data, tmp_path / "out", boxes=data / "boxes")
    said = str(caught.value).splitlines()
    for line, part in zip(
        said,
        (
            "bench1.csv: line 3: step: 'install covers' is no step",
            "bench1.csv: line 4: time: '9:99' is not a time",
            "bench2/PSR_labels.csv: line 2: image: frame 99 is not among the recording's frames",
            "bench2/PSR_labels.csv: line 3: image: frame 2 comes after frame 99",
            "bench2/PSR_labels_with_errors.csv: line 1: step id: '77' is not in 0…8",
            "bench2/PSR_labels_raw.csv: is a folder, not a file",
            "bench3/000001.txt: line 2: x: the box is outside the picture",
            "bench3/000001.txt: line 3: w: a box of size 0",
            "bench3/000002.txt: line 1: w: is missing",
            "--aspect=stretch would distort recordings bench3 (48x64): their pictures have another "
            "shape than those of bench1 (64x48) and most others; give --aspect=pad or --aspect=",
        ),
        strict=True,
    ):
        assert part in line
    assert not [record for record in caplog.records if "detector" in record.getMessage()]
    assert not (tmp_path / "out").exists()


def test_own_pictures_of_several_shapes_keep_theirs(tmp_path):
    """A portrait video is not distorted; one that is a pixel wider than others is like them."""
    data = make_data(tmp_path / "data", ("bench1", "bench2"))
    for name, shape in (("bench3", (64, 48)), ("bench4", (48, 65))):
        (data / "videos" / name).mkdir()
        (data / "labels" / f"{name}.csv").write_text(STEPS)
        for i in range(20):
            jpeg = simplejpeg.encode_jpeg(np.full((*shape, 3), 99, np.uint8), 95)
            (data / "videos" / name / f"{i:06d}.jpg").write_bytes(jpeg)
    with pytest.raises(ValueError, match=r"would distort recordings bench3 \(48x64\): their"):
        make(data, tmp_path / "out")
    make(data, tmp_path / "out", framing=Framing((32, 32), aspect="pad"))
    picture = opened(tmp_path / "out")["bench3"][1].frames("bench3", [3])[0]
    assert (picture[:, :4] < 8).all()
    assert (picture[:, 5:27] > 90).all()


def test_own_folders_that_leave_a_recording_out(tmp_path):
    data = make_data(tmp_path / "data")
    for name, split in (("bench1", "train"), ("bench2", "val")):
        write_video(data / "videos" / split / f"{name}.mp4")
        (data / "videos" / f"{name}.mp4").unlink()
    (data / "labels/test").mkdir()
    (data / "labels/bench2.csv").rename(data / "labels/test/bench2.csv")
    with pytest.raises(ValueError, match=r"bench2: is in folders test and val\n.*: bench3"):
        make(data, tmp_path / "out")


def test_own_gaps_and_slow_videos_are_logged(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    write_video(tmp_path / "a.mp4", [0, 0.5, 1, 4.5, 5])
    opened_video = finding.open_recording(Tree(str(tmp_path)), "a.mp4", FPS)
    assert opened_video.num_frames == 26
    assert any("no picture between 1.0 s and 4.5 s" in message for message in caplog.messages)
    assert any("0.8 pictures a second, fewer than 5" in message for message in caplog.messages)


def test_own_damage_inside_is_an_error_not_a_shorter_recording(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.arange(0, 12, 0.2))
    opened_video = finding.open_recording(Tree(str(tmp_path)), "a.mkv", FPS)
    write_video(path, np.arange(0, 6, 0.2))
    with pytest.raises(ValueError, match=r"a.mkv: can be decoded up to 6.0 s only, of 12.0 s"):
        list(opened_video.read())
