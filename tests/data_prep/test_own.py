"""A user's own videos: times, rotation, three forms of labels, splits, boxes, mistakes."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from data_prep import own, own_splits, video
from data_prep.pictures import Framing
from data_prep.trees import Tree
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.psr.procedure import Procedure

REPOSITORY = Path(__file__).parents[2]
FPS = 5
PROCEDURE = Procedure.from_json(
    {
        "name": "pump",
        "fps": FPS,
        "components": ["seal", "cover", "screw"],
        "states": ["100", "110", "111"],
        "variants": {
            "assembly": {
                "initial_state": "000",
                "expected": [0, 3, 6],
                "recordings": ["bench*"],
            },
            "repair": {"initial_state": "111", "expected": [8], "recordings": ["repair*"]},
        },
    }
)
LEVELS = 12  # grey levels between two frames of a video
TIMES = np.arange(0, 4, 0.2)


def grey(i: int) -> int:
    return 8 + LEVELS * (i % 20)


def write_video(path: Path, times=TIMES, codec="libx264", picture=None) -> Path:
    """Frames of one grey level each (or picture(i)) at the given times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = Fraction(1, 1000)
    # The index of an .mp4 in front, of a .mov at the end.
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = unit
        for i, time in enumerate(times):
            image = np.full((48, 64, 3), grey(i), np.uint8) if picture is None else picture(i)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


STEPS = "time,step\n1,0\n2.05,Install cover\n3.4,6\n"


def make_data(folder: Path, names=("bench1", "bench2", "bench3")) -> Path:
    """folder/videos/<name>.mp4, folder/labels/<name>.csv"""
    (folder / "labels").mkdir(parents=True)
    for name in names:
        write_video(folder / "videos" / f"{name}.mp4", codec="mpeg4")
        (folder / "labels" / f"{name}.csv").write_text(STEPS)
    return folder


def make(data: Path, out: Path, **changes) -> bool:
    arguments = {
        "videos": data / "videos",
        "labels": data / "labels",
        "procedure": PROCEDURE,
        "framing": Framing((24, 32)),
    }
    return own.make_dataset(out, **(arguments | changes))


def opened(out: Path) -> dict:
    """All recordings of a folder by name, and their sources."""
    sources = [ClipSource(out, split, PROCEDURE) for split in list_splits(out)]
    return {name: (r, s) for s in sources for name, r in s.recordings.items()}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    data = make_data(tmp_path_factory.mktemp("own"))
    assert make(data, data / "out")
    return data


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_own_property_variable_frame_rate_goes_by_time(tmp_path, ending):
    rng = np.random.default_rng(0)
    times = 0.3 + np.cumsum(rng.uniform(0.03, 0.5, 20))
    data = make_data(tmp_path / "data", ("bench2", "bench3"))
    write_video(data / "videos" / f"bench1.{ending}", times)
    (data / "labels" / "bench1.csv").write_text(STEPS)
    make(data, tmp_path / "out")
    recording, source = opened(tmp_path / "out")["bench1"]
    rounded = np.round(times, 3)
    shown = [
        max(m for m in range(20) if rounded[m] - rounded[0] <= n / FPS + 1e-3)
        for n in range(recording.num_frames)
    ]
    assert (recording.num_frames - 1) / FPS <= times[-1] - times[0] < recording.num_frames / FPS
    images = source.frames("bench1", range(recording.num_frames))
    found = (images.mean(axis=(1, 2, 3)) - 8) / LEVELS
    np.testing.assert_allclose(found, shown, atol=0.3)


@pytest.mark.parametrize("rate", [10, 24, 25, 29.97, 30, 59.94])
def test_resample_property_constant_rates(rate):
    times = np.arange(3000) / rate
    for rounded in (times, np.round(times, 3) + 7):  # Matroska's milliseconds
        np.testing.assert_array_equal(video.resample(rounded, rate), np.arange(3000))
        shown = video.resample(rounded, rate / 5)
        np.testing.assert_array_equal(shown, np.arange(0, 3000, 5))
        doubled = video.resample(rounded, 2 * rate)
        np.testing.assert_array_equal(doubled, np.repeat(np.arange(3000), 2)[:-1])


