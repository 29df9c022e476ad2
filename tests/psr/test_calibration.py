"""Calibrated confidences against an optimiser, and where correct parts lie without labels."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr import calibration
from stormpsr_jax.psr.calibration import Judgement, fit, judge, reliability
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Variant
from stormpsr_jax.recordings.scores import Scores

CHANCES = st.integers(0, 64).map(lambda n: n / 64)
JUDGED = st.lists(st.builds(Judgement, CHANCES, st.booleans()), max_size=60)


def simulated(seed, num, slope=0.7, intercept=-0.5):
    """Overconfident events: (confidence, right) with a known chance of being right."""
    rng = np.random.default_rng(seed)
    score = rng.normal(1.5, 1.5, num)
    right = rng.random(num) < 1 / (1 + np.exp(-(slope * score + intercept)))
    return list(map(Judgement, (1 / (1 + np.exp(-score))).tolist(), right.tolist()))


@pytest.mark.parametrize(("seed", "num"), [(0, 25), (1, 60), (2, 200)])
def test_fit_matches_a_general_optimiser(seed, num):
    judged = [Judgement(min(c, 0.999), right) for c, right in simulated(seed, num)]
    confidence, right = map(np.array, zip(*judged, strict=True))
    x = np.log(confidence / (1 - confidence))
    low, high = 1 / ((~right).sum() + 2), (right.sum() + 1) / (right.sum() + 2)
    targets = np.where(right, high, low)

    def loss(theta):
        p = 1 / (1 + np.exp(-(theta[0] * x + theta[1])))
        return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum()

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
    best = scipy.optimize.minimize(loss, [1.0, 0.0], method="Nelder-Mead", options=options)
    found = fit(judged)
    assert best.x[0] > 0
    assert (found.slope, found.intercept) == pytest.approx(best.x, rel=1e-4, abs=1e-4)
    assert (found.low, found.high) == (low, high)
    p = 1 / (1 + math.exp(-(found.slope * math.log(0.7 / 0.3) + found.intercept)))
    assert found(0.7) == pytest.approx(min(max(p, low), high))


@settings(max_examples=60, deadline=None)
@given(JUDGED)
def test_fit_never_falls_and_nothing_is_certain(judged):
    found = fit(judged)
    values = [found(n / 50) for n in range(51)]
    assert values == sorted(values)
    num_right = sum(one.right for one in judged)
    num_wrong = len(judged) - num_right
    assert 1 / (num_wrong + 2) <= values[0]
    assert values[-1] <= (num_right + 1) / (num_right + 2)
    assert fit(judged[::-1]) == found


@pytest.mark.parametrize(
    ("confidences", "sizes"),
    [
        ([(n + 0.5) / 29 for n in range(29)], [15, 14]),
        ([(n + 0.5) / 100 for n in range(100)], [10] * 10),
        ([0.1] * 12 + [0.5] * 10 + [0.9] * 8, [12, 18]),  # too few at the end join the one before
        ([0.1] * 18 + [0.5] * 2 + [0.9] * 20, [20, 20]),  # between
    ],
)
def test_reliability_bins_hold_equally_many_and_equal_confidences_share_one(confidences, sizes):
    found = reliability([Judgement(c, True) for c in confidences])
    assert [b["events"] for b in found["bins"]] == sizes
    assert found["ece"] == pytest.approx(1 - sum(confidences) / len(confidences))
    assert reliability([]) == {"ece": None, "bins": []}


def recording(**changes):
    """Component 0 is incorrect in 20…39 and is right from 40 on; 1 is installed at 60."""
    return LabelledPredictions(
        **{
            "name": "r",
            "variant": Variant("v", (0, 0), (0, 3), ()),
            "truth": [(40, 0), (60, 3)],
            "states": np.array([[0, 0], [-1, 0], [1, 0], [1, 1]]),
            "frames": np.array([0, 20, 40, 60]),
        }
        | changes
    )


EVENTS = [
    (25, 1, 0.1, "asd"),  # incorrect
    (39, 1, 0.2, "asd"),  # still does
    (40, 1, 0.3, "asd"),  # no more
    (45, 0, 0.4, "asd"),  # correct
    (50, 3, 0.5, "asd"),  # early
    (70, 0, 0.6, "asd"),  # once more
]


def test_judge_golden_values():
    expected = [True, True, False, True, False, False]
    assert judge(EVENTS, recording()) == [
        (e[2], right) for e, right in zip(EVENTS, expected, strict=True)
    ]
    none = {"states": np.zeros((0, 2), np.int8), "frames": np.zeros(0, np.int64)}
    assert judge(EVENTS, recording(**none)) == [
        (0.4, True),
        (0.5, False),
        (0.6, False),
    ]
    with_errors = recording(truth=[(20, 1), (40, 0), (60, 3)], with_errors=True)
    expected = [True, False, False, True, False, False]  # one report for one installation
    assert [one.right for one in judge(EVENTS, with_errors)] == expected


def film(rng, centre, wrong):
    """Twenty looks at part 0, each of which hands end; it is incorrect with the chance `wrong`."""
    rows = []
    for _ in range(20):
        right = rng.normal(-2 if rng.random() < wrong else centre)
        rows += [(4.0, 5.0, right + rng.normal(0, 0.3))] * 6 + [(-4.0, 5.0, -9.0)] * 3
    view, present, right = np.array(rows).T
    absent = np.full(len(rows), -5.0)
    states = np.zeros((len(rows), 2))
    parts = np.stack([present, absent, right, absent], axis=1)
    return Scores(np.arange(len(rows)), view, states, parts)


@pytest.mark.parametrize("wrong", [0.1, 0.2, 0.3])
def test_incorrect_parts_among_the_films_move_the_level_little(wrong):
    rng = np.random.default_rng(0)
    alone, with_wrong = (
        calibration.level([film(rng, 4.0, chance) for _ in range(10)]) for chance in (0.0, wrong)
    )
    assert alone[0] == pytest.approx(4.7, abs=0.3)  # the upper quarter of N(4, 1)
    assert abs(with_wrong[0] - alone[0]) < 0.5
    assert alone[1] is None  # never there


def test_what_is_added_is_half_of_what_the_films_lack():
    assert calibration.shift([6.0, 5.0, None], [2.0, None, 3.0]) == [2.0, 0.0, 0.0]
    assert calibration.level([Scores(np.arange(3), None, None, None, np.zeros((3, 2)))]) is None


def test_logits_far_above_those_of_renders_count_for_less():
    taught = [True, True, True, False]
    assert calibration.trust([8.0, 3.0, None, 5.0], taught) == (0.5, 1.0, 0.8, 0.0)
    assert calibration.trust(None, taught) == (1.0, 1.0, 1.0, 0.0)
