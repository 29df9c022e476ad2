"""Calibrated confidences against an optimiser, on simulated events, and by their definitions."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr.evaluation import analysis
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Variant
from stormpsr_jax.psr.streams import calibration
from stormpsr_jax.psr.streams.calibration import Calibration, Judged, fit, judge, reliability

CHANCES = st.integers(0, 64).map(lambda n: n / 64)
JUDGED = st.lists(st.builds(Judged, CHANCES, st.booleans()), max_size=60)


def simulated(seed, num, slope=0.7, intercept=-0.5):
    """Overconfident events: (confidence, right) with a known chance of being right."""
    rng = np.random.default_rng(seed)
    score = rng.normal(1.5, 1.5, num)
    right = rng.random(num) < 1 / (1 + np.exp(-(slope * score + intercept)))
    return list(map(Judged, (1 / (1 + np.exp(-score))).tolist(), right.tolist()))


def moved(judged, slope, intercept):
    """The same events with confidences that say it differently."""
    return [
        Judged(1 / (1 + math.exp(-(slope * math.log(c / (1 - c)) + intercept))), right)
        for c, right, _ in judged
    ]


@pytest.mark.parametrize("num", [25, 60, 200])
@pytest.mark.parametrize("seed", range(3))
def test_fit_matches_a_general_optimiser(seed, num):
    judged = [Judged(min(c, 0.999), right) for c, right, _ in simulated(seed, num)]
    confidence, right, _ = map(np.array, zip(*judged, strict=True))
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


@settings(max_examples=200, deadline=None)
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


@pytest.mark.parametrize("num_wrong", [1, 15])
@pytest.mark.parametrize("gap", [0.3, 1e-3, 1e-9])
def test_fit_edge_sure_events_are_all_right(num_wrong, gap):
    """A slope without bounds would fit such events best."""
    judged = [Judged(0.6 + gap, True)] * 30 + [Judged(0.6, False)] * num_wrong
    found = fit(judged)
    assert found(0.6) <= found(0.6 + gap) <= 31 / 32
    assert found(1.0) <= 31 / 32
    assert found(0.0) >= 1 / (num_wrong + 2)
    assert found(0.6 + gap) - found(0.6) == pytest.approx(
        0 if gap < 1e-6 else 31 / 32 - 1 / (num_wrong + 2), abs=1e-6
    )


@pytest.mark.parametrize(
    "judged",
    [
        [],
        simulated(0, 19),
        [Judged(n / 40, True) for n in range(1, 31)],
        [Judged(n / 40, False) for n in range(1, 31)],
        [Judged(0.9, n > 10) for n in range(30)],
        [Judged(1 - c, right) for c, right, _ in simulated(0, 200, slope=3)],
    ],
    ids=["none", "few", "all right", "none right", "one confidence", "the surer the worse"],
)
def test_fit_edge_constant(judged):
    found = fit(judged)
    num_right = sum(one.right for one in judged)
    assert found.slope == 0
    for confidence in (0.0, 0.3, 1.0):
        assert found(confidence) == pytest.approx((num_right + 1) / (len(judged) + 2))


@settings(max_examples=50, deadline=None)
@given(JUDGED, JUDGED)
def test_fit_reports_of_wrong_parts_are_learnt_apart(steps, reports):
    reports = [one._replace(step_id=4) for one in reports]
    steps = [one._replace(step_id=3 + 2 * (n % 2)) for n, one in enumerate(steps)]  # 3 and 5
    found, of_steps, of_reports = fit(steps + reports), fit(steps), fit(reports)
    for confidence in (0.0, 0.4, 0.9, 1.0):
        assert found(confidence, 3) == found(confidence, 5) == of_steps(confidence, 3)
        assert found(confidence, 4) == of_reports(confidence, 4)
        as_steps = fit([one._replace(step_id=0) for one in reports])
        assert of_reports(confidence, 4) == as_steps(confidence, 0)
    # One that has no map of their own takes them like all others.
    alike = dataclasses.replace(found, wrong=None)
    assert alike(0.4, 4) == alike(0.4, 3) == found(0.4, 3)


@pytest.mark.parametrize("seed", range(3))
def test_fit_invariances(seed):
    judged = [Judged(min(c, 0.99), right) for c, right, _ in simulated(seed, 100)]
    found = fit(judged)
    # Chances do not depend on how the confidences say the same, as far as these are told apart.
    other = moved(judged, 0.8, -0.2)
    chances = [found(c) for c, _, _ in judged]
    assert [fit(other)(c) for c, _, _ in other] == pytest.approx(chances)
    mirrored = fit([Judged(1 - c, not right) for c, right, _ in judged])
    assert [1 - mirrored(1 - c) for c, _, _ in judged] == pytest.approx(chances)


@pytest.mark.parametrize("num", [60, 150])
def test_fit_error_of_other_events_falls(num):
    raw, calibrated = [], []
    for seed in range(20):
        found = fit(simulated(seed, num))
        test = simulated(1000 + seed, 1000)
        raw.append(reliability(test)["ece"])
        calibrated.append(reliability([Judged(found(c), right) for c, right, _ in test])["ece"])
    assert np.mean(raw) > 0.12
    assert np.mean(calibrated) < 0.5 * np.mean(raw)
    assert sum(c < r for c, r in zip(calibrated, raw, strict=True)) >= 18


def test_cross_fitted_a_recording_does_not_see_itself():
    recordings = [simulated(seed, 40) for seed in range(4)]
    found = calibration.cross_fitted(recordings)
    turned = [[Judged(c, not right) for c, right, _ in recordings[0]], *recordings[1:]]
    again = calibration.cross_fitted(turned)
    assert [one.confidence for one in again[:40]] == [one.confidence for one in found[:40]]
    assert [one.confidence for one in again[40:]] != [one.confidence for one in found[40:]]
    assert [one.right for one in found] == [one.right for r in recordings for one in r]


def log_loss(judged, calibrated):
    chances = np.array([calibrated(c) for c, _, _ in judged])
    right = np.array([one.right for one in judged])
    return -np.log(np.where(right, chances, 1 - chances)).sum()


@pytest.mark.parametrize(("slope", "kept"), [(1.0, True), (0.3, False)])
def test_fit_if_better_leaves_what_is_right_already(slope, kept):
    """Of true chances, almost always; of overconfident ones with plenty of recordings, never."""
    found = []
    for seed in range(20):
        recordings = [simulated(100 * seed + i, 12, slope, 0.0) for i in range(24)]
        found.append(calibration.fit_if_better(recordings))
        gains = []  # a slow plain version
        for i, own in enumerate(recordings):
            others = fit([one for other in recordings[:i] + recordings[i + 1 :] for one in other])
            gains.append(log_loss(own, calibration.STATED) - log_loss(own, others))
        clear = np.mean(gains) > 2 * scipy.stats.sem(gains)
        every = [one for own in recordings for one in own]
        assert found[-1] == (fit(every) if clear else calibration.STATED)
    assert sum(one is calibration.STATED for one in found) == pytest.approx(20 * kept, abs=2)


@pytest.mark.parametrize("num", [0, 1])
def test_fit_if_better_one_recording_tells_nothing(num):
    assert calibration.fit_if_better([simulated(0, 100)] * num) is calibration.STATED


@given(CHANCES)
def test_stated_is_what_was_stated_but_never_certain(confidence):
    assert calibration.STATED(confidence) == pytest.approx(min(max(confidence, 0.001), 0.999))


def test_calibration_errors():
    for values, message in (
        ((-1.0, 0.0, 0.1, 0.9), "slope -1.0"),
        ((math.nan, 0.0, 0.1, 0.9), "slope nan"),
        ((1.0, math.inf, 0.1, 0.9), "intercept inf"),
        ((1.0, 0.0, 0.0, 0.9), "low 0.0 and high 0.9"),
        ((1.0, 0.0, 0.9, 0.1), "low 0.9 and high 0.1"),
        ((1.0, 0.0, 0.1, 1.0), "low 0.1 and high 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Calibration(*values)


def test_reliability_golden_values():
    judged = [Judged(0.9, n > 0) for n in range(10)] + [Judged(0.5, n > 7) for n in range(10)]
    found = reliability(judged)
    assert found["ece"] == pytest.approx((10 * 0 + 10 * 0.3) / 20)
    assert found["bins"] == [
        {"low": 0.5, "high": 0.5, "events": 10, "confidence": 0.5, "right": 0.2},
        {"low": 0.9, "high": 0.9, "events": 10, "confidence": pytest.approx(0.9), "right": 0.9},
    ]
    assert reliability([]) == {"ece": None, "bins": []}
    assert reliability([Judged(0.25, True)])["ece"] == 0.75


@settings(max_examples=100, deadline=None)
@given(JUDGED, st.randoms())
def test_reliability_bins(judged, random):
    found = reliability(judged)
    bins = found["bins"]
    assert sum(b["events"] for b in bins) == len(judged)
    assert len(bins) <= min(10, max(1, len(judged) // 10))
    assert len(bins) < 2 or min(b["events"] for b in bins) >= 10
    gap = 0.0
    for b in bins:  # bins do not overlap, so equal confidences share one
        own = [(c, right) for c, right, _ in judged if b["low"] <= c <= b["high"]]
        assert len(own) == b["events"]
        assert b["confidence"] == pytest.approx(np.mean([c for c, _ in own]))
        assert b["right"] == pytest.approx(np.mean([right for _, right in own]))
        gap += abs(sum(c for c, _ in own) - sum(right for _, right in own))
    if judged:
        assert found["ece"] == pytest.approx(gap / len(judged))
    random.shuffle(judged)
    assert reliability(judged) == found


@pytest.mark.parametrize(("num", "sizes"), [(29, [15, 14]), (100, [10] * 10), (1000, [100] * 10)])
def test_reliability_bins_of_equally_many(num, sizes):
    bins = reliability([Judged((n + 0.5) / num, True) for n in range(num)])["bins"]
    assert [b["events"] for b in bins] == sizes


@pytest.mark.parametrize(
    ("confidences", "sizes"),
    [
        ([0.1] * 12 + [0.5] * 10 + [0.9] * 8, [12, 18]),  # too few at the end
        ([0.1] * 18 + [0.5] * 2 + [0.9] * 20, [20, 20]),  # between
        ([0.1] * 5 + [0.5] * 14 + [0.9] * 2, [21]),
    ],
)
def test_reliability_too_few_beside_equal_confidences_join_the_bin_before(confidences, sizes):
    bins = reliability([Judged(c, True) for c in confidences])["bins"]
    assert [b["events"] for b in bins] == sizes


def recording(**changes):
    """Component 0 sits wrong in 20…39 and is right from 40 on; 1 is installed at 60."""
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
    (25, 1, 0.1, "asd"),  # sits wrong
    (39, 1, 0.2, "asd"),  # still does
    (40, 1, 0.3, "asd"),  # no more
    (45, 0, 0.4, "asd"),  # correct
    (50, 3, 0.5, "asd"),  # early
    (70, 0, 0.6, "asd"),  # once more
]


def test_judge_golden_values():
    expected = [True, True, False, True, False, False]
    assert judge(EVENTS, recording()) == [
        (e[2], right, e[1]) for e, right in zip(EVENTS, expected, strict=True)
    ]
    none = {"states": np.zeros((0, 2), np.int8), "frames": np.zeros(0, np.int64)}
    assert judge(EVENTS, recording(**none)) == [
        (0.4, True, 0),
        (0.5, False, 3),
        (0.6, False, 0),
    ]
    with_errors = recording(truth=[(20, 1), (40, 0), (60, 3)], with_errors=True)
    expected = [True, False, False, True, False, False]  # one report for one installation
    assert [one.right for one in judge(EVENTS, with_errors)] == expected


def test_table_golden_values():
    judged = [Judged(0.9, n > 0) for n in range(10)] + [Judged(0.5, n > 7) for n in range(10)]
    result = {"streams": {"asd": {"reliability": reliability(judged)}, "storm": {}}}
    rows = calibration.table(result)
    assert [row["confidences"] for row in rows] == ["0.500–0.500", "0.900–0.900", "all"]
    assert rows[-1] == {
        "stream": "asd",
        "confidences": "all",
        "events": 20,
        "confidence": pytest.approx(0.7),
        "right": pytest.approx(0.55),
        "error": pytest.approx(0.15),
    }
    assert rows[0]["error"] == pytest.approx(0.3)
    result["streams"]["asd"]["reliability"] = reliability([])
    assert calibration.table(result) == []


def test_load_result_errors_name_the_field(tmp_path):
    path = tmp_path / "metrics.json"
    row = {"pos": 1.0, "f1": 1.0, "f1_tolerant": 1.0, "delay_s": 0.0, "tp": 1, "fp": 0, "fn": 0}
    whole = {
        **{"protocol": "paper", "fps": 5.0, "components": ["a"], "certain": 0.5},
        "streams": {
            "asd": {
                **row,
                "reliability": reliability([Judged(0.5, True)]),
                "recordings": {"r": {**row, "truth": [], "events": [], "uncertain": [[3, 0, 0.4]]}},
            }
        },
    }
    path.write_text(json.dumps(whole))
    assert analysis.load_result(path) == whole
    known = ("streams", "asd", "reliability")
    for keys, value, message in (
        (("certain",), "high", "certain: 'high' is not in 0…1"),
        ((*known, "ece"), 2, "streams.asd.reliability: ece: 2 is not in 0…1"),
        ((*known, "bins"), 1, "streams.asd.reliability: bins: 1 has the wrong type"),
        ((*known, "bins"), [1], "bins.0.: 1 is not an object"),
        ((*known, "bins", 0, "events"), 0, "bins.0.: events: 0 is not"),
        ((*known, "bins", 0, "right"), 1.5, "bins.0.: right: 1.5 is not in 0…1"),
        (("streams", "asd", "recordings", "r", "uncertain"), [[3]], "uncertain: .3. is not a step"),
    ):
        broken = json.loads(json.dumps(whole))
        place = broken
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        path.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=message):
            analysis.load_result(path)
