"""The benchmarks: the quick ones run to their end, on as little as they take; claims and costs."""

import argparse
import json
import re
import shutil
import sys

import pytest

from benchmarks import claims
from stormpsr_jax.psr import analysis
from tests.support.processes import finish, start
from tests.support.tiny import TINY, flags_of, tiny

# Its fields that shape networks and batches: data of their own have other recordings.
FIELDS = ("init_from", "window", "encoder", "temporal_model", "detector", "pretrain", "temporal")
SHAPES = {field: value for field, value in TINY.items() if field.split(".")[0] in FIELDS}
CONFIG = " ".join(["--config=synthetic --size=32", *flags_of(SHAPES)])
LIVE = f"-m benchmarks.live --frames=16 --windows=1 --rounds=1 --seconds=2 --hours=0.002 {CONFIG}"


@pytest.mark.system
def test_the_benchmark_of_live_recognition_runs_to_its_end():
    words = f"{LIVE} --config.predict.batch=8".split()
    assert "| files / real time" in finish(start([sys.executable, *words]))[0]


STAGES = tuple("data pretrain embed temporal detector predict fuse evaluate".split())


def planned(root, *words, **changes):
    config = tiny(**{"stages": STAGES, **changes})
    return claims.plan(argparse.Namespace(words=words, config=config, root=root, seeds=range(1, 3)))


def test_seeds_have_recordings_of_their_own(tmp_path):
    runs = planned(tmp_path, "window", "kcas", seed=1)[0]
    assert len({run.folder for run in runs.values()}) == len(runs) == 6
    assert {run.config.data.synthetic.seed for run in runs.values()} == {1, 2}
    for (_, seed), run in runs.items():
        assert run.config.data.synthetic.seed == seed
    changes = {"temporal_model.context_frames": 1, "seed": 1}
    with pytest.raises(ValueError, match="claim window: with this config both sides are the same"):
        planned(tmp_path, "window", **changes)


@pytest.mark.slow
def test_claims_run_to_the_table(finished, tmp_path):
    recipe, last = (tmp_path / "seed_0" / name for name in ("recipe", "last_frame"))
    for stage in ("pretrain", "embed", "temporal", "detector"):
        shutil.copytree(finished / stage, recipe / stage)
    shutil.copytree(finished / "pretrain", last / "pretrain")
    words = ["-m", "benchmarks.claims", "fused", "window", "--seeds=1", f"--workdir={tmp_path}"]
    flags = flags_of({**TINY, "stages": STAGES, "data.dir": finished / "data"})
    (said,) = finish(start([sys.executable, *words, "--config=synthetic_full", *flags]))
    logs = [folder.with_suffix(".log").read_text() for folder in (recipe, last)]
    assert "\ntemporal: done before\n" in logs[0]
    assert "\npretrain: done before\n" in logs[1]
    assert "\ntemporal …\n" in logs[1]

    fused, window, *_ = json.loads((tmp_path / "claims.json").read_text())["claims"]
    of_recipe, of_last = (
        analysis.load_result(f / "metrics.json")["streams"] for f in (recipe, last)
    )
    f1, pos = fused["differences"]["f1"], window["differences"]["pos"]
    assert (f1["a"], f1["b"]) == pytest.approx((of_recipe["asd"]["f1"], of_recipe["storm"]["f1"]))
    temporal = of_last["temporal"]["pos"], of_recipe["temporal"]["pos"]
    assert (pos["a"], pos["b"]) == pytest.approx(temporal)
    text = (tmp_path / "claims.md").read_text()
    assert text in said
    assert re.search(r"\| Eq. 9 against ASD alone +\| asd → storm +\| 1 ", text)
    assert "| last_frame: temporal | " in text
