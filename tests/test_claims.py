"""`benchmarks.claims`: its plan, what its runs share, its tables, and one tiny run of all."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

from tests.support.processes import ROOT, finish, start
from tests.support.tiny import TINY, flags_of, tiny

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks import claims_plan, claims_tables
from benchmarks.claims_plan import CLAIMS, RECIPE, VARIANTS
from data_prep.worlds import timelines, worlds
from stormpsr_jax.configs import synthetic
from stormpsr_jax.data import sampling
from stormpsr_jax.experiments.runs import expected_stages
from stormpsr_jax.psr.evaluation import analysis
from stormpsr_jax.psr.procedure import load_procedure

LABELS = ROOT / "../shared/data/meccano_psr_labels"
STAGES = (*("data", "pretrain", "embed", "temporal", "detector", "predict", "fuse", "evaluate"),)
CHANGES = {**TINY, "stages": STAGES}


def planned(claims, base, root, seeds=("1",), levels=("default",)):
    return claims_plan.runs_of(claims, base, root, seeds, levels)


def test_plan_quick_fits_into_25_minutes(tmp_path):
    runs = planned(claims_plan.QUICK, synthetic.get_config(), tmp_path)
    expected = expected_stages(list(dict.fromkeys(runs.values())))
    assert claims_plan.seconds(expected) < 0.9 * 25 * 60
    recipe, last = (runs[name, "default", "1"] for name in (RECIPE, "last_frame"))
    assert expected[recipe] == list(recipe.config.stages)
    assert expected[last] == ["temporal", "predict", "product_gate", "fuse", "evaluate"]


def test_plan_every_claim_compares_two_things_on_the_same_recordings():
    config = synthetic.get_config()
    for name, claim in CLAIMS.items():
        assert claim.baseline != claim.claimed
        assert not claims_plan.same_sides(claim, config), name
        paces = {VARIANTS[variant].pace for variant, _ in (claim.baseline, claim.claimed)}
        assert len(paces) == 1


def test_plan_variants_change_what_they_say_and_nothing_else(tmp_path):
    base = synthetic.get_config()
    runs = planned(CLAIMS, base, tmp_path)
    usual = claims_plan.provenance.flat_config(runs[RECIPE, "default", "1"].config)

    def changed(variant):
        fields = claims_plan.provenance.flat_config(runs[variant, "default", "1"].config)
        return {field: value for field, value in fields.items() if value != usual[field]}

    cad = changed("without_cad")
    pretrain = base.pretrain
    assert cad.pop("pretrain.cad_per_state") == 0
    assert cad == {"pretrain.n_per_state": pretrain.n_per_state + pretrain.cad_per_state}
    assert changed("last_frame") == {"temporal_model.context_frames": 1}
    assert changed("transitions") == {
        "pretrain.backgrounds": 12,
        "pretrain.background_gap": 0.5,
        "pretrain.background_span": 2.5,
    }
    assert changed("without_wrong") == {"detector.cad_wrong": 0.0}
    assert changed("without_rehearsals") == {
        "data.synthetic.error_recordings": 0,
        "data.dir": str(tmp_path / "default_1" / "data_without_rehearsals"),
    }
    assert changed("scratch") == {"init_from": ""}
    paced = {"data.synthetic.pace": claims_plan.PACE}
    paced["data.dir"] = str(tmp_path / "default_1" / "data_paced")
    assert changed("paced") == paced
    assert changed("paced_uniform") == paced | {"temporal.sampling": "uniform"}
    assert changed("paced_random_key_frames") == paced | {"pretrain.key_frames": "random"}
    stages = list(base.stages)
    stages.insert(stages.index("detector"), "finetune")
    assert changed("finetuned") == {"stages": stages}
    # Without fine-tuning is the recipe itself.
    assert runs["not_finetuned", "default", "1"] is runs[RECIPE, "default", "1"]


def test_plan_in_world_bench_people_are_slow_by_themselves(tmp_path):
    """All variants but those without rehearsals share recordings, and the usual pace."""
    base = claims_plan.changed(synthetic.get_config(), {"data.synthetic.world": "bench"})
    runs = planned(CLAIMS, base, tmp_path)
    assert {run.config.data.synthetic.pace for run in runs.values()} == {1.0}
    assert {run.config.data.synthetic.world for run in runs.values()} == {"bench"}
    assert {run.config.data.dir for run in runs.values()} == {
        str(tmp_path / "default_1" / name) for name in ("data", "data_without_rehearsals")
    }
    assert runs["paced", "default", "1"] is runs[RECIPE, "default", "1"]
    toy = planned(CLAIMS, synthetic.get_config(), tmp_path)
    bench_s, toy_s = (
        claims_plan.weight(of[RECIPE, "default", "1"], stage)
        for of, stage in ((runs, "predict"), (toy, "predict"))
    )
    assert bench_s == pytest.approx(5.3 * toy_s)
    assert claims_plan.weight(runs[RECIPE, "default", "1"], "temporal") == 1


def test_lengths_of_recordings_by_world():
    procedure = load_procedure("synthetic")

    def mean_length(world):
        habits = worlds.WORLDS[world].habits
        rngs = map(np.random.default_rng, range(200))
        drawn = [timelines.draw_timeline(procedure, rng, habits=habits) for rng in rngs]
        return np.mean([timeline.num_frames for timeline in drawn])

    assert claims_plan.LENGTHS.keys() == worlds.WORLDS.keys()
    for world, length in claims_plan.LENGTHS.items():
        assert mean_length(world) / mean_length("toy") == pytest.approx(length, rel=0.1)


def test_by_world_says_where_a_claim_holds():
    def of_claim(name, **differences):
        streams = {"baseline": ["recipe", "asd"], "claimed": ["recipe", "storm"]}
        row = {"claim": name, "text": name, "occlusion": "default", **streams}
        return row | {"differences": differences}

    better, worse, unsure = difference(0.01, 0.03), difference(-0.03, -0.01), difference(-0.1, 0.1)
    contents = {
        "toy": {
            "claims": [of_claim("one", f1=better, pos=better, delay_s=unsure), of_claim("two")]
        },
        "bench": {"claims": [of_claim("one", f1=better, pos=unsure, delay_s=better)]},
    }
    lines = claims_tables.by_world(contents).splitlines()
    assert (
        lines[-1]
        == "| one | asd → storm | default | ✓ both | ✓ toy alone | ✗ bench alone | neither |"
    )
    assert not any(line.startswith("| two") for line in lines)  # of one world
    contents["bench"]["claims"][0]["differences"]["pos"] = worse
    assert "✓ toy, ✗ bench" in claims_tables.by_world(contents)


def test_plan_seeds_and_levels_have_data_of_their_own(tmp_path):
    runs = planned(["window"], tiny(), tmp_path, ("1", "2"), ("default", "heavy"))
    assert len(runs) == 8
    assert len({run.folder for run in runs.values()}) == 8
    folders = {(run.config.data.dir, *key[1:]) for key, run in runs.items()}
    assert len(folders) == 4
    for (_, level, seed), run in runs.items():
        assert run.config.seed == run.config.data.synthetic.seed == int(seed)
        assert run.config.data.synthetic.occlusion == level


@pytest.mark.skipif(not LABELS.exists(), reason="needs the MECCANO label files")
def test_pace_makes_recordings_as_those_of_meccano():
    """In windows of each: pauses, and the share of clips that KCAS draws elsewhere."""

    def measured(drawn, fps, config):
        pauses, ratios = [], []
        for timeline in drawn:
            states = timeline.per_frame()
            events = sampling.change_frames(states, wrong=True)
            density = sampling.clip_density(
                len(states), events, delta=config.temporal.delta, sigma=config.temporal.sigma
            )
            pauses += (np.diff(events) / config.window.frames).tolist()
            ratios.append(density * len(states))
        return np.mean(pauses), np.abs(np.concatenate(ratios) - 1).mean() / 2

    meccano = load_procedure("meccano")
    from stormpsr_jax.configs import meccano as paper

    paths = [p for split in timelines.find_timelines(LABELS).values() for p in split.values()]
    real = [timelines.read_timeline(path, meccano, 1.0) for path in paths]
    pause, elsewhere = measured(real, meccano.fps, paper.get_config())
    procedure = load_procedure("synthetic")
    config = synthetic.get_config()
    at_pace = {
        pace: measured(
            [timelines.draw_timeline(procedure, np.random.default_rng(i), pace) for i in range(40)],
            procedure.fps,
            config,
        )
        for pace in (1.0, claims_plan.PACE)
    }
    assert at_pace[claims_plan.PACE][0] == pytest.approx(pause, rel=0.1)
    assert at_pace[claims_plan.PACE][1] == pytest.approx(elsewhere, abs=0.06)
    assert at_pace[1.0][1] < 0.3


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
    return [*words, "--config=synthetic", *flags_of(CHANGES)]


def test_claims_run_to_the_table_and_are_not_run_again(root):
    words = command(root, "--seeds=0", "--occlusion=default", "--claims=fused,window,start")
    (said,) = finish(start(words))
    assert "claim start is left out: with this config both sides are the same" in said
    assert "[1/2] recipe, occlusion default, seed 0: " in said
    assert said.count(": taken over from ") == 3
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
    assert [row["figure"] for row in content["targets"]] == list(claims_tables.TARGETS)
    assert content["targets"][0]["value"] == recipe["streams"]["learned"]["f1"]
    # Few states last longer than t_f.
    assert 0.7 < content["densities"][0]["kfs_share"] < 1.0
    text = (root / "claims.md").read_text()
    assert text in said
    assert content["world"] == "toy"
    assert not (root / "worlds.md").exists()
    assert "| Eq. 9 against ASD alone | asd → storm | 1 | " in text
    assert "| window against its last frame | temporal | 1 | " in text

    before = {path: os.stat(path).st_mtime_ns for path in root.rglob("metrics.json")}
    (said,) = finish(start(words))
    assert said.count(": done before (") == 2
    assert before == {path: os.stat(path).st_mtime_ns for path in root.rglob("metrics.json")}
    assert json.loads((root / "claims.json").read_text()) == content
    (said,) = finish(start([*words, "--plan"]))
    assert "2 runs, about 0 min" in said


def test_claims_mistakes_are_named_in_a_line(tmp_path):
    for words, text in [
        (["--claims=fussed"], "error: --claims=fussed: known are fused, learned"),
        (["--occlusion=medium"], "error: --occlusion=medium is not one of light, default, heavy"),
        (["--world=moon"], "error: --world=moon is not one of toy, bench"),
        (["--seeds=-1"], "error: --seeds=-1 is not a whole number"),
        (["--claims=start"], "error: no claim is left"),
    ]:
        (said,) = finish(start(command(tmp_path / "new", *words)), code=1)
        assert text in said
        assert "Traceback" not in said
    assert not (tmp_path / "new").exists()


def difference(low, high, value=None):
    middle = (low + high) / 2 if value is None else value
    return {"a": 0.5, "b": 0.5 + middle, "difference": middle, "low": low, "high": high}


@pytest.mark.parametrize(
    ("row", "better", "cell"),
    [
        (difference(0.01, 0.03), 1, "0.500 → 0.520, +0.020 [+0.010, +0.030] ✓"),
        (difference(0.01, 0.03), -1, "0.500 → 0.520, +0.020 [+0.010, +0.030] ✗"),
        (difference(-0.03, -0.01), -1, "0.500 → 0.480, -0.020 [-0.030, -0.010] ✓"),
        (difference(-0.01, 0.03), 1, "0.500 → 0.510, +0.010 [-0.010, +0.030]"),
        (dict.fromkeys(("a", "b", "difference", "low", "high")), 1, "–"),
        (None, 1, "–"),
    ],
)
def test_cell_golden_says_which_side_the_interval_lies_on(row, better, cell):
    assert claims_tables._cell(row, ".3f", better) == cell


def fake(learned, asd=None):
    """What the table of targets reads of a metrics.json."""

    def stream(f1, delay, accepted, shown, called, right, ece):
        keys = ("accepted", "shown", "right_called_wrong", "right_installations")
        wrong = dict(zip(keys, (accepted, shown, called, right), strict=True))
        figures = {"f1": f1, "pos": f1, "delay_s": delay, "wrong": wrong}
        return figures | {"reliability": {"ece": ece}}

    streams = {"asd": stream(*(asd or (0.9, 10.0, 0, 1, 0, 1, 0.1))), "learned": stream(*learned)}
    return {"streams": streams}


def test_targets_golden():
    done = {
        (RECIPE, "heavy", "1"): fake((0.90, 4.0, 1, 2, 3, 100, 0.01)),
        (RECIPE, "heavy", "2"): fake((0.96, 6.0, 2, 8, 1, 100, 0.05)),
        (RECIPE, "default", "1"): fake((0.1, 9.0, 9, 9, 9, 9, 0.9)),
    }
    rows = {row["figure"]: row for row in claims_tables._targets("heavy", done, ["1", "2", "3"])}
    values = {key: row["value"] for key, row in rows.items()}
    assert values == pytest.approx(
        {"f1": 0.93, "pos": 0.93, "delay": 0.5, "accepted": 0.3, "called_wrong": 0.02, "ece": 0.03}
    )
    assert all(row["met"] for row in rows.values())
    assert {row["seeds"] for row in rows.values()} == {2}
    text = "\n".join(claims_tables._targets_table(list(rows.values())))
    assert "| F1 | 0.930 | ≥ 0.920 | 0.950 | yes |" in text
    assert "| wrong parts accepted | 30% | ≤ 35% | 15% | yes |" in text
    bad = claims_tables._targets("default", done, ["1"])
    assert not any(row["met"] for row in bad)
