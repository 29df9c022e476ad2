"""Detections that are drawn at random: what they are, and that they are wrong as real ones are."""

import pathlib

import numpy as np
import pytest

from stormpsr_jax.psr.evaluation import noise, scoring
from stormpsr_jax.psr.files import scores
from stormpsr_jax.psr.files.recordings import load_recordings
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.psr.scoring import wrong_parts
from stormpsr_jax.psr.streams import learned, learned_weights, rules
from tools import drawn_detections

INDUSTREAL = load_procedure("industreal")
REAL = pathlib.Path(__file__).parents[2] / "shared" / "data" / "industreal_real"
# By figure of `evaluate noise`, of the 17 real recordings (benchmarks/results/noise.md).
REAL_FIGURES = {
    "frames with a detection above 0.5": 0.111,
    "time in gaps of more than 10 s without one": 0.780,
    "catalogued state, right": 0.960,
    "error reported at all": 0.010,
    "error reported during an incorrect installation": 0.045,
    "incorrect installation shown as correct": 0.562,
    "wrong frames": 0.136,
    "of these in runs of 8 or more": 0.682,
    "median confidence when wrong, above 0.5": 0.738,
    "median confidence when wrong, at any": 0.549,
}


def drawn(procedure, count, seed=0, **options):
    rng, variants = np.random.default_rng(seed), list(procedure.variants.values())
    return {
        str(i): drawn_detections.draw(procedure, variants[i % len(variants)], rng, **options)
        for i in range(count)
    }


def test_drawn_detections_are_wrong_as_real_ones_are():
    found = {
        row["figure"]: row["value"]
        for row in noise.table(noise.measure(INDUSTREAL, drawn(INDUSTREAL, 400)))
    }
    off = {k: found[k] / v for k, v in REAL_FIGURES.items() if not 1 / 1.5 < found[k] / v < 1.5}
    assert not off


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared")
def test_learned_fusion_of_real_detections_is_no_worse_than_the_best_decoder():
    """At each figure, of 17 recordings that the weights were not fitted to."""
    recordings = load_recordings(INDUSTREAL, REAL / "labels", REAL / "asd")
    for r in recordings.values():
        r.scores = scores.from_predictions(r.detections, None, INDUSTREAL)
    weights = learned_weights.default_weights("detections")
    expected = rules.Settings(threshold=6, decay=1.0, confidence=0.5)
    result = scoring.evaluate_recordings(
        INDUSTREAL,
        recordings,
        {"asd": expected, "learned": learned.LEARNED.defaults(weights)},
        weights=weights,
    )
    asd, own = (result["streams"][name] for name in ("asd", "learned"))
    accepted = {row["stream"]: row["accepted"] for row in wrong_parts.summary_table(result)}
    assert own["pos"] >= asd["pos"]
    assert own["f1"] >= asd["f1"]
    assert own["delay_s"] <= asd["delay_s"]
    assert accepted["learned"] <= accepted["asd"]
