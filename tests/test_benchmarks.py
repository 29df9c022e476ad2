"""The quick benchmarks run to their end, on as little as they take: so that none rots unseen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "data_preparation.py": ("--frames=2 --workers=1 --rounds=1", "pictures agree within"),
    "input_pipeline.py": (
        "--rounds=1 --seconds=0.1 --frames=300 --recordings=1 --pictures=2 --width=192 "
        "--height=108",
        "| embeddings / released code |",
    ),
}


@pytest.mark.parametrize("script", SMALL)
def test_benchmarks_property_run_to_their_end(script):
    arguments, last = SMALL[script]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *arguments.split()],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert last in done.stdout
