"""Scores and events as they are pinned in tests/golden/metrics.json.

A change that is meant to alter them remakes the file with `UPDATE_GOLDEN=1 pytest` on this test.
"""

import json
import os
from pathlib import Path

import pytest

from tests.support.evaluate_data import run, run_scored

GOLDEN = Path(__file__).parents[1] / "golden/metrics.json"


def kept(value):
    """The same, without settings (which carry paths and words) and with rounded floats."""
    if isinstance(value, dict):
        return {key: kept(item) for key, item in value.items() if key != "settings"}
    if isinstance(value, list):
        return [kept(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def test_metrics_and_events_are_the_pinned_ones(files, scored):
    scores = f"--scores={scored / 'scores'}"
    streams = {
        "paper": run(files)["streams"],
        "released": run(files, "--protocol=released")["streams"],
        "confidence": run(files, "--decoder=confidence")["streams"],
        "scores": run_scored(scored, scores),
        "scores at risk 1": run_scored(scored, scores, "--risk=1"),
        "detections alone": run_scored(scored, "--fusion=default", streams=("asd",)),
    }
    streams = json.loads(json.dumps(kept(streams)))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(streams) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert flat(streams) == pytest.approx(flat(golden), abs=2e-6)


def flat(value, name=""):
    """A dictionary of the leaves; what is no number is part of the key."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in items for k, v in flat(item, f"{name}/{key}").items()}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {name: value}
    return {f"{name}={value}": 0}