def rotate(path: Path, matrix: tuple[int, ...]) -> None:
    """Sets the display matrix of an MP4's video track."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # version 0
    assert struct.unpack_from(">9i", content, start)[::4] == (0x10000, 0x10000, 0x40000000)
    struct.pack_into(">9i", content, start, *matrix)
    path.write_bytes(content)


@pytest.mark.parametrize(("a", "b", "c", "d"), [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1)])
def test_own_property_rotated_phone_video_comes_out_upright(tmp_path, a, b, c, d):
    quarters = np.zeros((48, 64, 3), np.uint8)
    quarters[:24, :32] = [200, 40, 40]
    quarters[:24, 32:] = [40, 200, 40]
    quarters[24:, :32] = [40, 40, 200]
    data = make_data(tmp_path / "data")
    path = write_video(data / "videos" / "bench1.mp4", picture=lambda i: quarters)
    one = 0x10000
    rotate(path, (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 0x40000000))
    make(data, tmp_path / "out", framing=Framing((32, 32)))
    image = opened(tmp_path / "out")["bench1"][1].frames("bench1", [3])[0]
    # ISO 14496-12: a point (x, y) of the stored picture is shown at (a x + c y, b x + d y).
    for y in (-1, 1):
        for x in (-1, 1):
            stored = quarters[24 + 12 * y, 32 + 16 * x]
            column, row = 16 + 8 * (a * x + c * y), 16 + 8 * (b * x + d * y)
            np.testing.assert_allclose(image[row, column], stored, atol=20)


def test_own_property_three_forms_of_labels_are_one(tmp_path):
    data = make_data(tmp_path / "data", ("bench1", "bench2", "bench3", "bench4", "bench5"))
    labels = data / "labels"
    (labels / "bench2.csv").write_text(
        "start;END;worker;step\r\n0:03;0:03,4;B;6\r\n0,5;1;A;Install seal\r\n1;2,05;;3\r\n"
    )
    for name in ("bench3", "bench4", "bench5"):
        (labels / f"{name}.csv").unlink()
        (labels / name).mkdir()
    (labels / "bench3" / "mine.csv").write_text("step,time\n0, 0:00:01.0\n3,0:02.05\n6,3.4\n")
    (labels / "bench4" / "PSR_labels.csv").write_text("00005.jpg,0\n11.jpg,3\n17,6\n")
    (labels / "bench5" / "PSR_labels_raw.csv").write_text(
        "00000.jpg,0,0,0\n5.jpg,1,0,0\n11.jpg,1,1,0\n17.jpg,1,1,1\n"
    )
    make(data, tmp_path / "out")
    recordings = opened(tmp_path / "out")
    expected = np.zeros((20, 3), int)
    expected[5:, 0] = expected[11:, 1] = expected[17:, 2] = 1
    for name, (recording, _) in recordings.items():
        np.testing.assert_array_equal(recording.states, expected, err_msg=name)
    assert len(recordings) == 5
    for path in (tmp_path / "out/labels").rglob("PSR_labels.csv"):
        if path.parent.name != "bench4":  # kept as it is
            rows = [row.split(",")[:2] for row in path.read_text().split()[::1] if "," in row]
            assert rows == [["00005.jpg", "0"], ["00011.jpg", "3"], ["00017.jpg", "6"]]


def test_own_property_initial_state_errors_and_removals(tmp_path):
    data = make_data(tmp_path / "data", ("bench1", "bench2", "repair1", "repair2"))
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


def test_own_property_folders_of_images_keep_their_numbers(tmp_path):
    data = make_data(tmp_path / "data", ("bench1", "bench2"))
    images = data / "videos" / "bench3"
    images.mkdir()
    for i in range(20):
        jpeg = simplejpeg.encode_jpeg(np.full((48, 64, 3), grey(i), np.uint8), 95)
        (images / f"IMG_{i + 101}.jpg").write_bytes(jpeg)
    (data / "labels" / "bench3.csv").write_text(STEPS)
    make(data, tmp_path / "out")
    recording, source = opened(tmp_path / "out")["bench3"]
    assert (recording.first_frame, recording.num_frames) == (101, 20)
    assert recording.states[:, 0].tolist() == [0] * 5 + [1] * 15
    assert source.frames("bench3", [107]).mean() == pytest.approx(grey(6), abs=2)


BOX = (0.375, 0.5, 0.25, 0.5)  # of a picture 64 x 48: x 16…32, y 12…36


def write_boxes(folder: Path) -> Path:
    folder.mkdir()
    coco = {
        "images": [{"id": 7, "file_name": "bench1/000006.jpg", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "pump"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [16, 12, 16, 24]}],
    }
    (folder / "bench1.json").write_text(json.dumps(coco))
    (folder / "bench2").mkdir()
    (folder / "bench2" / "000006.txt").write_text("0 " + " ".join(map(str, BOX)) + "\n")
    (folder / "bench2" / "000007.txt").write_text("")
    (folder / "bench2" / "classes.txt").write_text("pump\n")
    return folder


def test_own_property_boxes_of_both_formats_follow_the_picture(made, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    boxes = write_boxes(tmp_path / "boxes")
    framing = Framing((32, 32), aspect="pad", region=(0, 0, 0.5, 1))
    (tmp_path / "splits.csv").write_text("recording,split\nbench1,train\nbench2,val\nbench3,test\n")
    make(made, tmp_path / "out", boxes=boxes, framing=framing, splits=str(tmp_path / "splits.csv"))
    recordings = opened(tmp_path / "out")
    assert [s.split for _, s in recordings.values()] == ["test", "train", "val"]
    for name in ("bench1", "bench2"):
        recording = recordings[name][0]
        assert np.flatnonzero(recording.classes >= 0).tolist() == [6]
        assert recording.classes[6] == 1  # the state there, whatever the category says
        # the left half, 32 x 48, becomes 21 x 32 pixels from column 5 on
        expected = [(5 + 0.75 * 21) / 32, 0.5, 0.5 * 21 / 32, 0.5]
        np.testing.assert_allclose(recording.boxes[6], expected, atol=1e-6)
    assert (recordings["bench3"][0].classes == -1).all()
    assert not any("detector" in message for message in caplog.messages)


def test_own_property_log_says_that_there_are_no_boxes(made, caplog):
    caplog.set_level("INFO", logger="absl")
    assert make(made, made / "out")
    (said,) = (message for message in caplog.messages if "detector" in message)
    assert "no boxes in split train and val" in said
    assert "config.stages" in said
    assert sum(message.startswith("split ") for message in caplog.messages) == 3


def test_own_property_exported_frames_are_those_of_the_shards(made, tmp_path):
    recordings = own.find_recordings(made / "videos", made / "labels", PROCEDURE)
    assert own.export_frames(recordings, tmp_path, 8) == 9
    paths = sorted((tmp_path / "bench2").iterdir())
    assert [path.name for path in paths] == ["000000.jpg", "000008.jpg", "000016.jpg"]
    for path, i in zip(paths, (0, 8, 16), strict=True):
        image = simplejpeg.decode_jpeg(path.read_bytes())
        assert image.shape == (48, 64, 3)
        assert image.mean() == pytest.approx(grey(i), abs=3)


def test_own_property_workers_zip_and_globs_give_the_same_bytes(made, tmp_path):
    packed = tmp_path / "videos.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for path in (made / "videos").iterdir():
            file.write(path, f"my videos/{path.name}")
    out = tmp_path / "out"
    assert not make(made, out, videos=packed, workers=2, recordings="bench[12]")
    assert make(made, out, videos=packed, recordings="bench3")
    assert digests(out) == digests(made / "out")


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (7, (5, 1, 1)), (40, (28, 6, 6))])
def test_draw_splits_property_counts_and_order(count, expected):
    names = [f"r{i}" for i in range(count)]
    drawn = own_splits.draw_splits(names, (70, 15, 15), 0)
    assert tuple(list(drawn.values()).count(s) for s in ("train", "val", "test")) == expected
    assert drawn == own_splits.draw_splits(names[::-1], (70, 15, 15), 0)
    others = [own_splits.draw_splits(names, (70, 15, 15), seed) for seed in range(1, 9)]
    assert any(other != drawn for other in others)
    assert set(own_splits.draw_splits(names, (1, 50, 49), 0).values()) == {"train", "val", "test"}
    assert set(own_splits.draw_splits(names, (50, 50, 0), 0).values()) == {"train", "val"}


def test_own_property_splits_by_folders(tmp_path):
    data = make_data(tmp_path / "data")
    for name, split in (("bench1", "train"), ("bench2", "Val"), ("bench3", "test")):
        (data / "videos" / split).mkdir()
        (data / "videos" / f"{name}.mp4").rename(data / "videos" / split / f"{name}.mp4")
    # What lies above --videos says nothing.
    (data / "labels").rename(data / "test")
    make(data, tmp_path / "out", labels=data / "test")
    splits = {name: source.split for name, (_, source) in opened(tmp_path / "out").items()}
    assert splits == {"bench1": "train", "bench2": "val", "bench3": "test"}


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
        r"labels without a video in .*: bench1, bench2; "
        r"videos without labels in .*: bench8, bench9",
    ),
    "two videos": (
        lambda d: write_video(d / "videos/again/bench1.mp4"),
        r"recording bench1: video in .*again/bench1.mp4.*; give one",
    ),
    "two files of labels": (
        lambda d: (d / "labels/train").mkdir() or (d / "labels/train/bench1.csv").write_text(STEPS),
        r"recording bench1: labels in .*labels/bench1.csv and .*train/bench1.csv; give one",
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
    "no steps": (
        lambda d: (d / LABELS).write_text("time,step\n"),
        r"bench1.csv: has no steps",
    ),
    "not a time": (
        lambda d: edit(d / LABELS, "2.05", "2:75"),
        r"bench1.csv: line 3: time: '2:75' is not a time such as",
    ),
    "before the start": (
        lambda d: (d / LABELS).write_text("start,end,step\n2,1,0\n"),
        r"bench1.csv: line 2: end: 1 is before the start, 2",
    ),
    "past the end": (
        lambda d: edit(d / LABELS, "3.4", "0:04.1"),
        r"bench1.csv: line 4: time: 4.1 s is after the end of the recording, 4.0 s",
    ),
    "at the first frame": (
        lambda d: edit(d / LABELS, "\n1,0", "\n0,0"),
        r"bench1.csv: line 2: time: a step cannot be complete at the first frame",
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
        r"labels/bench1: step 0 at frame 0 is not after frame 0",
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
def test_own_property_mistakes_are_named(made, tmp_path, mistake):
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


SPLIT_MISTAKES = {
    "recording,split\nbench1,train\nbench9,val\n": r"no row for recordings bench2, bench3; "
    r".*: recordings without video and labels: bench9",
    "bench1,train\n": "line 1: header: has to be recording,split",
    "recording,split\nbench1,dev\n": "line 2: split: 'dev' is not one of train, val, test",
    "recording,split\nbench1,val\nbench1,test\n": "line 3: recording: bench1 is given twice",
}


@pytest.mark.parametrize("text", SPLIT_MISTAKES)
def test_own_property_mistakes_in_a_file_of_splits(made, tmp_path, text):
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(ValueError, match=SPLIT_MISTAKES[text]):
        make(made, tmp_path / "out", splits=str(tmp_path / "splits.csv"))


BOX_MISTAKES = {
    ("bench9.json", "{}"): "boxes without labels: bench9",
    ("bench2.json", "{}"): "--boxes: .*bench2.json and .*bench2 are of the same recording",
    ("bench2/6.txt", ""): "bench2: (6|000006).txt and (6|000006).txt are the same frame",
    ("bench2/000020.txt", "0 .5 .5 .1 .1"): "000020.txt: line 1: frame 20 is not among .* 0…19",
    ("bench2/000008.txt", "0 1.5 .5 .1 .1"): "000008.txt: line 1: x: the box is outside",
    ("bench2/000008.txt", "0 .5 .5 .1"): "000008.txt: line 1: h: is missing",
    ("bench1.json", "[]"): "bench1.json: not COCO",
}


@pytest.mark.parametrize(("file", "text"), BOX_MISTAKES)
def test_own_property_mistakes_in_boxes(made, tmp_path, file, text):
    boxes = write_boxes(tmp_path / "boxes")
    (boxes / file).write_text(text)
    with pytest.raises(ValueError, match=BOX_MISTAKES[file, text]):
        make(made, tmp_path / "out", boxes=boxes)


def test_own_property_folders_that_leave_a_recording_out(tmp_path):
    data = make_data(tmp_path / "data")
    for name, split in (("bench1", "train"), ("bench2", "val")):
        write_video(data / "videos" / split / f"{name}.mp4")
        (data / "videos" / f"{name}.mp4").unlink()
    (data / "labels/test").mkdir()
    (data / "labels/bench2.csv").rename(data / "labels/test/bench2.csv")
    with pytest.raises(ValueError, match=r"bench2: is in folders test and val; .*: bench3"):
        make(data, tmp_path / "out")


def test_own_property_gaps_and_slow_videos_are_logged(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    write_video(tmp_path / "a.mp4", [0, 0.5, 1, 4.5, 5])
    opened_video = own.open_recording(Tree(str(tmp_path)), "a.mp4", FPS)
    assert opened_video.num_frames == 26
    assert any("no picture between 1.0 s and 4.5 s" in message for message in caplog.messages)
    assert any("0.8 pictures a second, fewer than 5" in message for message in caplog.messages)


def test_own_property_damage_inside_is_an_error_not_a_shorter_recording(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.arange(0, 12, 0.2))
    opened_video = own.open_recording(Tree(str(tmp_path)), "a.mkv", FPS)
    write_video(path, np.arange(0, 6, 0.2))
    with pytest.raises(ValueError, match=r"a.mkv: can be decoded up to 6.0 s only, of 12.0 s"):
        list(opened_video.read())


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "data_prep.own", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_own_property_command(tmp_path):
    data = make_data(tmp_path / "data")
    (data / "pump.json").write_text(json.dumps(PROCEDURE.to_json()))
    flags_ = [
        *(f"--videos={data}/videos", f"--labels={data}/labels", f"--procedure={data}/pump.json"),
        *(f"--out={tmp_path}/out", "--size=16", "--workers=1"),
    ]
    result = run(*flags_, "--fps=10", "--splits=50/25/25")
    assert result.returncode == 0, result.stderr
    source = ClipSource(tmp_path / "out", "train", PROCEDURE)
    (recording,) = source.recordings.values()
    assert (source.fps, recording.num_frames) == (10, 39)
    assert recording.states[:, 0].tolist() == [0] * 10 + [1] * 29
    result = run(*flags_, "--fps=10", f"--export_frames={tmp_path}/frames")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "frames").rglob("*.jpg"))) == 3 * 4

    os.rename(data / "videos/bench1.mp4", os.fsencode(data / "videos") + b"/bench\xff.mp4")
    result = run(*flags_)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert r"--videos: " in line
    assert r"bench\xff.mp4' is not UTF-8; rename it" in line
    assert "Traceback" not in result.stderr
