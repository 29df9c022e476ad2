import contextlib
import io
import json
import os
import shlex
import shutil
import statistics
import sys
from pathlib import Path

import pytest

from stormpsr_jax import evaluate, main, paper
from stormpsr_jax.configs import industreal, meccano
from stormpsr_jax.experiments import paper_plan, runs
from stormpsr_jax.experiments.paper_results import markdown, spread
from stormpsr_jax.stages import run as stages_run
from stormpsr_jax.stages.config_flag import flat, typed
from tests.support.processes import finish, start
from tests.support.tiny import TINY, flags_of, tiny

ALL = list(paper_plan.TABLES)


def planned(config, root, tables=ALL, seeds=(0,)):
    return paper_plan.runs_of(tables, config, root, seeds)


@pytest.mark.parametrize("module", [meccano, industreal])
def test_rows_differ_from_the_whole_method_as_they_say(module, tmp_path):
    config = module.get_config()
    config.data.dir = "data"
    config = typed(config)
    runs = planned(config, tmp_path)
    usual = flat(runs["base", 0].config)
    assert usual == flat(config) | {"stages": [stage for stage in config.stages if stage != "fuse"]}

    def changed(variant):
        found = flat(runs[variant, 0].config)
        return {field: value for field, value in found.items() if value != usual[field]}

    assert changed("no_kfs_no_kcas") == {"pretrain.steps": 0, "temporal.sampling": "uniform"}
    assert changed("uniform") == {"temporal.sampling": "uniform"}
    assert changed("gaussian") == {"temporal.sampling": "gaussian"}
    assert changed("t_f_8") == {"pretrain.t_f": 8.0}
    stages = ["pretrain", "embed", "temporal", "predict", "evaluate"]
    assert changed("stride_1_tcn") == {
        "temporal_model.backbone": "tcn",
        "window.stride": 1,
        "stages": stages,
    }
    assert changed("w4_mlp") == {
        "temporal_model.backbone": "mlp",
        "window.frames": 4,
        "window.stride": 1,
        "stages": stages,
    }
    assert "finetune" not in changed("frozen")["stages"]
    for name in ("kcas", "t_f_2", "finetuned"):
        assert runs[name, 0] is runs["base", 0]
    for name in ("transformer", "mlp"):
        assert runs[f"w256_{name}", 0] is runs[f"stride_1_{name}", 0]
    for run in runs.values():
        assert list(stages_run._fields(run.config, run.opened, ())) == []


def test_what_runs_share_is_made_once_and_what_is_finished_is_not_missing(
    tmp_path, finished, capsys
):
    asked = ["finetune", "--seeds=1", "--config=synthetic_full", f"--workdir={tmp_path}"]
    lines = [shlex.split(line) for line in paper_says(asked).splitlines()]
    folders = [Path(word).name for words in lines for word in words if "--workdir=" in word]
    assert folders == ["frozen", "finetuned"]
    assert "note: give the first 1, then 1: later ones take" in capsys.readouterr().err
    shared = tmp_path / "seed_0/finetuned"
    links = {path.name: os.readlink(path) for path in shared.iterdir()}
    names = ("data", "pretrain", "embed", "temporal", "detector")
    assert links == {name: f"../frozen/{name}" for name in names}
    with pytest.raises(ValueError, match=r"finetuned/data: leads to the folder of another run"):
        main.run(tiny(), shared)
    variants = {"base": {}, "last": {"temporal_model.context_frames": 1}}
    base, last = (both := runs.planned(typed(tiny()), variants, tmp_path / "more", [0])).values()
    # What others than `temporal` have made is there, the recordings too.
    shutil.copytree(finished, base.folder)
    assert runs.missing(both.values()) == [[last]]
    assert all(last.is_made(last.stages[name]) for name in ("data", "pretrain", "detector"))


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


def words(root, words, finished):
    flags = flags_of({**TINY, "data.dir": finished / "data"})
    return ["--config=synthetic_full", *flags, f"--workdir={root}", *words]


def paper_says(argv):
    """What the command prints, which is run in this process."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
        patch.setattr(sys, "argv", ["paper", *argv])
        with contextlib.suppress(SystemExit):  # of an error
            paper.run(paper.plan, "paper", paper.__doc__, "TABLE")
    return output.getvalue()


TABLES = ["main", "finetune", "detector", "--seeds=1"]


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    root = tmp_path_factory.mktemp("paper")
    for variant in ("base", "frozen"):  # trained on the same
        shutil.copytree(finished, root / "seed_0" / variant)
    asked = words(root, TABLES, finished)
    lines = paper_says(asked).splitlines()
    assert len(lines) == 2
    for line in lines:
        finish(start([sys.executable, *shlex.split(line)[1:]]))
    assert "STORM-PSR" in paper_says(asked)
    return root


def test_figures_are_those_of_the_run_and_of_evaluate(made, finished, tmp_path):
    root = made
    content = json.loads((root / "tables/main.json").read_text())
    assert content["rendered"]
    assert "Our figures are of **rendered** recordings" in (root / "tables/main.md").read_text()
    rows = {row["text"]: row["mean"] for row in content["rows"]}
    run = json.loads((root / "seed_0/base/metrics.json").read_text())
    keys = ("pos", "f1", "delay_s")
    for text, stream in (("spatio-temporal stream", "temporal"), ("STORM-PSR", "storm")):
        assert rows[text] == {key: run["streams"][stream][key] for key in keys}
        for what, errors in (("recordings without errors", False), ("with errors", True)):
            part = [
                r["f1"]
                for r in run["streams"][stream]["recordings"].values()
                if r["contains_errors"] == errors and r["f1"] is not None
            ]
            mean = statistics.fmean(part) if part else None
            assert rows[f"{text}, {what}"]["f1"] == mean
    # Two validation recordings choose nothing, so the settings are the command's own.
    for text, decoder in (("B1 (naive)", "naive"), ("B2 (accumulated)", "confidence")):
        out = tmp_path / f"{decoder}.json"
        flags = [f"--decoder={decoder}", "--window=16", f"--out={out}"]
        flags += [f"--procedure={finished / 'data/procedure.json'}"]
        flags += [f"--labels={finished / 'data/labels/test'}"]
        evaluate.main([*flags, f"--asd={root / 'seed_0/base/predictions/test/asd'}", "--fps=1"])
        stream = json.loads(out.read_text())["streams"]["asd"]
        assert rows[f"ASD, {text}"] == {key: stream[key] for key in keys}
    frozen = json.loads((root / "seed_0/frozen/metrics.json").read_text())
    content = json.loads((root / "tables/finetune.json").read_text())
    rows = {row["text"]: row["mean"] for row in content["rows"]}
    assert rows["frozen, temporal"]["pos"] == frozen["streams"]["temporal"]["pos"]
    assert rows["fine-tuned, temporal"]["pos"] == run["streams"]["temporal"]["pos"]
