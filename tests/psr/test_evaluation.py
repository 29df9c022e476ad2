"""Another frame rate and classes from 0 are noticed; another stream is a file and a line."""

import pathlib

import numpy as np
import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr import evaluation, streams
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.labels import read_steps
from stormpsr_jax.recordings.predictions import Detections, read_detections, read_temporal
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import toy
from tests.support.evaluate_data import make_scored, run_scored
from tests.support.processes import refused
from tests.support.toy_stream import BOTH

SHARED = pathlib.Path(__file__).parents[2] / "../shared"
FPS = 5.0
PROCEDURE = toy.procedure("a, b, c, d", "1000 1100 1110 1111", fps=FPS, variant="up")


def recording(name, seed, *, scale=1.0, tail=100, late=4, first_class=1):
    """Steps at made-up frames, seen `late` frames after; predictions counted `scale` times."""
    rng = np.random.default_rng(seed)
    frames = np.sort(rng.choice(np.arange(100, 1000, 10), 4, replace=False))
    at = np.arange(frames[0] + late, frames[-1] + tail)
    classes = np.searchsorted(frames + late, at, "right") + first_class - 1
    counted, first = np.unique(np.round(at * scale).astype(int), return_index=True)
    sure = np.full(len(first), 0.9)
    detections = Detections(counted, classes[first], sure, np.zeros((len(first), 4)))
    truth = [(int(frame), 3 * k) for k, frame in enumerate(frames)]
    variant = PROCEDURE.variants["up"]
    return LabelledPredictions(name, variant, truth, np.zeros((0, 4), np.int8), detections)


def score(**changes):
    recordings = {str(i): recording(str(i), i, **changes) for i in range(3)}
    return evaluation.evaluate_recordings(PROCEDURE, recordings, Settings(threshold=0.5))


def test_another_rate_is_certain_or_a_warning_and_long_ends_and_late_steps_are_none():
    for scale in (5.0, 2.5, 0.2):
        with pytest.raises(ValueError, match=r"--asd count at another rate.*convert fra") as error:
            score(scale=scale)
        rate = float(str(error.value).partition("such as ")[2].split()[0])
        assert rate == pytest.approx(scale * FPS, rel=0.02)
        assert "Give it as --labels_fps" in str(error.value)
    (warning,) = score(scale=1.2)["warnings"]
    assert "grow 1.2 times as fast" in warning
    for changes in ({}, {"tail": 3000}, {"late": 15}, {"tail": 5}):
        assert score(**changes)["warnings"] == []


def test_classes_from_0_are_a_warning_and_what_agrees_is_said():
    (warning,) = score(first_class=0)["warnings"]
    assert "would if its classes were one higher: class 0 is background" in warning
    (fact,) = score()["checks"]
    assert fact.endswith("agree with the labels; of 12 states after labelled steps it shows 12")


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


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return make_scored(tmp_path_factory.mktemp("scored"))


@pytest.fixture
def fifth(monkeypatch):
    """The line."""
    monkeypatch.setattr(streams, "STREAMS", (*streams.STREAMS, BOTH))


def test_a_fifth_stream_is_scored_and_shown_and_changes_no_other(scored, fifth, capsys):
    found = run_scored(scored, f"--report={scored / 'r.html'}", "--threshold=both=4")
    assert list(found) == ["asd", "temporal", "storm", "both"]
    assert found["both"]["settings"] == {"pictures": 4.0}
    assert found["both"]["tp"] > 10
    shown = (scored / "r.html").read_text()
    assert "Both agree" in shown
    assert "<th>Pictures</th>" in shown
    assert "var(--amber)" in shown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "STREAMS", streams.STREAMS[:-1])
        assert run_scored(scored) == {s: found[s] for s in ("asd", "temporal", "storm")}
    # A number alone is meant for those that sum up evidence.
    assert run_scored(scored, "--threshold=9")["both"]["settings"] == {"pictures": 2.0}
    capsys.readouterr()
    run_scored(scored, streams=("asd",))
    assert "no both stream: it needs --asd and --temporal" in capsys.readouterr().err
    for flag, message in (
        ("--gate=both=1", "--gate: stream both has none"),
        ("--threshold=both=0", "pictures 0.0 is not a number from 1 up"),
        ("--threshold=neither=1", "neither a number nor like asd=6"),
    ):
        assert message in refused(capsys, run_scored, scored, flag)
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert "both=2 is the number of pictures" in " ".join(capsys.readouterr().out.split())
    assert "both" not in run_scored(scored, "--protocol=released")
    assert "both" not in run_scored(scored, "--decoder=naive", "--threshold=1")
