import functools

import numpy as np
import pytest

from data_prep import check, matching, meccano
from data_prep.notes import describe
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.folder import EMPTY, NOT_ANNOTATED
from stormpsr_jax.media.pictures import ImageFiles
from tests.support import videos
from tests.support.meccano_data import (
    FRAMES,
    PROCEDURE,
    RAW,
    REPOSITORY,
    SPLITS,
    STEPS,
    WITH_ERRORS,
    make,
    picture,
)


def test_frames_states_splits_and_label_files(meccano_shards):
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
            folder = meccano_shards / "labels" / split / name  # what is shipped is kept
            assert (folder / "PSR_labels.csv").read_text() == STEPS
            assert (folder / "PSR_labels_with_errors.csv").read_text() == WITH_ERRORS
            assert (folder / "PSR_labels_raw.csv").read_text() == RAW


def test_boxes_and_their_classes(meccano_shards, tmp_path):
    recordings = ClipSource(meccano_shards, "train", PROCEDURE).recordings
    expected = np.full((14, 4), np.nan)
    expected[4] = [0.5, 0.5, 0.2, 0.4]
    expected[5] = [0.25, 0.5, 0.2, 0.4]  # the larger of two
    expected[6] = [0.925, 0.5, 0.15, 0.4]  # cut off at the picture's edge
    expected[7] = expected[9] = [0.5, 0.5, 0.2, 0.4]
    np.testing.assert_allclose(recordings["0001"].boxes, expected, atol=1e-6)
    classes = [EMPTY] * 14
    classes[4:8] = [0, 1, 1, 12]  # uncatalogued, state 1, error
    classes[8:10] = [NOT_ANNOTATED, 1]  # one visible interval leaves the first out
    assert recordings["0001"].classes.tolist() == classes
    assert (recordings["0002"].classes == NOT_ANNOTATED).all()  # has no file of boxes
    assert check.check(meccano_shards, out=tmp_path / "page.html") == 0


def test_frames_of_a_video(meccano_files, meccano_shards, tmp_path):
    for name, count in FRAMES.items():
        shown = (picture(name, frame) for frame in range(1, count + 1))
        videos.write(tmp_path / f"RGB_Videos/{name}.mp4", shown, bit_rate=8_000_000)
    make(meccano_files, tmp_path / "out", frames=tmp_path / "RGB_Videos")
    one, other = (
        ClipSource(folder, "train", PROCEDURE).frames("0001", range(1, 15)).astype(float)
        for folder in (tmp_path / "out", meccano_shards)
    )
    assert np.abs(one - other).mean(axis=(1, 2, 3)).max() < 15
    shuffled = np.abs(one - np.roll(other, 1, axis=0)).mean(axis=(1, 2, 3))
    assert shuffled.min() > 25  # so 15 means: the same frame


REAL = REPOSITORY / "../shared/data"
NUM_FRAMES = 26000
needs_real = pytest.mark.skipif(
    not (REAL / "meccano_asd_labels").is_dir(), reason="the shipped labels are not here"
)


@pytest.fixture(scope="module")
def real():
    """The 20 recordings of MECCANO with their own labels; pictures are only counted."""
    top = REAL / "meccano_psr_labels"
    found = matching.find_labels(top, "--labels")
    boxed = meccano.find_boxes(REAL / "meccano_asd_labels")
    recordings = matching.match(
        found,
        {name: [labelled.path] for name, labelled in found.items()},
        {name: functools.partial(meccano.read_boxes, path) for name, path in boxed.items()},
        lambda path, name: ImageFiles(path, 1, NUM_FRAMES),
        "--frames",
        PROCEDURE,
        (top, top),
    )
    return {recording.name: recording for recording in recordings}


@needs_real
def test_real_labels_have_the_published_boxes_and_are_told(real):
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for recording in real.values():
        counts[recording.split] += 0 if recording.boxes is None else len(recording.boxes.frames)
    assert counts == {"train": 6948, "val": 3053, "test": 3656}
    lines = describe(list(real.values()), PROCEDURE)
    assert "13657 boxes (11224 in a catalogued state" in lines[0]
    assert "912 cut off at the picture's edge, 22 left out for a larger one of the same" in lines[0]
    boxes, annotated = 13657 - 22, 19 * NUM_FRAMES - 324
    assert lines[1] == (
        f"{annotated - boxes} frames are annotated as empty, {NUM_FRAMES + 324} are not annotated"
    )
    # The headlamp of 0016: in PSR_labels.csv, not in PSR_labels_raw.csv.
    assert "recording 0016: " in lines[2]
    assert "steps without a change of state: Install headlamp at frame 1144, Remove" in lines[2]
    assert lines[3:] == ["no boxes (ASD labels) for recordings 0005"]
