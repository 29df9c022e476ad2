import pathlib

import pytest

from stormpsr_jax.psr import evaluation, learned_beliefs, learned_stream, wrong_parts
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.recordings import scores
from stormpsr_jax.recordings.evaluation_set import load_recordings
from stormpsr_jax.recordings.procedure import load_procedure

INDUSTREAL = load_procedure("industreal")
REAL = pathlib.Path(__file__).parents[2] / "shared" / "data" / "industreal_real"


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared")
def test_learned_fusion_of_real_detections_is_no_worse_than_the_best_decoder():
    """At each figure, of 17 recordings that the weights were not fitted to."""
    recordings = load_recordings(INDUSTREAL, REAL / "labels", REAL / "asd")
    for r in recordings.values():
        r.scores = scores.from_predictions(r.detections, None, INDUSTREAL)
    weights = learned_beliefs.default_weights("detections")
    expected = Settings(threshold=6, decay=1.0, confidence=0.5)
    result = evaluation.evaluate_recordings(
        INDUSTREAL,
        recordings,
        {"asd": expected, "learned": learned_stream.LEARNED.defaults(weights)},
        weights=weights,
    )
    asd, own = (result["streams"][name] for name in ("asd", "learned"))
    accepted = {row["stream"]: row["accepted"] for row in wrong_parts.summary_table(result)}
    assert own["pos_sets"] >= asd["pos_sets"]
    assert own["f1"] >= asd["f1"]
    assert own["delay_s"] <= asd["delay_s"]
    assert accepted["learned"] <= accepted["asd"]
