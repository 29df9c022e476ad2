"""`benchmarks.claims`: its plan, what its runs share, its tables, and one tiny run of all."""

import json
import shutil
import sys

import pytest

from tests.support.processes import ROOT, finish, start
from tests.support.tiny import TINY, flags_of, tiny

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks import claims_plan
from benchmarks.claims_plan import RECIPE
from stormpsr_jax.configs import synthetic_full
from stormpsr_jax.experiments.runs import expected_stages
from stormpsr_jax.psr.evaluation import analysis

STAGES = (*("data", "pretrain", "embed", "temporal", "detector", "predict", "fuse", "evaluate"),)
CHANGES = {**TINY, "stages": STAGES}


def planned(claims, base, root, seeds=("1",), levels=("default",)):
    return claims_plan.runs_of(claims, base, root, seeds, levels)


def test_plan_quick_fits_into_25_minutes(tmp_path):
    runs = planned(claims_plan.QUICK, synthetic_full.get_config(), tmp_path)
    expected = expected_stages(list(dict.fromkeys(runs.values())))
    assert claims_plan.seconds(expected) < 0.9 * 25 * 60
    recipe, last = (runs[name, "default", "1"] for name in (RECIPE, "last_frame"))
    assert [name for name in expected[recipe] if name != "detections"] == [*recipe.config.stages]
    assert expected[last] == ["temporal", "predict", "product_gate", "fuse", "evaluate"]


def test_plan_seeds_and_levels_have_data_of_their_own(tmp_path):
    runs = planned(["window"], tiny(), tmp_path, ("1", "2"), ("default", "heavy"))
    assert len(runs) == 8
    assert len({run.folder for run in runs.values()}) == 8
    folders = {(run.config.data.dir, *key[1:]) for key, run in runs.items()}
    assert len(folders) == 4
    for (_, level, seed), run in runs.items():
        assert run.config.seed == run.config.data.synthetic.seed == int(seed)
        assert run.config.data.synthetic.occlusion == level


@pytest.fixture
def root(finished, tmp_path):
    """A folder in which the recipe of seed 0 is trained: the finished tiny run is the same."""
    group = tmp_path / "default_0"
    shutil.copytree(finished / "data", group / "data")
    for stage in ("pretrain", "embed", "temporal", "detector"):
        shutil.copytree(finished / stage, group / RECIPE / stage)
    return tmp_path


def command(root, *words):
    words = [sys.executable, "-m", "benchmarks.claims", f"--workdir={root}", *words]
    return [*words, "--config=synthetic_full", *flags_of(CHANGES)]


@pytest.mark.slow
def test_claims_run_to_the_table(root):
    words = command(root, "--seeds=0", "--occlusion=default", "--claims=fused,window,start")
    (said,) = finish(start(words))
    assert "claim start is left out: with this config both sides are the same" in said
    assert "[1/2] recipe, occlusion default, seed 0: " in said
    assert said.count(": taken over from ") == 4
    logs = {p.stem: p.read_text() for p in (root / "default_0").glob("*.log")}
    assert logs.keys() == {RECIPE, "last_frame"}
    for stage in ("pretrain", "embed", "detector"):
        assert all(f"\n{stage}: done before\n" in log for log in logs.values())
    assert "\ntemporal …\n" in logs["last_frame"]
    assert "\ntemporal: done before\n" in logs[RECIPE]

    content = json.loads((root / "claims.json").read_text())
    recipe, last = (
        analysis.load_result(root / "default_0" / name / "metrics.json")
        for name in (RECIPE, "last_frame")
    )
    fused, window = content["claims"]
    f1 = fused["differences"]["f1"]
    assert f1["a"] == pytest.approx(recipe["streams"]["asd"]["f1"])
    assert f1["b"] == pytest.approx(recipe["streams"]["storm"]["f1"])
    assert window["baseline"] == ["last_frame", "temporal"]
    pos = window["differences"]["pos"]
    assert pos["a"] == pytest.approx(last["streams"]["temporal"]["pos"])
    assert pos["b"] == pytest.approx(recipe["streams"]["temporal"]["pos"])
    assert pos == window["streams"]["temporal"]["pos"]
    text = (root / "claims.md").read_text()
    assert text in said
    assert content["world"] == "toy"
    assert "| Eq. 9 against ASD alone | asd → storm | 1 | " in text
    assert "| window against its last frame | temporal | 1 | " in text
