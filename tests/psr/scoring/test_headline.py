"""One table of headline figures: a row in it and a value in the scores are all that one needs."""

import json

import pytest

from stormpsr_jax.psr.evaluation import analysis, compare, released
from stormpsr_jax.psr.scoring import headline, metrics

EXTRA = (
    headline.Figure("cost", "Cost", "What it costs.", "€", 2, "low", mean=True),
    headline.Figure("alarms", "Alarms", "Their number."),
)
TRUTH = {"r1": [(10, 0), (20, 3)], "r2": [(10, 0)], "r3": [(5, 0)]}
EVENTS = {"r1": [(12, 0), (25, 3)], "r2": [(11, 0)], "r3": []}


@pytest.fixture
def extended(monkeypatch):
    """A result with two figures more."""
    figures = (*headline.FIGURES, *EXTRA)
    monkeypatch.setattr(headline, "FIGURES", figures)
    rows = {
        name: {
            **metrics.score_recording(truth, EVENTS[name], 10),
            "cost": 3.0 * i if i else None,
            "alarms": i,
            "contains_errors": False,
            "truth": [list(step) for step in truth],
            "events": [[*step, 0.9] for step in EVENTS[name]],
        }
        for i, (name, truth) in enumerate(TRUTH.items())
    }
    stream = {**metrics.summarise(rows), "recordings": rows}
    return {
        "protocol": "paper",
        "decoder": "expected",
        "fps": 10,
        "components": ["a", "b"],
        "streams": {"asd": stream},
    }


def test_headline_a_new_figure_is_in_tables_files_comparisons_and_reports(extended, tmp_path):
    assert extended["streams"]["asd"]["cost"] == 4.5
    assert extended["streams"]["asd"]["undefined"]["cost"] == 1
    assert extended["streams"]["asd"]["alarms"] == 3
    summary = analysis.summary_table(extended)
    assert (summary[0]["cost"], summary[0]["alarms"]) == (4.5, 3)
    assert [row["alarms"] for row in analysis.recordings_table(extended)] == [0, 1, 2]
    row = {r["metric"]: r for r in compare.compare(extended, extended, samples=10)}["cost"]
    assert (row["a"], row["difference"], row["recordings"]) == (4.5, 0, 2)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(extended))
    assert analysis.load_result(path) == extended


def test_headline_released_means_count_every_recording():
    entry = {"f1": 0.5, "f1_tolerant": None, "delay_s": 0.0, "tp": 1, "fn": 2}
    rows = {str(i): {**entry, "pos": p, "fp": i} for i, p in enumerate((0.25, 1.0))}
    found = released.summarise(rows)
    sums = {"tp": 2, "fp": 1, "fn": 4}
    assert found == {"pos": 0.625, "f1": 0.5, "f1_tolerant": None, "delay_s": 0.0, **sums}
