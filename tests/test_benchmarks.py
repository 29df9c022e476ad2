"""The quick benchmarks run to their end, on as little as they take: so that none rots unseen."""

import sys

import pytest
from processes_of_tests import ROOT, finish, start
from tiny import TINY, flags_of

# Its fields that shape networks and batches: data of their own have other recordings.
FIELDS = ("init_from", "window", "encoder", "temporal_model", "detector", "pretrain", "temporal")
SHAPES = {field: value for field, value in TINY.items() if field.split(".")[0] in FIELDS}
CONFIG = " ".join(["--config=synthetic --size=32", *flags_of(SHAPES)])
SMALL = {
    "data_preparation.py": ("--frames=2 --workers=1 --rounds=1", "pictures agree within"),
    "data_wait.py": (
        f"--stages=finetune --steps=2 --seconds=0.1 {CONFIG} --config.finetune.batch=2",
        "| finetune | batch 2, as configured | 10 |",
    ),
    "input_pipeline.py": (
        "--rounds=1 --seconds=0.1 --frames=300 --recordings=1 --pictures=2 --width=192 "
        "--height=108",
        "| embeddings / released code |",
    ),
    "live.py": (
        f"--frames=16 --windows=1 --rounds=1 --seconds=2 --hours=0.002 {CONFIG} "
        "--config.predict.batch=8",
        "| files / real time",
    ),
    "recognition.py": (
        f"--frames=16 --windows=1 --rounds=1 {CONFIG} --config.predict.batch=8",
        "once / every window:",
    ),
    "supcon.py": (
        "--memory_devices=4 --devices=2 --block=8 --memory_batches=32 --batches=32 --runs=1",
        "blockwise, s | plain / blockwise |\n|---|---|---|---|\n| 32 |",
    ),
    "train_step.py": (
        f"--stages=temporal --devices=2 --steps=1 --matmul=64 {CONFIG}",
        "| temporal | 2 | 80 |",
    ),
    "watchers.py": ("--watchers=2 --seconds=1", "\n| 2 | "),
    "zip_index.py": ("--members=5000 --recordings=5", "\n| next process, all streams | "),
}


@pytest.mark.parametrize("script", SMALL)
def test_benchmarks_property_run_to_their_end(script):
    arguments, last = SMALL[script]
    process = start([sys.executable, ROOT / "benchmarks" / script, *arguments.split()])
    assert last in finish(process)[0]
