"""Detections that IndustReal's authors publish: the rows of the page, which `evaluate` gives."""

import json
import pathlib

import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr import evaluation, learned_beliefs, learned_stream, wrong_parts
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.recordings import scores
from stormpsr_jax.recordings.evaluation_set import load_recordings
from stormpsr_jax.recordings.procedure import load_procedure

ROOT = pathlib.Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "industreal_real"
PAGE = ROOT / "benchmarks" / "results" / "noise.md"
INDUSTREAL = load_procedure("industreal")
T8 = ("--threshold=8", "--confidence=0.25")
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real detections are not here")


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ("| B1 |", ["--decoder=naive"]),
        ("| B2, T 6, floor .5 |", ["--decoder=confidence"]),
        ("| B3, T 6, floor .5 |", []),
        ("| B2, T 8, floor .25 |", ["--decoder=confidence", *T8]),
        ("| B3, T 8, floor .25 |", T8),
    ],
)
def test_rows_and_decays_of_real_detections_are_those_of_the_page(tmp_path, row, flags):
    decays = [[]] if "B1" in row else [[], ["--unseen_decay=1"], ["--decay=1"]]
    cells = [" / ".join(scored(tmp_path, *flags, *decay)) for decay in decays]
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(row)]
    assert [cell.strip() for cell in line.split("|")[2 : 2 + len(cells)]] == cells


def scored(folder, *flags):
    """POS, F1, and delay with the wrong parts accepted, as the page writes them."""
    out = folder / "metrics.json"
    given = [f"--labels={REAL / 'labels'}", f"--asd={REAL / 'asd'}", "--procedure=industreal"]
    evaluate.main([*given, *flags, f"--out={out}"])
    found = json.loads(out.read_text())["streams"]["asd"]
    pos, f1 = (f"{found[key]:.3f}".removeprefix("0") for key in ("pos", "f1"))
    return pos, f1, f"{found['delay_s']:.1f} s, {found['wrong']['accepted']}"


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
