"""Detections of another clock, class order or recording are a warning; those as they are, none."""

import numpy as np
import pytest

from stormpsr_jax.psr.files import agreement
from stormpsr_jax.psr.files.predictions import Detections
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from tests.support import toy

PROCEDURE = toy.procedure("a, b, c, d, e", "10000 11000 11100 11110 11111", fps=10)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(({"late": late}, None) for late in (0, 10, 30)),
        ({"change": lambda f: f // 2}, "such as 5 a second instead of 10"),
        ({"change": lambda f: f * 10 // 12}, "such as 8"),
        ({"change": lambda f: f * 12 // 10}, "such as 12 a second instead of 10"),
        ({"change": lambda f: f + 300}, "would if its frames were 310 (31 s) lower"),
        ({"order": (0, 3, 5, 1, 4, 2, 6)}, "were other ones (1 as 3, 2 as 5, 3 as 1, 5 as 2)"),
        ({"places": (1, 0, 2, 3, 4)}, "are the two files exchanged?"),
    ],
)
def test_what_looks_wrong_is_said_and_nothing_else(changes, said):
    """Of five recordings, seen a second late and incorrectly in a frame of 20."""
    how = {"change": lambda f: f, "order": range(7), "places": range(5), "late": 10} | changes
    rng, variant, found, truths = np.random.default_rng(0), PROCEDURE.variants["all"], [], []
    for _ in range(5):
        at = np.sort(rng.choice(np.arange(20, 300), 5, replace=False)) * 10
        frames = np.arange(0, 3300, 2)
        classes = np.searchsorted(at + how["late"], frames, "right")
        classes = np.where(rng.random(len(frames)) < 0.05, rng.integers(1, 6), classes)
        frames, kept = np.unique(how["change"](frames), return_index=True)
        classes, sure = np.array(how["order"])[classes[kept]], np.full(len(kept), 0.9)
        found.append(Detections(frames, classes, sure, np.zeros((len(kept), 4))))
        truths.append([(int(frame), 3 * k) for k, frame in enumerate(at)])
    recordings = {
        f"r{i}": LabelledPredictions(f"r{i}", variant, truth, np.zeros((0, 5)), found[place])
        for i, (truth, place) in enumerate(zip(truths, how["places"], strict=True))
    }
    (fact,), warnings = agreement.check(PROCEDURE, recordings)
    assert "frames with a state agree with the labels; of 25 states after labelled" in fact
    assert [said in warning for warning in warnings] == [True] * (said is not None)
