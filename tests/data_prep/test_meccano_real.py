import itertools

import numpy as np
import pytest

from data_prep import meccano
from data_prep.reading import data_sets
from data_prep.reading.notes import describe
from data_prep.reading.recording_labels import read_labels
from data_prep.writing import from_files
from stormpsr_jax.data.annotation import EMPTY, NOT_ANNOTATED
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.trees import Tree, open_trees
from tests.support.meccano_data import PROCEDURE, REPOSITORY, SIZE

REAL = REPOSITORY / "../shared/data"
NUM_FRAMES = 26000
needs_real = pytest.mark.skipif(
    not (REAL / "meccano_asd_labels").is_dir(), reason="the shipped labels are not here"
)


@pytest.fixture(scope="module")
def real():
    """The 20 recordings of MECCANO with their own labels; pictures are only counted."""
    found = data_sets.find_labels(open_trees(REAL / "meccano_psr_labels"), "--labels")
    boxed = meccano.find_boxes(REAL / "meccano_asd_labels")
    splits = data_sets.splits_of(found, found)
    recordings = {}
    for name, place in found.items():
        pictures = data_sets.ImageFiles(Tree("nowhere"), name, 1, NUM_FRAMES)
        recordings[name] = data_sets.RecordingFiles(
            name, splits[name], pictures, place, boxed.get(name)
        )
    known = {n: read_labels(meccano.FORMAT, r, PROCEDURE) for n, r in recordings.items()}
    return recordings, known


def rows_of(name: str) -> list[tuple[int, int]]:
    (path,) = (REAL / "meccano_asd_labels").glob(f"*/{name}_GT.csv")
    return [(int(row[0]), int(row[2])) for row in np.loadtxt(path, delimiter=",")]


@needs_real
def test_real_labels_have_the_published_boxes_and_are_told(real):
    recordings, known = real
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for name, own in known.items():
        counts[recordings[name].split] += 0 if own.boxes is None else len(own.boxes.frames)
    assert counts == {"train": 6948, "val": 3053, "test": 3656}
    lines = describe(list(recordings.values()), known, PROCEDURE)
    assert "13657 boxes (11224 in a catalogued state" in lines[0]
    assert "912 cut off at the picture's edge, 22 left out for a larger one of the same" in lines[0]
    boxes, annotated = 13657 - 22, 19 * NUM_FRAMES - 324
    assert lines[1] == (
        f"{annotated - boxes} frames are annotated as empty, {NUM_FRAMES + 324} are not annotated"
    )
    assert "11111100011111100 (19303 frames of 0005)" in lines[2]
    # The headlamp of 0016: in PSR_labels.csv, not in PSR_labels_raw.csv.
    assert "recording 0016: " in lines[3]
    assert "steps without a change of state: Install headlamp at frame 1144, Remove" in lines[3]
    assert lines[4:] == ["no boxes (ASD labels) for recordings 0005"]


def classes_of(recording, known, monkeypatch, framing=SIZE):
    """Boxes and classes that the shards of a recording get, of state 1 throughout."""
    monkeypatch.setattr(from_files.pictures, "picture_size", lambda _: (1080, 1920))
    return from_files._boxes(recording, known, np.full(NUM_FRAMES, 1), framing)


@needs_real
def test_real_frames_without_a_box_are_empty_or_unknown(real, monkeypatch):
    recordings, known = real
    unsure = {}
    for name, recording in recordings.items():
        _, classes = classes_of(recording, known[name], monkeypatch)
        if name == "0005":  # has no ASD file: nobody has looked at it
            assert (classes == NOT_ANNOTATED).all()
            continue
        rows = rows_of(name)
        boxed = {frame for frame, _ in rows}
        assert set((np.flatnonzero(classes >= 0) + 1).tolist()) == boxed
        # What one visible interval leaves out.
        gaps = [
            frame
            for (start, interval), (end, other) in itertools.pairwise(rows)
            if interval == other
            for frame in range(start + 1, end)
        ]
        assert (np.flatnonzero(classes == NOT_ANNOTATED) + 1).tolist() == gaps
        assert (classes == EMPTY).sum() == NUM_FRAMES - len(boxed) - len(gaps)
        if gaps:
            unsure[name] = len(gaps)
    assert unsure == {"0015": 324}
    # Boxes that a crop loses say nothing.
    recording, own = recordings["0002"], known["0002"]
    _, whole = classes_of(recording, own, monkeypatch)
    boxes, cropped = classes_of(
        recording, own, monkeypatch, Framing((16, 16), region=(0, 0, 0.5, 1))
    )
    lost = (whole >= 0) & np.isnan(boxes[:, 0])
    assert 100 < lost.sum() < (whole >= 0).sum()
    assert (cropped[lost] == NOT_ANNOTATED).all()
    np.testing.assert_array_equal(cropped[~lost], whole[~lost])
