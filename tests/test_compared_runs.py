import numpy as np
import pytest

from benchmarks import compared_runs
from stormpsr_jax.psr import metrics

FPS = 4.0


def result(delays):
    """Of recordings with one step each, recognised so many frames late."""
    recordings = {}
    for i, delay in enumerate(delays):
        truth, events = [(10, 0)], [(10 + delay, 0)]
        scored = metrics.score_recording(truth, events, FPS)
        recordings[f"r{i}"] = {
            **scored,
            "truth": [[10, 0]],
            "events": [[10 + delay, 0, 0.9]],
            "wrong": None,
        }
    return {"protocol": "paper", "fps": FPS, "streams": {"storm": {"recordings": recordings}}}


def systems(seed, shift, num=12):
    delays = np.random.default_rng(seed).integers(0, 9, num).tolist()
    return result(delays), result([delay + shift for delay in delays])


def test_compare_runs_golden_constant_difference():
    pairs = [systems(seed, shift=8, num=5 + seed) for seed in range(3)]
    rows = compared_runs.compare_runs(pairs, ("storm", "storm"), samples=2000)
    (row,) = (row for row in rows if row["metric"] == "delay_s")
    assert row["difference"] == pytest.approx(8 / FPS)
    assert row["low"] == pytest.approx(8 / FPS)
    assert row["high"] == pytest.approx(8 / FPS)
    assert (row["runs"], row["recordings"]) == (3, 5 + 6 + 7)
    assert row["stream"] == "storm"
