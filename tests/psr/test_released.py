import gzip
import json
import pathlib

import numpy as np
import pytest

from stormpsr_jax.psr import released
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.recordings import labels, predictions
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import load_procedure

COMMITTED = pathlib.Path(__file__).parents[0] / "golden"
SHARED = pathlib.Path(__file__).parents[2] / "../shared"
NAMES = {"avg_delay": "delay_frames", "system_TPs": "tp", "system_FPs": "fp", "system_FNs": "fn"}
NAMES |= {"perception_FNs": "perception_fn", "perception_FPs": "perception_fp"}
# The whole takes a minute.
FULL = ["committed", pytest.param("full", marks=pytest.mark.system)]
STREAM = {"asd": "asd", "temporal": "temporal", "fusion": "storm"}


def golden_root(name):
    root = COMMITTED if name == "committed" else SHARED / "golden"
    if not (root / "expected.json.gz").exists():
        pytest.skip("the full golden outputs are not beside the repository")
    return root


def load(path):
    with gzip.open(path, "rt") as file:
        return json.load(file)


def detections_of(rows):
    frames, classes, confidences = np.array(rows, float).reshape(-1, 3).T
    order = np.argsort(frames, kind="stable")
    boxes = np.zeros((len(frames), 4))
    return predictions.Detections(
        frames[order].astype(np.int64), classes[order].astype(int), confidences[order], boxes
    )


def temporal_of(rows, num_components):
    frames = np.array([row[0] for row in rows], np.int64)
    predicted, confidences = (
        np.array([row[i] for row in rows], dtype).reshape(len(rows), num_components)
        for i, dtype in ((1, np.int64), (2, float))
    )
    return predictions.TemporalPredictions(frames, predicted, predicted, confidences)


def read_inputs(root, run, procedure, tmp_path):
    """Detections and temporal predictions of a run, or None where they are not committed."""
    streams = []
    for stream, read in (
        ("asd", predictions.read_detections),
        ("temporal", predictions.read_temporal),
    ):
        name = f"{run['dataset']}/{run['profile']}/{stream}/{run['rec']}_results_pred.csv"
        path = root / name
        if not path.exists():
            packed = root / f"{name}.gz"
            if not packed.exists():
                return None
            path = tmp_path / f"{stream}_{run['rec']}.csv"
            path.write_bytes(gzip.decompress(packed.read_bytes()))
        streams.append(read(path, procedure))
    return streams


def read_truth(root, run, procedure):
    folder = root / "labels" / run["rec"]
    if root != COMMITTED:
        folder = root / "industreal" / "labels" / run["rec"]
        if run["dataset"] == "meccano":
            folder = SHARED / "data" / "meccano_psr_labels" / run["split"] / run["rec"]
    steps = labels.read_steps(folder / "PSR_labels.csv", procedure)
    return steps, labels.read_states(folder / "PSR_labels_raw.csv", procedure)[1]


@pytest.mark.parametrize("root", FULL)
def test_decode_golden_fuzz_streams(root):
    root = golden_root(root)
    num_runs = 0
    for stream in load(root / "fuzz_streams.json.gz"):
        case = stream["case"]
        procedure = load_procedure(case["dataset"])
        variant = next(iter(procedure.variants.values()))
        if len(procedure.variants) > 1:
            variant = procedure.variant_for(case["name"])
        detections = detections_of(case["asd"])
        temporal = temporal_of(case["temporal"], procedure.num_components)
        for run in stream["expected"]:
            if run["error"]:  # naive fusion
                continue
            weight = 0.5 if run["w"] is None else run["w"]
            settings = Settings(run["impl"], run["thr"], weight=weight, window=case["win"])
            events = released.decode(
                procedure, variant, STREAM[run["stream"]], settings, detections, temporal
            )
            assert [list(event) for event in events] == run["steps"], (case["id"], run["stream"])
            num_runs += 1
    assert num_runs == (29 if root == COMMITTED else 200) * 12


def check(scores, names, expected):
    found = [scores[name] for name in names]
    assert np.abs(np.subtract(found, expected)).max() <= 1e-9, (found, expected)


@pytest.mark.parametrize("root", FULL)
def test_decode_and_score_golden_runs(root, tmp_path):
    root = golden_root(root)
    expected = load(root / "expected.json.gz")
    names = [NAMES.get(name, name) for name in expected["metric_order"]]
    inputs, truths, num_decoded = {}, {}, 0
    for run in expected["runs"]:
        procedure = load_procedure(run["dataset"])
        variant = procedure.variant_for(run["rec"])
        recording = run["dataset"], run["rec"]
        profile = (*recording, run["profile"])
        if profile not in inputs:
            inputs[profile] = read_inputs(root, run, procedure, tmp_path)
        if recording not in truths:
            truths[recording] = read_truth(root, run, procedure)
        truth, states = truths[recording]
        events = [(frame, step, 1.0) for frame, step in run["steps"]]
        stream = STREAM[run["stream"]]
        left = {"m_None": None, "m_256": 256}
        if inputs[profile] is not None:
            weight = 0.5 if run["w"] is None else run["w"]
            settings = Settings(run["impl"], run["thr"], weight=weight)
            r = LabelledPredictions("x", variant, truth, states, *inputs[profile])
            entry = released.evaluate_recording(procedure, r, stream, settings, 2.0)
            assert [tuple(event) for event in entry["events"]] == events, profile
            key = "m_None" if stream == "asd" else "m_256"
            left.pop(key)
            check(entry, names, run[key])
            assert entry["delay_s"] == pytest.approx(entry["delay_frames"] / 2, abs=1e-9)
            num_decoded += 1
        for key, window in left.items():
            check(released.score_recording(truth, events, window), names, run[key])
        errors = released.contains_errors(truth, states, variant)
        assert errors == run["video_contains_errors"]
    assert num_decoded == (66 if root == COMMITTED else 1408)


def test_score_recording_reordering_worked_by_hand():
    truth = [(50, 0), (60, 3), (400, 6)]
    for predicted, pos in (
        ([(100, 3), (355, 0), (500, 6)], 1.0),  # two neighbours are swapped, 255 frames apart
        ([(100, 3), (356, 0), (500, 6)], 2 / 3),  # 256 frames are not less than the window
        ([(100, 6), (101, 3), (102, 0)], 1 / 3),  # 6 3 0 → 3 6 0, where 6 0 are no neighbours
        ([(0, 0), (0, 3), (0, 6)], 1.0),
    ):
        scores = released.score_recording(truth, [(*step, 1.0) for step in predicted], 256)
        assert scores["pos"] == pytest.approx(pos)


def test_means_of_recordings_count_every_recording():
    entry = {"f1": 0.5, "f1_tolerant": None, "delay_s": 0.0, "tp": 1, "fn": 2}
    rows = {str(i): {**entry, "pos": p, "fp": i} for i, p in enumerate((0.25, 1.0))}
    sums = {"tp": 2, "fp": 1, "fn": 4}
    expected = {"pos": 0.625, "f1": 0.5, "f1_tolerant": None, "delay_s": 0.0, **sums}
    assert released.summarise(rows) == expected
