"""The real label files of MECCANO."""

import os
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import meccano
from data_prep.reading import asd_labels, data_sets
from data_prep.reading.recording_labels import read_labels
from data_prep.reading.remarks import describe
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media.trees import Tree, open_trees
from stormpsr_jax.psr.files import labels
from tests.support.meccano_data import PROCEDURE, REPOSITORY, make, picture

REAL = REPOSITORY / "../shared/data"
needs_real = pytest.mark.skipif(
    not (REAL / "meccano_psr_labels").is_dir(), reason="the shipped labels are not here"
)


@needs_real
def test_labels_golden_boxes_of_the_published_splits():
    procedure_states = 0
    counts = dict.fromkeys(("train", "val", "test"), 0)
    found = data_sets.find_labels(open_trees(REAL / "meccano_psr_labels"), "--labels")
    assert len(found) == 20
    boxed = meccano.find_boxes(REAL / "meccano_asd_labels")
    assert set(found) - set(boxed) == {"0005"}
    repeated = cut = 0
    for name, (tree, file) in boxed.items():
        split, (_, folder) = found[name]
        boxes = asd_labels.read_meccano_boxes(Path(tree.path, file))
        counts[split] += len(boxes.frames)
        repeated += boxes.num_repeated
        cut += boxes.num_cut
        states = labels.read_states(
            REAL / "meccano_psr_labels" / folder / "PSR_labels_raw.csv", PROCEDURE
        )
        last = int(boxes.frames.max())
        classes = PROCEDURE.state_classes(labels.states_per_frame(*states, 1, last))
        of_boxes = classes[boxes.frames - 1]
        procedure_states += int(((of_boxes > 0) & (of_boxes <= 11)).sum())
    assert counts == {"train": 6948, "val": 3053, "test": 3656}
    assert sum(counts.values()) == 13657
    assert procedure_states == 11224
    assert (repeated, cut) == (22, 912)


@needs_real
def test_meccano_all_real_labels_go_through():
    """Every recording with its own labels, and pictures that are only counted."""
    found = data_sets.find_labels(open_trees(REAL / "meccano_psr_labels"), "--labels")
    boxed = meccano.find_boxes(REAL / "meccano_asd_labels")
    recordings, known = [], {}
    for name, (split, folder) in found.items():
        pictures = data_sets.ImageFiles(Tree("nowhere"), name, 1, 26000)
        recording = data_sets.RecordingFiles(name, split, pictures, folder, boxed.get(name))
        recordings.append(recording)
        known[name] = read_labels(meccano.FORMAT, recording, PROCEDURE)
    lines = describe(recordings, known, PROCEDURE)
    assert "13657 boxes (11224 in a catalogued state" in lines[0]
    assert "912 cut off at the picture's edge, 22 left out for a larger one of the same" in lines[0]
    assert "11111100011111100 (19303 frames of 0005)" in lines[2]
    # The headlamp of 0016: in PSR_labels.csv, not in PSR_labels_raw.csv.
    assert "recording 0016: " in lines[3]
    assert "steps without a change of state: Install headlamp at frame 1144, Remove" in lines[3]
    assert lines[4:] == ["no boxes (ASD labels) for recordings 0005"]


@needs_real
def test_meccano_a_real_recording_keeps_its_labels(tmp_path):
    """train/0016, whose steps are not those that its states give."""
    folder = tmp_path / "frames/Train/0016"
    folder.mkdir(parents=True)
    small = np.ascontiguousarray(picture("16", 1)[:16, :16])  # of the size asked for: quick
    (folder / "00001.jpg").write_bytes(simplejpeg.encode_jpeg(small, 95))
    for frame in range(2, 16653):
        os.link(folder / "00001.jpg", folder / f"{frame:05d}.jpg")
    labels_ = tmp_path / "psr/train"
    labels_.mkdir(parents=True)
    (labels_ / "0016").symlink_to(REAL / "meccano_psr_labels/train/0016")
    (tmp_path / "asd").mkdir()
    (tmp_path / "asd/0016_GT.csv").symlink_to(REAL / "meccano_asd_labels/train/0016_GT.csv")
    assert make(tmp_path, tmp_path / "out")
    for path in (REAL / "meccano_psr_labels/train/0016").iterdir():
        kept = tmp_path / "out/labels/train/0016" / path.name
        assert kept.read_bytes() == path.read_bytes()
    recording = ClipSource(tmp_path / "out", "train", PROCEDURE).recordings["0016"]
    assert recording.num_frames == 16652
    assert int((recording.classes >= 0).sum()) == 564 - 18
