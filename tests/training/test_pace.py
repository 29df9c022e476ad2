import types

import numpy as np
import pytest

from stormpsr_jax.training import pace
from stormpsr_jax.training.metrics import read_metrics
from tests.support.loop_toy import BATCH, run


def test_pace_rates_are_those_of_the_time_that_steps_take(monkeypatch):
    clock = types.SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(pace, "time", clock)
    device = types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    mesh = types.SimpleNamespace(devices=np.array([device] * 8), size=8)
    found = pace.Pace(10, mesh, "bfloat16", "clips")
    found.rows, found.operations = 256, 989 * 10**12
    with found.apart():
        clock.now += 50  # compilation
    with found.waiting():
        clock.now += 1
    clock.now += 3
    assert found.lap(18) == {
        "steps_per_second": 2.0,
        "clips_per_second": 512.0,
        "data_wait_share": 0.25,
        "flops_per_second": 2 * 989e12,
        "peak_share": 2 / 8,
    }
    with found.apart():
        clock.now += 9  # evaluation
    clock.now += 2
    assert found.lap(20)["steps_per_second"] == 1.0


def test_every_row_of_training_has_its_pace_and_every_evaluation_its_seconds(tmp_path):
    run(tmp_path / "toy", steps_per_dispatch=3)
    rows = read_metrics(tmp_path / "toy" / "pace.jsonl")
    trained = [row for row in rows if "steps_per_second" in row]
    assert [row["step"] for row in trained] == [5, 10, 15, 20, 24]
    assert [row["step"] for row in rows if "evaluation_seconds" in row] == [8, 16, 24]
    # Three matrices forwards, and twice each backwards, but for the gradient of the input.
    products = 16 * 128 + 128 * 128 + 128 * 4
    operations = 2 * BATCH * (3 * products - 16 * 128)
    for row in trained:
        assert row["flops_per_second"] == pytest.approx(operations * row["steps_per_second"])
        assert row["pictures_per_second"] == pytest.approx(BATCH * row["steps_per_second"])
