"""What does not fit the labels, clocks and classes, is noticed; good predictions never are."""

import pathlib

import numpy as np
import pytest

from stormpsr_jax.psr import agreement, evaluation
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.labels import read_steps
from stormpsr_jax.recordings.predictions import Detections, read_detections, read_temporal
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import toy

SHARED = pathlib.Path(__file__).parents[2] / "../shared"
FPS = 5.0
PROCEDURE = toy.procedure("a, b, c, d", "1000 1100 1110 1111", fps=FPS, variant="up")
FIVE = toy.procedure("a, b, c, d, e", "10000 11000 11100 11110 11111", fps=10)
NONE = np.zeros((0, 4), np.int8)


def recording(name, seed, *, scale=1.0, tail=100, late=4, visibility=None):
    """Steps at made-up frames, seen `late` frames after; predictions counted `scale` times."""
    rng = np.random.default_rng(seed)
    frames = np.sort(rng.choice(np.arange(100, 1000, 10), 4, replace=False))
    at = np.arange(0, frames[-1] + tail)
    classes = np.searchsorted(frames + late, at, "right")
    counted = np.round(at * scale).astype(int)
    counted, first = np.unique(counted, return_index=True)
    detections = Detections(
        counted, classes[first], np.full(len(first), 0.9), np.zeros((len(first), 4))
    )
    truth = [(int(frame), 3 * k) for k, frame in enumerate(frames)]
    variant = PROCEDURE.variants["up"]
    return LabelledPredictions(name, variant, truth, NONE, detections, None, visibility)


def score(**changes):
    recordings = {str(i): recording(str(i), i, **changes) for i in range(3)}
    return evaluation.evaluate_recordings(PROCEDURE, recordings, Settings(threshold=0.5))


def test_another_rate_is_certain_or_a_warning_and_long_ends_and_late_steps_are_none():
    for scale in (5.0, 2.5, 0.2):
        with pytest.raises(ValueError, match=r"--asd count at another rate.*convert fra") as error:
            score(scale=scale)
        rate = float(str(error.value).partition("such as ")[2].split()[0])
        assert rate == pytest.approx(scale * FPS, rel=0.02)
    (warning,) = score(scale=1.2)["warnings"]
    assert "grow 1.2 times as fast" in warning
    for changes in ({}, {"tail": 3000}, {"late": 15}, {"tail": 5}):
        assert score(**changes)["warnings"] == []


@pytest.mark.parametrize("name", ["industreal", "meccano"])
def test_check_no_false_alarms_on_golden_inputs(name):
    golden = SHARED / "golden" / name
    if not golden.exists():
        pytest.skip("the golden files are not here")
    procedure = load_procedure(name)
    labels = golden / "labels"
    if name == "meccano":
        labels = SHARED / "data" / "meccano_psr_labels"
    recordings, profile = {}, golden / "noisy"
    for path in sorted((profile / "asd").glob("*_results_pred.csv")):
        key = path.name.removesuffix("_results_pred.csv")
        (folder,) = labels.glob(f"**/{key}")
        recordings[key] = LabelledPredictions(
            key,
            procedure.variant_for(key),
            read_steps(folder / "PSR_labels.csv", procedure),
            np.zeros((0, procedure.num_components), np.int8),
            read_detections(path, procedure),
            read_temporal(profile / "temporal" / path.name, procedure),
        )
    settings = Settings(threshold=1.0)
    assert evaluation.evaluate_recordings(procedure, recordings, settings)["warnings"] == []


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
    rng, variant, found, truths = np.random.default_rng(0), FIVE.variants["all"], [], []
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
    (fact,), warnings = agreement.check(FIVE, recordings)
    assert "frames with a state agree with the labels; of 25 states after labelled" in fact
    assert [said in warning for warning in warnings] == [True] * (said is not None)
