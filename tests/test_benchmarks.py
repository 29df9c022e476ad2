"""The benchmarks: the quick ones run to their end, on as little as they take; claims and costs."""

import argparse
import ast
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest

from benchmarks import claims, compared_runs
from stormpsr_jax.psr import analysis, metrics
from tests.support.processes import ROOT, environment, finish, start
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


SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def command(script):
    said = re.search(
        rf"python (-m benchmarks\.{script.stem}|benchmarks/{script.name})\b", head(script)
    )
    return said[1].split() if said else []


def head(script):
    return ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_benchmarks_find_what_they_import_when_run_as_their_heads_say(script):
    """Python looks beside a script, and for a module in the folder at hand, which is the clone."""
    imported = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    beside, clone = {other.stem for other in SCRIPTS}, {"benchmarks", "tests", "tools"}
    as_module = "-m" in command(script)
    if command(script):
        assert not imported & (beside if as_module else clone)
    pages = [ROOT / "README.md", ROOT / "data_prep" / "README.md", *ROOT.glob("docs/*.md")]
    wrong = rf"benchmarks/{script.name}" if as_module else rf"-m benchmarks\.{script.stem}"
    wrong = re.compile(rf"python {wrong}\b")
    assert not [page.name for page in pages if wrong.search(page.read_text("utf-8"))]


COUNTED = """
import collections, pathlib, types
import cost
from stormpsr_jax.configs import meccano
from stormpsr_jax.experiments import paper_plan

counted = collections.Counter()
class Counter:
    def trained(self, config, name):
        counted[name] += 1
        flops = 1e15 * (config.window.frames / 256 if name == "finetune" else 1)
        return cost.Stage(name, config[name].steps, 8, 0, flops, rate=1.0)
    def every_frame(self, name, flops):
        return cost.Stage(name, 1, 1, 0, 0.0, rate=1.0)

args = cost.parser().parse_args(["--shortest_step=0", "--utilisation=1"])
config = meccano.get_config()
config.data.dir = "data"
made = paper_plan.runs_of(list(paper_plan.TABLES), config, pathlib.Path("none"), range(3))
costs = cost.Costs(Counter())
plan = cost.Plan(dict.fromkeys(made.values()), costs, args)
one = cost.platforms_of(args)["1 A100"]
parts = plan.parts(one)
print(*sorted(counted.items()))
print(parts["finetune"])
print(sum(parts.values()), *(plan.side_by_side(one, places) for places in (1, 8)))
"""


@pytest.mark.system
def test_the_cost_of_all_tables_counts_each_kind_of_step_once_and_every_training_of_the_plan():
    """A window or a network of its own is another step; seeds, sampling and t_f are not."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
    command = [sys.executable, "-c", COUNTED]
    (said,) = finish(start(command, env=environment(PYTHONPATH=path)))
    kinds, tuned, hours = said.splitlines()[-3:]
    assert kinds == "('detector', 1) ('finetune', 1) ('pretrain', 1) ('temporal', 11)"
    # Three seeds of eight runs that fine-tune.
    assert float(tuned) == pytest.approx(3 * 8 * 140_625 * 1e15 / 312e12 / 3600)
    whole, one_place, eight = map(float, hours.split())
    assert one_place == pytest.approx(whole)
    assert whole / 8 <= eight < 1.2 * whole / 8


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


FPS = 4.0


def result(delays):
    """Of recordings with one step each, recognised so many frames late."""
    recordings = {}
    for i, delay in enumerate(delays):
        truth, events = [(10, 0)], [(10 + delay, 0)]
        recordings[f"r{i}"] = {
            **metrics.score_recording(truth, events, FPS),
            "truth": [[10, 0]],
            "events": [[10 + delay, 0, 0.9]],
            "wrong": None,
        }
    return {"protocol": "paper", "fps": FPS, "streams": {"storm": {"recordings": recordings}}}


def test_compare_runs_golden_constant_difference():
    pairs = []
    for seed in range(3):
        delays = np.random.default_rng(seed).integers(0, 9, 5 + seed)
        pairs.append((result(delays.tolist()), result((delays + 8).tolist())))
    rows = compared_runs.compare_runs(pairs, ("storm", "storm"), samples=2000)
    (row,) = (row for row in rows if row["metric"] == "delay_s")
    assert [row[key] for key in ("difference", "low", "high")] == pytest.approx([8 / FPS] * 3)
    assert (row["runs"], row["recordings"], row["stream"]) == (3, 5 + 6 + 7, "storm")
