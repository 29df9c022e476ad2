"""The noise of detections by hand and on real ones."""

import csv
import io
import json
import pathlib

import numpy as np
import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr.evaluation import noise
from stormpsr_jax.psr.files.predictions import Detections
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure

FPS = 2.0
STATES = ("000", "100", "110", "111")
PROCEDURE = Procedure.from_json(
    {
        "name": "toy",
        "fps": FPS,
        "components": ["a", "b", "c"],
        "states": list(STATES),
        "variants": {"up": {"initial_state": "000", "expected": [0, 3, 6], "recordings": ["*"]}},
    }
)
ERROR = len(STATES) + 1


def recording(name, states, rows, truth=()):
    """From {frame: state} and {frame: [(class, confidence)]}."""
    flat = [(f, c, p) for f, of_frame in sorted(rows.items()) for c, p in of_frame]
    columns = np.array(flat, float).reshape(-1, 3).T
    return LabelledPredictions(
        name,
        PROCEDURE.variants["up"],
        list(truth),
        np.array([states[f] for f in sorted(states)], np.int8),
        Detections(*columns[:2].astype(int), columns[2], np.zeros((len(flat), 4))),
        frames=np.array(sorted(states), np.int64),
    )


def test_figures_golden():
    """By hand, two frames a second: a gap of 11 s, a long run of wrong frames."""
    states = {0: (0, 0, 0), 10: (1, 0, 0), 60: (1, -1, 0)}
    rows = {f: [(1, 0.9)] for f in range(10)}  # right
    rows |= {f: [(2, 0.8), (4, 0.3)] for f in range(10, 20)}  # right; the surest row counts
    rows |= {f: [(3, 0.6)] for f in range(42, 60)}  # b too many, as far as to a change
    rows |= {60: [(3, 0.7)], 61: [(ERROR, 0.7)], 62: [(2, 0.7)], 63: [(2, 0.1)]}
    found = noise.measure(PROCEDURE, {"r": recording("r", states, rows)}, 0.5)

    def share(count, of):
        return {"count": count, "of": of, "share": count / of}

    assert found["seen"] == share(41, 64)
    assert found["gaps"] == {"time": share(22, 64), "number": 1, "longest_s": 11.0}
    assert found["catalogued_right"] == share(20, 38)
    assert found["wrong"] == share(20, 41)
    assert found["wrong_part_says_error"] == share(1, 3)
    assert found["wrong_part_right"] == share(1, 3)
    kinds = {kind: one["count"] for kind, one in found["kinds"].items() if one["count"]}
    assert kinds == {"too_many": 18, "wrong_part_right": 1, "wrong_part_absent": 1}
    assert found["long_runs"] == share(19, 20)
    assert found["near_change"] == share(6, 20)
    assert found["wrong_confidence"] == 0.6


# --- The authors' real detections -----------------------------------------------------------------

REAL = pathlib.Path(__file__).parents[4] / "shared" / "data" / "industreal_real"
PAGE = pathlib.Path(__file__).parents[3] / "benchmarks" / "results" / "noise.md"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real detections are not here")


@real
def test_the_command_prints_the_table_of_the_page(tmp_path, capsys):
    flags = [f"--labels={REAL / 'labels'}", f"--asd={REAL / 'asd'}", "--procedure=industreal"]
    out = tmp_path / "noise.json"
    evaluate.main(["noise", *flags, "--format=csv", f"--out={out}"])
    table, by_confidence = (
        list(csv.DictReader(io.StringIO(text)))
        for text in capsys.readouterr().out.strip().split("\n\n")
    )
    result = json.loads(out.read_text())
    assert [float(row["value"]) for row in table] == [row["value"] for row in noise.table(result)]
    assert [row["confidence"] for row in by_confidence][-1] == "0.9–1"
    page = PAGE.read_text().splitlines()
    for row in table:
        (line,) = [line for line in page if line.startswith(f"| {row['figure']} |")]
        assert line.split("|")[2].strip() == f"{float(row['value']):.3f}".removeprefix("0"), line
