"""The selection rule on made-up recordings whose best settings are known."""

import numpy as np
import pytest

from stormpsr_jax.psr import batch, decoding, metrics, select
from stormpsr_jax.psr.predictions import Detections, TemporalPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.recordings import LabelledPredictions

FPS = 5.0
PROCEDURE = Procedure.from_json(
    {
        "name": "toy",
        "fps": FPS,
        "components": ["a", "b"],
        "states": ["10", "11"],
        "variants": {"up": {"initial_state": "00", "expected": [0, 3], "recordings": ["*"]}},
    }
)
BASE = decoding.Settings(window=20)


def recording(name, seed, weak=0.0):
    """Steps at 50 and 100; sure detections from 60 and 110 on, weak wrong ones all the time."""
    rng = np.random.default_rng(seed)
    frames = np.arange(160)
    classes = np.where(frames < 60, 0, np.where(frames < 110, 1, 2))
    confidences = np.where(classes > 0, 0.95, 0.0)
    wrong = rng.random(160) < weak
    classes = np.where(wrong, 2, classes)
    confidences = np.where(wrong, 0.65, confidences)
    conf = np.full((160, 2), 0.1)
    conf[50:70, 0] = conf[100:120, 1] = 0.9
    zeros = np.zeros((160, 2), int)
    return LabelledPredictions(
        name,
        PROCEDURE.variants["up"],
        [(50, 0), (100, 3)],
        np.zeros((0, 2), np.int8),
        Detections(frames, classes, confidences, np.zeros((160, 4))),
        TemporalPredictions(frames, zeros, zeros, conf),
    )


def test_select_property_floor_rejects_weak_wrong_detections():
    recordings = {str(i): recording(str(i), i, weak=0.3) for i in range(3)}
    choices = select.select(PROCEDURE, recordings, BASE)
    assert list(choices) == ["asd", "temporal", "storm"]
    assert choices["asd"].settings.confidence >= 0.7
    assert (choices["asd"].f1, choices["asd"].pos) == (1, 1)
    assert 10 / FPS <= choices["asd"].delay_s < 20 / FPS
    assert choices["temporal"].settings.threshold == min(select.THRESHOLDS)
    assert choices["storm"].delay_s < choices["asd"].delay_s


@pytest.mark.parametrize("decoder", ["naive", "expected"])
def test_select_matches_plain_search(decoder):
    recordings = {"0": recording("0", 0, weak=0.1)}
    base = decoding.Settings(window=20, decoder=decoder)
    choices = select.select(PROCEDURE, recordings, base)
    assert ("storm" in choices) == (decoder != "naive")
    for stream, choice in choices.items():
        best = -np.inf
        for confidence in select.CONFIDENCES:
            for weight in select.WEIGHTS:
                for threshold in select.THRESHOLDS:
                    s = decoding.Settings(decoder, threshold, 0.75, weight, 20, confidence)
                    scores = []
                    for r in recordings.values():
                        events = batch.decode(
                            PROCEDURE, r.variant, stream, s, r.detections, r.temporal
                        )
                        steps = [(e.frame, e.step_id) for e in events]
                        scores.append(metrics.score_recording(r.truth, steps, FPS))
                    delays = [x["delay_s"] for x in scores if x["delay_s"] is not None]
                    if delays:
                        mean = sum(x["f1"] + x["pos"] for x in scores) / len(scores)
                        lag = sum(delays) / len(delays) * FPS / 20
                        best = max(best, mean - select.DELAY_PRICE * lag)
        assert choice.score == pytest.approx(best)


def test_available_streams_property_only_what_is_there():
    r = recording("0", 0)
    r.temporal = None
    assert select.available_streams({"0": r}, "expected") == ["asd"]
    assert list(select.select(PROCEDURE, {"0": r}, BASE)) == ["asd"]
