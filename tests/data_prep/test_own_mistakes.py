"""Mistakes in a user's own videos and labels: each is one message that names the place."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from stormpsr_jax.media import finding
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.trees import Tree
from tests.support.own_data import FPS, STEPS, TIMES, make, make_data, opened, write_video


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    data = make_data(tmp_path_factory.mktemp("own"))
    assert make(data, data / "out")
    return data


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def cut_off(folder: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    write_video(folder / f"bench1.{ending}", np.arange(60) / 5, picture=noise.__getitem__)
    (folder / "bench1.mp4").unlink()
    cut(folder / f"bench1.{ending}", 0.6)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def join_videos(folder: Path) -> None:
    part = write_video(folder / "part.ts")
    (folder / "bench1.mp4").unlink()
    (folder / "bench1.ts").write_bytes(2 * part.read_bytes())
    part.unlink()


def in_psr_format(data: Path, rows: str) -> None:
    (data / "labels/bench1.csv").unlink()
    (data / "labels/bench1").mkdir()
    (data / "labels/bench1/PSR_labels.csv").write_text(rows)


LABELS = "labels/bench1.csv"
MISTAKES = {
    "zero bytes": (
        lambda d: (d / "videos/bench1.mp4").write_bytes(b""),
        r"bench1.mp4: is empty \(0 bytes\)",
    ),
    "no video": (
        lambda d: (d / "videos/bench1.mp4").write_bytes(b"text" * 99),
        r"bench1.mp4: is not a video that can be read",
    ),
    "sound only": (
        lambda d: write_sound(d / "videos/bench1.mp4"),
        r"bench1.mp4: there is no video in it",
    ),
    "cut off, index at the end": (
        lambda d: cut_off(d / "videos", "mov"),
        r"bench1.mov: is not a video that can be read",
    ),
    "cut off, index in front": (
        lambda d: cut(d / "videos/bench1.mp4", 0.7),
        r"bench1.mp4: is cut off: it ends at [0-2]\.. s, its head says (3\.8|4\.0) s",
    ),
    "cut off, Matroska": (
        lambda d: cut_off(d / "videos", "mkv"),
        r"bench1.mkv: is cut off: it ends at \d\.\d s, its head says 11\.8 s",
    ),
    "times that go back": (
        lambda d: join_videos(d / "videos"),
        r"bench1.ts: timestamps go back from 3\.800 s to 0\.000 s \(videos joined",
    ),
    "times that jump": (
        lambda d: write_video(d / "videos/bench1.mp4", [*TIMES, 4000, 4000.2]),
        r"bench1.mp4: timestamps jump from 3.8 s to 4000.0 s",
    ),
    "unknown on both sides": (
        lambda d: (
            (d / "videos/bench1.mp4").rename(d / "videos/bench8.mp4"),
            (d / "videos/bench2.mp4").rename(d / "videos/bench9.mp4"),
        ),
        r"labels without a video in .*: bench1, bench2\n"
        r"videos without labels in .*: bench8, bench9$",
    ),
    "two videos": (
        lambda d: write_video(d / "videos/again/bench1.mp4"),
        r"recording bench1: video in .*again/bench1.mp4.* rename.*\(the last one to again_bench1\)",
    ),
    "two files of labels": (
        lambda d: (d / "labels/train").mkdir() or (d / "labels/train/bench1.csv").write_text(STEPS),
        r"recording bench1: labels in .*labels/bench1.csv and .*train/bench1.csv; a recor",
    ),
    "too few": (
        lambda d: (
            (d / "videos/bench1.mp4").unlink() or (d / "labels/bench1.csv").unlink()
        ),
        r"2 recordings are too few to draw train, val, test .*cut a long .*--splits=FILE",
    ),
    "no header": (
        lambda d: edit(d / LABELS, "time,step\n", ""),
        r"bench1.csv: line 1: header: '1,0' is neither time,step nor start,end,step",
    ),
    "empty labels": (
        lambda d: (d / LABELS).write_text(""),
        r"bench1.csv: line 1: header: '' is neither",
    ),
    "not a time": (
        lambda d: edit(d / LABELS, "2.05", "2:75"),
        r"bench1.csv: line 3: time: '2:75' is not a time such as",
    ),
    "a time of 400 digits": (
        lambda d: edit(d / LABELS, "2.05", "9" * 400),
        r"bench1.csv: line 3: time: '9{37}…' is not a time such as",
    ),
    "before the start": (
        lambda d: (d / LABELS).write_text("start,end,step\n2,1,0\n"),
        r"bench1.csv: line 2: end: 1 is before the start, 2",
    ),
    "past the end": (
        lambda d: edit(d / LABELS, "3.4", "0:04.1"),
        r"bench1.csv: line 4: time: 4.1 s is after the end of the recording, 4.0 s",
    ),
    "twice at the first frame": (
        lambda d: edit(d / LABELS, "\n1,0", "\n0,0\n0,2"),
        r"bench1.csv: line 3: step: 2 \(Remove seal\) falls into the same frame as the one of the "
        "same component since line 2",
    ),
    "unknown step id": (
        lambda d: edit(d / LABELS, "3.4,6", "3.4,9"),
        r"bench1.csv: line 4: step: '9' is not in 0…8",
    ),
    "unknown step name": (
        lambda d: edit(d / LABELS, "Install cover", "install covers"),
        r"line 3: step: 'install covers' is no step of procedure 'pump'; near it are "
        r"'Install cover'.*procedure show",
    ),
    "step that changes nothing": (
        lambda d: edit(d / LABELS, "3.4,6", "3.4,0"),
        r"line 4: step: 0 \(Install seal\) changes nothing: it is installed since line 2",
    ),
    "two steps in one frame": (
        lambda d: edit(d / LABELS, "3.4,6", "3.41,6\n3.42,8"),
        r"line 5: step: 8 \(Remove screw\) falls into the same frame .* since line 4",
    ),
    "row cut off": (
        lambda d: edit(d / LABELS, "3.4,6", "3.4"),
        r"bench1.csv: line 4: step: is missing",
    ),
    "labels not UTF-8": (
        lambda d: (d / LABELS).write_bytes(b"time,step\n1,Install \xfcber\n"),
        r"bench1.csv: line 2: not UTF-8",
    ),
    "no variant": (
        lambda d: (
            (d / "videos/bench1.mp4").rename(d / "videos/x.mp4"),
            (d / LABELS).rename(d / "labels/x.csv"),
        ),
        r"no variant matches recording 'x' in procedure 'pump'; mend the 'recordings' globs",
    ),
    "frame past the end": (
        lambda d: in_psr_format(d, "00020.jpg,0,Install seal\n"),
        r"PSR_labels.csv: line 1: image: frame 20 is not among the recording's frames 0…19",
    ),
    "first frame": (
        lambda d: in_psr_format(d, "00000.jpg,0,Install seal\n"),
        r"labels/bench1/PSR_labels.csv: step 0 at frame 0 is not after frame 0",
    ),
    "rows out of order": (
        lambda d: in_psr_format(d, "00009.jpg,0,x\n00003.jpg,3,x\n"),
        r"PSR_labels.csv: line 2: image: frame 3 comes after frame 9",
    ),
    "PSR file without a folder": (
        lambda d: (d / "labels/PSR_labels.csv").write_text("00009.jpg,0,x\n"),
        r"labels/PSR_labels.csv: belongs into a folder with the recording's name",
    ),
    "nothing there": (
        lambda d: [path.unlink() for path in (*d.glob("videos/*"), *d.glob("labels/*"))],
        r"--videos=.*: no videos and no folders of images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_own_mistakes_are_named(made, tmp_path, mistake):
    change, message = MISTAKES[mistake]
    data = tmp_path / "data"
    for path in (*made.glob("videos/*"), *made.glob("labels/*")):
        copy = data / path.relative_to(made)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    change(data)
    with pytest.raises(ValueError, match=message):
        make(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_own_errors_of_all_files_and_recordings_come_at_once(made, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(made, data, ignore=shutil.ignore_patterns("out"))
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
