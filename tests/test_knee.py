"""`benchmarks.knee`: its runs, and its table."""

import argparse
import sys

from tests.support.processes import ROOT

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks import knee
from stormpsr_jax.configs import synthetic


def planned(root, **changes):
    asked = {"config": synthetic.get_config(), "seeds": ["711"], "recipes": list(knee.RECIPES)}
    return knee.runs_of(argparse.Namespace(**asked | changes), root)


def test_recipes_share_recordings_and_differ_in_steps_alone(tmp_path):
    runs = planned(tmp_path, seeds=["711", "712"])
    for seed in ("711", "712"):
        found = [runs[name, seed] for name in knee.RECIPES]
        assert {run.config.data.dir for run in found} == {str(tmp_path / seed / "data")}
        assert {run.config.seed for run in found} == {int(seed)}
        for stage in ("pretrain", "temporal", "detector"):
            steps = [run.config[stage].steps for run in found]
            assert steps == sorted(steps, reverse=True)
    assert len({run.folder for run in runs.values()}) == 2 * len(knee.RECIPES)
    flat = synthetic.get_config().to_dict()
    for field, value in knee.RECIPES["present"].items():
        section, name = field.split(".")
        assert flat[section][name] == value  # as the config ships


def test_the_table_has_means_over_seeds_and_leaves_rendering_out(monkeypatch):
    asked = []

    def compared(pairs, streams):
        asked.append((pairs, streams))
        figures = {"a": 0.9, "b": 0.95, "difference": 0.05, "low": 0.01, "high": 0.09}
        return [{"metric": metric, **figures} for metric in knee.claims_tables.METRICS]

    monkeypatch.setattr(knee.compared_runs, "compare_runs", compared)
    seconds = {
        "present": [{"data": 100, "pretrain": 10, "embed": 4}, {"pretrain": 20, "embed": 4}],
        "half": [{"pretrain": 6, "embed": 1}, {"pretrain": 8, "embed": 2}],
    }
    lines = knee.table(["present", "half"], seconds, {"present": ["a", "b"], "half": ["c", "d"]})
    head, _, present, half, *_, difference = lines.splitlines()
    assert head.startswith("| recipe | pretrain | embed | seconds | F1 |")
    assert present.startswith("| present | 15 | 4 | 19 | 0.950 |")
    assert half.startswith("| half | 7 | 2 | 8 | 0.950 |")
    assert difference.startswith("| half | 0.900 → 0.950, +0.050 [+0.010, +0.090] ✓ |")
    assert asked[1] == ([("a", "c"), ("b", "d")], ("learned", "learned"))
