"""The benchmark of live recognition runs to its end; tables are made from what was kept."""

import json
import sys

import pytest

from benchmarks import record
from tests.support.processes import finish, start
from tests.support.tiny import TINY, flags_of

# Its fields that shape networks and batches: data of their own have other recordings.
FIELDS = ("init_from", "window", "encoder", "temporal_model", "detector", "pretrain", "temporal")
SHAPES = {field: value for field, value in TINY.items() if field.split(".")[0] in FIELDS}
CONFIG = " ".join(["--config=synthetic --size=32", *flags_of(SHAPES)])
LIVE = f"-m benchmarks.live --frames=16 --windows=1 --rounds=1 --seconds=2 --hours=0.002 {CONFIG}"


@pytest.mark.system
def test_the_benchmark_of_live_recognition_runs_to_its_end():
    words = f"{LIVE} --config.predict.batch=8".split()
    assert "| files / real time" in finish(start([sys.executable, *words]))[0]


@pytest.mark.parametrize("path", record.RESULTS.glob("*.json"), ids=lambda path: path.name)
def test_tables_are_made_from_the_kept_results(path):
    content = json.loads(path.read_text("utf-8"))
    assert path.with_suffix(".md").read_text("utf-8") == record.markdown(path.stem, content)
