"""A user's own videos: times, rotation, three forms of labels, the command."""

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import own
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media import video
from stormpsr_jax.media.framing import Framing
from tests.support.digests import digests
from tests.support.own_data import (
    FPS,
    LEVELS,
    PROCEDURE,
    STEPS,
    grey,
    make,
    make_data,
    opened,
    write_video,
)

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_own_variable_frame_rate_goes_by_time(tmp_path, ending):
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
def test_resample_constant_rates(rate):
    times = np.arange(3000) / rate
    for rounded in (times, np.round(times, 3) + 7):  # Matroska's milliseconds
        np.testing.assert_array_equal(video.resample(rounded, rate), np.ones(3000))
        shown = np.repeat(np.arange(3000), video.resample(rounded, rate / 5))
        np.testing.assert_array_equal(shown, np.arange(0, 3000, 5))
        np.testing.assert_array_equal(video.resample(rounded, 2 * rate), [2] * 2999 + [1])


def rotate(path: Path, matrix: tuple[int, ...]) -> None:
    """Sets the display matrix of an MP4's video track."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # version 0
    assert struct.unpack_from(">9i", content, start)[::4] == (0x10000, 0x10000, 0x40000000)
    struct.pack_into(">9i", content, start, *matrix)
    path.write_bytes(content)


@pytest.mark.parametrize(("a", "b", "c", "d"), [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1)])
def test_own_rotated_phone_video_comes_out_upright(tmp_path, a, b, c, d):
    quarters = np.zeros((48, 64, 3), np.uint8)
    quarters[:24, :32] = [200, 40, 40]
    quarters[:24, 32:] = [40, 200, 40]
    quarters[24:, :32] = [40, 40, 200]
    data = make_data(tmp_path / "data", ("bench1",))
    path = write_video(data / "videos" / "bench1.mp4", picture=lambda i: quarters)
    one = 0x10000
    rotate(path, (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 0x40000000))
    make(data, tmp_path / "out", framing=Framing((32, 32)), splits="100/0/0")
    image = opened(tmp_path / "out")["bench1"][1].frames("bench1", [3])[0]
    # ISO 14496-12: a point (x, y) of the stored picture is shown at (a x + c y, b x + d y).
    for y in (-1, 1):
        for x in (-1, 1):
            stored = quarters[24 + 12 * y, 32 + 16 * x]
            column, row = 16 + 8 * (a * x + c * y), 16 + 8 * (b * x + d * y)
            np.testing.assert_allclose(image[row, column], stored, atol=20)


def test_own_three_forms_of_labels_are_one(tmp_path):
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


def test_own_initial_state_errors_and_removals(tmp_path):
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


def test_own_folders_of_images_keep_their_numbers(tmp_path):
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


@pytest.mark.usefixtures("system")  # workers
def test_own_workers_zip_and_globs_give_the_same_bytes(own_videos, tmp_path):
    packed = tmp_path / "videos.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for path in (own_videos / "videos").iterdir():
            file.write(path, f"my videos/{path.name}")
    out = tmp_path / "out"
    assert not make(own_videos, out, videos=packed, workers=2, recordings="bench[12]")
    assert make(own_videos, out, videos=packed, recordings="bench3")
    assert digests(out) == digests(own_videos / "out")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "data_prep.own", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_own_command(tmp_path):
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
    assert own.main([*flags_, "--fps=10", f"--export_frames={tmp_path}/frames"]) == 0
    assert len(list((tmp_path / "frames").rglob("*.jpg"))) == 3 * 4

    os.rename(data / "videos/bench1.mp4", os.fsencode(data / "videos") + b"/bench\xff.mp4")
    result = run(*flags_)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert r"--videos: " in line
    assert r"bench\xff.mp4' is not UTF-8; rename it" in line
    assert "Traceback" not in result.stderr
