import json
import os
import re
import shutil
import signal
import sys

import pytest

from stormpsr_jax import sweep
from stormpsr_jax.base import files
from stormpsr_jax.experiments import command, execute, runs, sweep_plan
from stormpsr_jax.experiments.result_tables import markdown, spread
from stormpsr_jax.experiments.runs import Run
from tests.support.processes import environment, finish, start, wait_until
from tests.support.tiny import TINY, flags_of, tiny


def planned(folder, **changes):
    variants = {"base": {}, "last": {"temporal_model.context_frames": 1}}
    return runs.planned(tiny(**changes), variants, folder, [0])


def test_what_runs_share_is_missing_first_and_what_is_finished_is_not(tmp_path, finished):
    found = planned(tmp_path)
    base, last = found.values()
    *shared, both = runs.missing(found.values())
    learning = ("data", "pretrain", "embed"), ("data", "detector")
    assert both == [base, last]
    assert all(run.folder == base.folder for (run,) in shared)
    stages = [run.config.stages for (run,) in shared]
    assert stages == [learning[0][:1], learning[0][:2], learning[0], learning[1]]
    # What others than `temporal` have made is there, the recordings too.
    shutil.copytree(finished, base.folder)
    assert runs.missing(found.values()) == [[last]]


def test_a_row_has_mean_and_standard_deviation_over_seeds():
    found = [{"f1": 0.5, "pos": None}, {"f1": 0.7, "pos": 0.25}, {"f1": 0.6, "pos": None}]
    row = spread("row", found, ["f1", "pos"], {"f1": 0.9})
    assert row["mean"] == {"f1": pytest.approx(0.6), "pos": 0.25}
    assert row["std"] == {"f1": pytest.approx(0.1), "pos": None}
    assert (row["seeds"], row["published"]) == (3, {"f1": 0.9, "pos": None})
    content = {"title": "T", "columns": ["f1", "pos"], "rows": [row], "note": "A note."}
    assert markdown(content) == (
        "## T\n\n"
        "|  | F1 | POS | published F1 | seeds |\n|---|---|---|---|---|\n"
        "| row | 0.600 ± 0.100 | 0.250 | 0.900 | 3 |\n\nA note.\n"
    )
    content = {"title": "T", "columns": ["f1"], "note": ""}
    rows = [spread("row", [], ["f1"])]
    assert markdown({**content, "rows": rows}).endswith("| row | – | 0 |\n")


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
        (["temporal.delta=a"], "temporal.delta=a: expected float, got str"),
        (["temporal.batch=0"], "temporal.batch=0: expected int >= 1"),
        (["temporal.sampling=kfs"], "temporal.sampling=kfs: is not one of kcas"),
        (["seed=1,2"], "seed cannot be varied here; use --seeds"),
    ],
)
def test_errors_are_named(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sweep_plan.parse(words, tiny())


def test_every_combination_is_a_run_and_those_that_render_the_same_share_it(tmp_path):
    """Every seed has the recordings of the config."""
    values = {"data.synthetic.size": [32, 48], "temporal.delta": [3.0, 4.0]}
    found = sweep_plan.runs_of(values, tiny(), tmp_path, [0, 1])
    assert len(set(found.values())) == 8
    assert len({run.folder for run in found.values()}) == 8
    for (text, seed), run in found.items():
        size, delta = run.config.data.synthetic.size, run.config.temporal.delta
        assert text == f"data.synthetic.size={size}, temporal.delta={delta}"
        assert run.config.seed == seed
    first = runs.missing(found.values())[0]
    assert [(r.config.stages, r.config.data.synthetic.size) for r in first] == [
        (("data",), 32),
        (("data",), 48),
    ]


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


NAMES = ("temporal.sampling=kcas", "temporal.sampling=uniform")
STAGES = ("data", "pretrain", "embed", "temporal", "predict", "evaluate")


def start_sweep(root, values, *flags, devices=1, **changes):
    changes = TINY | {"stages": STAGES, "seed": 1, "temporal.steps": 60} | changes
    words = ["-m", "stormpsr_jax.sweep", f"temporal.sampling={values}", f"--workdir={root}"]
    words += ["--config=synthetic_full", "--seeds=1", *flags_of(changes), *flags]
    return start([sys.executable, *words], env=environment(devices))


def test_one_of_two_that_is_killed_goes_on_to_the_figures_of_one_after_the_other(system, tmp_path):
    """They share what they have alike, which is made once."""
    root, both = tmp_path / "both", "kcas,uniform"
    runs = [root / "seed_1" / name for name in NAMES]
    process = start_sweep(root, both, devices=2)
    wait_until(lambda: all((run / "temporal/record.json").exists() for run in runs), process)
    at_work = [int((files.read_owner(run / "lock") or "0 0").split()[1]) for run in runs]
    assert 0 not in at_work, "both are at work"
    os.kill(at_work[1], signal.SIGKILL)
    # A second command would use the same devices.
    (said,) = finish(start_sweep(root, both), code=2)
    assert "is writing to" in said
    (said,) = finish(process, code=1)
    assert f"[2/2] {NAMES[1]}, seed 1: FAILED: " in said
    assert "1 of 2 runs failed, and are in no table" in said
    assert not (runs[1] / "metrics.json").exists()
    (said,) = finish(start_sweep(root, both, "--plan"))
    (line,) = said.splitlines()  # what both share is there
    (resumed,) = finish(start(["bash", "-c", line]))
    (said,) = finish(start_sweep(root, both))
    assert "starts" not in said
    shared = {path.name.partition("-")[0]: path.resolve() for path in (root / "stages").iterdir()}
    assert len(shared) == len([*(root / "stages").iterdir()]) - 1 == 4  # two of `temporal`
    logs = [run.with_name(f"{run.name}.log").read_text() for run in runs]
    for name in ("data", "pretrain", "embed"):
        assert all((run / name).is_symlink() for run in runs)
        assert all((run / name).resolve() == shared[name] for run in runs)
        assert "".join(logs).count(f"\n{name} …\n") == 1
        assert f"\n{name}: done before\n" in logs[1]
        assert f"{name}: done before\n" in resumed
    assert "\ntemporal …\n" in resumed
    finish(start_sweep(tmp_path / "one", "uniform", **{"data.dir": shared["data"]}))
    one, two = (json.loads((r / "sweep.json").read_text()) for r in (tmp_path / "one", root))
    assert one["rows"] == [row for row in two["rows"] if NAMES[1] in row["text"]]
    assert len(two["rows"]) == 2 * len(one["rows"]) == 2


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, ["0,1", "2,3"]), ("4,5,GPU-a,GPU-b", ["4,5", "GPU-a,GPU-b"])],
)
def test_each_run_sees_its_own_devices_and_has_its_share_of_loaders(given, found, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)

    class Looked:
        returncode, stdout, stderr = 0, "gpu 4\n", ""

    monkeypatch.setattr(execute.subprocess, "run", lambda *_, **__: Looked)
    here = execute.environments(2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in here] == found
    assert execute.environments(0) == execute.environments(4) == [{}]
    with pytest.raises(ValueError, match="--devices_per_run=5: this machine has 4 of JAX's"):
        execute.environments(5)
    Looked.stdout = "tpu 4\n"
    with pytest.raises(ValueError, match="GPUs alone are shared out; give 0 for all of them"):
        execute.environments(1)
    monkeypatch.setattr(execute.hosts, "cores", lambda: 24)
    for asked, share in ((0, 0), (1, 1), (8, 4), (-1, 12)):
        run = Run("run", tiny(**{"data.workers": asked}), None, None)
        assert execute.with_loaders(run, 2).config.data.workers == share
        assert execute.with_loaders(run, 1).config.data.workers == asked
