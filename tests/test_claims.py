import argparse
import json
import re
import shutil
import sys

import pytest

from tests.support.processes import ROOT, finish, start
from tests.support.tiny import TINY, flags_of, tiny

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks import claims
from stormpsr_jax.psr import analysis

STAGES = (*("data", "pretrain", "embed", "temporal", "detector", "predict", "fuse", "evaluate"),)


def planned(root, *words, **changes):
    config = tiny(**{"stages": STAGES, **changes})
    return claims.plan(argparse.Namespace(words=words, config=config, root=root, seeds=range(1, 3)))


def test_seeds_have_recordings_of_their_own(tmp_path):
    runs = planned(tmp_path, "window", "kcas", seed=1)[0]
    assert len({run.folder for run in runs.values()}) == len(runs) == 6
    folders = {key: run.config.data.dir for key, run in runs.items()}
    for seed in (1, 2):
        assert runs["recipe", seed].config.data.synthetic.seed == seed
        assert folders["recipe", seed] == folders["last_frame", seed]
        assert folders["recipe", seed] == folders["uniform", seed]
    assert len(set(folders.values())) == 2
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
