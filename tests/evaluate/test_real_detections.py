"""Detections that IndustReal's authors publish: the rows of the page, which `evaluate` gives."""

import json
import pathlib

import pytest

from stormpsr_jax import evaluate

ROOT = pathlib.Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "industreal_real"
PAGE = ROOT / "benchmarks" / "results" / "noise.md"
T8 = ("--threshold=8", "--confidence=0.25")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real detections are not here")
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
