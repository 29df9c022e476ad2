"""The quick benchmarks run to their end, on as little as they take: so that none rots unseen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = (
    "--config=configs/synthetic.py --size=32 --config.init_from= --config.encoder.depth=1 "
    "--config.encoder.width=32 --config.encoder.num_heads=2 --config.encoder.stem=() "
    "--config.temporal_model.depth=1 --config.temporal_model.mlp_dim=32 --config.window.frames=8"
)
SMALL = {
    "data_preparation.py": ("--frames=2 --workers=1 --rounds=1", "pictures agree within"),
    "data_wait.py": (
        f"--stages=finetune --steps=2 --seconds=0.1 {TINY} --config.finetune.batch=2",
        "| finetune | batch 2, as configured | 6 |",
    ),
    "input_pipeline.py": (
        "--rounds=1 --seconds=0.1 --frames=300 --recordings=1 --pictures=2 --width=192 "
        "--height=108",
        "| embeddings / released code |",
    ),
    "recognition.py": (
        f"--frames=16 --windows=1 --rounds=1 {TINY} --config.predict.batch=8",
        "once / every window:",
    ),
    "supcon.py": (
        "--memory_devices=4 --devices=2 --block=8 --memory_batches=32 --batches=32 --runs=1",
        "blockwise, s | plain / blockwise |\n|---|---|---|---|\n| 32 |",
    ),
    "train_step.py": (
        f"--stages=temporal --devices=2 --steps=1 --matmul=64 {TINY} --config.temporal.batch=2",
        "| temporal | 2 | 6 |",
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
