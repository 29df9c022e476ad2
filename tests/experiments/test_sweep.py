import json
import re
import shutil
import signal
import sys

import pytest

from stormpsr_jax import sweep
from stormpsr_jax.experiments import command, sweep_plan
from tests.support.tiny import TINY, flags_of, tiny


def test_values_have_the_type_of_their_field():
    words = [
        "temporal.delta=3,4.5",
        "encoder.stem=(8,),(4,8)",
        "temporal.sampling=kcas,uniform,kcas",
        "pretrain.initial_state=True,False",
    ]
    assert sweep_plan.parse(words, tiny()) == {
        "temporal.delta": [3.0, 4.5],
        "encoder.stem": [(8,), (4, 8)],
        "temporal.sampling": ["kcas", "uniform"],
        "pretrain.initial_state": [True, False],
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no field to vary; give FIELD=VALUE"),
        (["temporal.delta"], "'temporal.delta' is not FIELD=VALUE"),
        (["temporal.detla=3"], "temporal.detla: there is no such field"),
        (["temporal.delta=3", "temporal.delta=4"], "temporal.delta is given twice"),
        (["temporal.delta=a"], "temporal.delta=a: should be like 4.0"),
        (["temporal.batch=0"], "temporal.batch=0: at least 1 is needed"),
        (["temporal.sampling=kfs"], "temporal.sampling=kfs: is not one of kcas"),
        (["seed=1,2"], "seed cannot be varied here; use --seeds"),
    ],
)
def test_errors_are_named(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sweep_plan.parse(words, tiny())


def test_every_combination_is_a_run_and_those_that_render_the_same_share_it(tmp_path):
    values = {"data.synthetic.size": [32, 48], "temporal.delta": [3.0, 4.0]}
    runs = sweep_plan.runs_of(values, tiny(), tmp_path, [0, 1])
    assert len(set(runs.values())) == 8
    assert len({run.folder for run in runs.values()}) == 8
    for (text, seed), run in runs.items():
        size, delta = run.config.data.synthetic.size, run.config.temporal.delta
        assert text == f"data.synthetic.size={size}, temporal.delta={delta}"
        assert run.config.seed == seed
    folders = {(r.renders.folder, r.renders.config.data.synthetic.size) for r in runs.values()}
    assert len(folders) == len({folder for folder, _ in folders}) == 2


def test_a_table_has_the_figures_of_every_run(finished, tmp_path, monkeypatch, capsys):
    """Thresholds alone are varied, so that nothing is trained where all else is there."""
    flags = flags_of({**TINY, "data.dir": finished / "data"})
    words = ["sweep", "evaluate.threshold=1.0,3.0", "--seeds=1", "--config=synthetic_full", *flags]
    monkeypatch.setattr(sys, "argv", [*words, f"--workdir={tmp_path}"])
    for T in (1.0, 3.0):
        shutil.copytree(finished, tmp_path / f"seed_0/evaluate.threshold={T}")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    command.run(sweep.plan, "sweep", sweep.__doc__, "FIELD=VALUE,VALUE")
    said = capsys.readouterr().out
    content = json.loads((tmp_path / "sweep.json").read_text())
    for T in (1.0, 3.0):
        path = tmp_path / f"seed_0/evaluate.threshold={T}/metrics.json"
        result = json.loads(path.read_text())
        for stream, figures in result["streams"].items():
            (row,) = [
                r for r in content["rows"] if r["text"] == f"evaluate.threshold={T}: {stream}"
            ]
            assert row["mean"]["f1"] == figures["f1"]
            assert row["mean"]["accepted"] == figures["wrong"]["accepted"]
            assert row["mean"]["validation_pos"] == result["validation"][stream]["pos"]
        assert result["streams"]["asd"]["settings"]["threshold"] == T
    assert (tmp_path / "sweep.md").read_text() in said
    assert "temporal: done before" in (tmp_path / f"seed_0/evaluate.threshold={T}.log").read_text()
