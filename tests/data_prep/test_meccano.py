"""MECCANO as it is downloaded: frames, labels, boxes, zip files and videos."""

import contextlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.data.clips import ClipSource
from tests.support.digests import digests
from tests.support.meccano_data import (
    FRAMES,
    PROCEDURE,
    RAW,
    SPLITS,
    STEPS,
    WITH_ERRORS,
    make,
    make_data,
    picture,
)


def test_meccano_frames_states_and_splits(meccano_shards):
    for split in ("train", "val", "test"):
        source = ClipSource(meccano_shards, split, PROCEDURE)
        assert list(source.recordings) == [name for name in FRAMES if SPLITS[name] == split]
        assert source.fps == 12
        for name, recording in source.recordings.items():
            assert (recording.first_frame, recording.num_frames) == (1, FRAMES[name])
            assert recording.states[2].sum() == 0
            assert np.flatnonzero(recording.states[3]).tolist() == [0]  # frame 4
            assert recording.states[7, 1] == -1
            assert np.isnan(recording.visible).all()
            frames = range(1, FRAMES[name] + 1)
            for frame, image in zip(frames, source.frames(name, frames), strict=True):
                # 16 x 16 pixels of a 6 x 12 chequerboard: means of quarters tell frames apart
                real = picture(name, frame)
                for rows, large in ((slice(0, 8), slice(0, 27)), (slice(8, 16), slice(27, 54))):
                    expected = real[large].mean(axis=(0, 1))
                    assert np.abs(image[rows].mean(axis=(0, 1)) - expected).max() < 12


def test_meccano_boxes_and_their_classes(meccano_shards):
    recording = ClipSource(meccano_shards, "train", PROCEDURE).recordings["0001"]
    expected = np.full((14, 4), np.nan)
    expected[4] = [0.5, 0.5, 0.2, 0.4]
    expected[5] = [0.25, 0.5, 0.2, 0.4]  # the larger of two
    expected[6] = [0.925, 0.5, 0.15, 0.4]  # cut off at the picture's edge
    expected[7] = [0.5, 0.5, 0.2, 0.4]
    np.testing.assert_allclose(recording.boxes, expected, atol=1e-6)
    assert PROCEDURE.state_class(recording.states[5]) == 1
    ignored, error = 0, 12
    assert recording.classes[4:8].tolist() == [ignored, 1, 1, error]
    assert (np.delete(recording.classes, range(4, 8)) == -1).all()
    without = ClipSource(meccano_shards, "train", PROCEDURE).recordings["0002"]
    assert (without.classes == NOT_ANNOTATED).all()


def test_meccano_shipped_label_files_are_kept(meccano_shards):
    for name, split in SPLITS.items():
        folder = meccano_shards / "labels" / split / name
        assert (folder / "PSR_labels.csv").read_text() == STEPS
        assert (folder / "PSR_labels_with_errors.csv").read_text() == WITH_ERRORS
        assert (folder / "PSR_labels_raw.csv").read_text() == RAW


def test_meccano_log_says_what_is_particular(meccano_files, meccano_shards, caplog):
    caplog.set_level("INFO", logger="absl")
    make(meccano_files, meccano_shards)
    assert caplog.messages == [
        "4 of 4 recordings are in the split that MECCANO has them in; 16 of its 20 recordings are "
        "not there: 0003, 0004, 0005, 0006, 0013 and 11 more",
        "4 recordings, 46 frames (22 in a catalogued state, 4 in an error state, 20 in an "
        "uncatalogued one), 15 boxes (9 in a catalogued state, 3 in an error state, 3 in an "
        "uncatalogued one; 3 cut off at the picture's edge, 3 left out for a larger one of the "
        "same frame)",
        "25 frames are annotated as empty, 9 are not annotated",
        "8 frames show states that procedure 'meccano' does not catalogue: 10000000000000000 (8 "
        "frames of 0001, 0002, 0007, 0008). Neither the encoder nor the detector learns such "
        'states: add those that the assembly goes through to "states" of the procedure file, and '
        "correct the labels where a state is wrong",
        *(
            f"recording {name}: PSR_labels.csv and the states differ, changes of state that are no "
            "steps: Install headlamp at frame 6. Training follows the states and scores follow "
            "the steps: correct whichever is wrong"
            for name in FRAMES
        ),
        "no boxes (ASD labels) for recordings 0002",
    ]


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.rglob("*")):
            file.write(member, member.relative_to(folder))
    return path


@pytest.mark.usefixtures("system")  # workers
def test_meccano_zip_files_and_workers_give_the_same_bytes(meccano_files, meccano_shards, tmp_path):
    parts = {
        "frames": zipped(meccano_files / "frames", tmp_path / "MECCANO_RGB_frames.zip"),
        "labels": zipped(meccano_files / "psr", tmp_path / "psr.zip"),
        "asd_labels": zipped(meccano_files / "asd", tmp_path / "asd.zip"),
    }
    assert make(meccano_files, tmp_path / "out", workers=2, **parts)
    assert digests(tmp_path / "out") == digests(meccano_shards)


def test_video_frames_of_a_video(tmp_path):
    av = pytest.importorskip("av")
    data = make_data(tmp_path / "data")
    for name, count in FRAMES.items():
        with av.open(str(tmp_path / "data" / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=12)
            stream.width, stream.height, stream.pix_fmt = 96, 54, "yuv420p"
            stream.bit_rate = 8_000_000
            for frame in range(1, count + 1):
                image = av.VideoFrame.from_ndarray(picture(name, frame), format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode())
    videos = zipfile.ZipFile(tmp_path / "videos.zip", "w")
    with contextlib.closing(videos):
        for name in FRAMES:
            videos.write(tmp_path / "data" / f"{name}.mp4", f"RGB_Videos/{name}.mp4")
    assert make(data, tmp_path / "out", frames=tmp_path / "videos.zip")
    assert make(data, tmp_path / "of_files")
    one, other = (
        ClipSource(folder, "train", PROCEDURE).frames("0001", range(1, 15)).astype(float)
        for folder in (tmp_path / "out", tmp_path / "of_files")
    )
    assert np.abs(one - other).mean(axis=(1, 2, 3)).max() < 15
    shuffled = np.abs(one - np.roll(other, 1, axis=0)).mean(axis=(1, 2, 3))
    assert shuffled.min() > 25  # so 15 means: the same frame
