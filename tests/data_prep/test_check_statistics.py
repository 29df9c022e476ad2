"""The statistics of a folder of clip shards, against counts by hand and published ones."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.checking import statistics as check_statistics
from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.procedure import load_procedure
from tests.support.check_data import PROCEDURE, make

STEPS = [(4, 0), (6, 4), (8, 3), (8, 6)]
SHARED = Path(__file__).parents[2] / "../shared/data"


def test_split_statistics_matches_counts_by_hand():
    s = check_statistics.split_statistics(_recordings(), PROCEDURE, 5.0, {"a": STEPS, "b": STEPS})
    # 000 is uncatalogued (3 frames), 100 state 1 (2), 1-10 error (2), 111 state 3 (4).
    assert s.frames_by_class.tolist() == [6, 4, 0, 8, 4]
    assert s.boxes_by_class.tolist() == [0, 2, 0, 2, 2]
    assert s.rows == {
        "Recordings": "2",
        "Frames": "22",
        "Hours": "0.00",
        "Steps": "6",
        "· installed": "6",
        "· removed": "0",
        "Incorrect installations": "2",
        "Steps per recording": "3.0 (3–3)",
        "Seconds per step (median)": "0.7",  # frames 1 → 4 → 8 at 5 frames/s
        "Frames with a box": "6",
        "· of a catalogued state": "4",
        "· uncatalogued (ignored)": "0",
        "· of an error state": "2",
        "Frames annotated as empty": "63.6%",
        "Frames not annotated": "9.1%",
        "Box size (median, of the side)": "20%",
        "Frames in an uncatalogued state": "27.3%",
        "Frames in an error state": "18.2%",
        "States never seen": "2",
        "Visible fraction (mean)": "40%",
    }


def _recordings():
    made = [make("train", name) for name in ("a", "b")]
    return [LabelledFrames(d.name, 1, d.states, d.boxes, d.classes, d.visible) for d in made]


@pytest.mark.skipif(not SHARED.exists(), reason="needs the MECCANO label files")
def test_split_statistics_matches_published_boxes_of_meccano():
    procedure = load_procedure("meccano")
    totals, catalogued, steps = {}, 0, 0
    for split in ("train", "val", "test"):
        recordings, listed, doubled = [], {}, 0
        for folder in sorted((SHARED / "meccano_psr_labels" / split).iterdir()):
            frames, states = labels.read_states(folder / "PSR_labels_raw.csv", procedure)
            path = SHARED / "meccano_asd_labels" / split / f"{folder.name}_GT.csv"
            rows = np.loadtxt(path, delimiter=",") if path.exists() else np.zeros((0, 7))
            at = rows[:, 0].astype(int)
            n = int(max(frames[-1], at.max(initial=0)))
            per_frame = labels.states_per_frame(frames, states, 1, n)
            boxes = np.full((n, 4), np.nan, np.float32)
            boxes[at - 1] = rows[:, 3:]
            annotated = ~np.isnan(boxes[:, 0])
            classes = np.where(annotated, procedure.state_classes(per_frame), -1)
            doubled += len(at) - annotated.sum()
            unknown = np.full(n, np.nan, np.float32)
            recordings.append(LabelledFrames(folder.name, 1, per_frame, boxes, classes, unknown))
            listed[folder.name] = labels.read_steps(
                folder / "PSR_labels_with_errors.csv", procedure
            )
            steps += len(labels.read_steps(folder / "PSR_labels.csv", procedure))
        s = check_statistics.split_statistics(recordings, procedure, 12.0, listed)
        # A few frames have two rows in the shipped files; a frame in a shard has one box.
        totals[split] = s.boxes_by_class.sum() + doubled
        catalogued += s.boxes_by_class[1:-1].sum()
        steps -= int(s.rows["Steps"])
    assert totals == {"train": 6948, "val": 3053, "test": 3656}
    assert steps == 0
    assert 11_224 - 30 <= catalogued <= 11_224  # of the rows, before doubled ones go
