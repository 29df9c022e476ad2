import functools

import numpy as np
import pytest

from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.serving.content import Window
from stormpsr_jax.stages import validation

BOX = (0.5, 0.5, 0.4, 0.4)
# By frame: what is annotated (-1 empty, -2 not looked at), what is detected, and how surely.
TRUE = [1, 2, -1, -1, -1, -2, -2, 0]
CLASSES = [1, 2, 1, 0, 2, 1, 1, 1]
CONFIDENCES = [0.9, 0.8, 0.7, 0.0, 0.4, 0.99, 0.99, 0.99]


class Source:
    """Pictures that say which frame they are."""

    split, readers = "val", 2

    def __init__(self, classes):
        n = len(classes)
        boxes = np.where(np.array(classes)[:, None] >= 0, BOX, np.nan).astype(np.float32)
        unknown = np.full(n, np.nan, np.float32)
        states = np.zeros((n, 1), np.int8)
        labelled = LabelledFrames("a", 0, states, boxes, np.array(classes, np.int16), unknown)
        self.recordings = {"a": labelled}

    def rows(self, name, rows):
        del name
        return np.array(rows, np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)


def detector(images):
    """Boxes (B, 1, 4), classes (B, 1), confidences (B, 1) and what is left."""
    frames = images[:, 0, 0, 0]
    boxes = np.tile(np.float32(BOX), (len(frames), 1, 1))
    return boxes, np.array(CLASSES)[frames, None], np.array(CONFIDENCES)[frames, None], None


detector.batch = 3
detector.over = functools.partial(map, detector)


def test_macro_f1_is_the_mean_over_components_and_the_other_one_pools_them():
    """Against counts by a plain loop; component 2 never changes and is never said to."""
    rng = np.random.default_rng(0)
    states = rng.integers(0, 2, (50, 3))
    states[:, 2] = 1
    embeddings = rng.normal(size=(50, 4)).astype(np.float32)

    def says(x):
        return np.asarray(x)[:, -1, :3] - [0, 0.5, 99]

    says.batch = 7
    found = validation.clip_scores(says, {"a": embeddings}, {"a": states}, Window(8, 2))
    counts = np.zeros((3, 3))  # TP, FP, FN of each component
    for x in range(0, 50, 2):
        for k in range(3):
            truth = states[max(x - 8, 0), k] != states[x, k]
            said = embeddings[x, k] - [0, 0.5, 99][k] > 0
            counts[k] += [truth and said, said and not truth, truth and not said]
    each = [2 * tp / max(2 * tp + fp + fn, 1) for tp, fp, fn in counts]
    tp, fp, fn = counts.sum(axis=0)
    assert each[2] == 0
    assert found["f1_macro"] == pytest.approx(sum(each) / 3)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert abs(found["f1"] - found["f1_macro"]) > 0.1


def test_detections_only_what_was_looked_at_counts():
    source = Source(TRUE)
    assert validation.mean_average_precision(detector, source) == pytest.approx(1)
    assert validation.false_alarms(detector, source) == {"false_alarms": pytest.approx(1 / 3)}
    assert validation.false_alarms(detector, Source([-1] * 8))["false_alarms"] == 6 / 8
    assert validation.false_alarms(detector, Source([1, 2, -2])) == {}
