import shutil

import pytest

from stormpsr_jax import main
from stormpsr_jax.experiments import runs
from stormpsr_jax.experiments.result_tables import markdown, spread
from stormpsr_jax.stages import config_flag
from tests.support.tiny import tiny


def planned(folder, **changes):
    variants = {"base": {}, "last": {"temporal_model.context_frames": 1}}
    return runs.planned(tiny(**changes), variants, folder, [0])


def test_what_renders_is_missing_first_and_what_is_finished_is_not(tmp_path, finished):
    found = planned(tmp_path)
    base, last = found.values()
    assert base.renders is last.renders
    assert base.renders.config.stages == ("data",)
    assert base.config.data.dir == last.config.data.dir == str(base.renders.folder / "data")
    assert "data" not in base.config.stages
    assert runs.missing(found.values()) == ([base.renders], [base, last])
    # Recordings that are there are not rendered.
    found = planned(tmp_path, **{"data.dir": str(finished / "data")})
    base, last = found.values()
    shutil.copytree(finished, base.folder)
    assert runs.missing(found.values()) == ([], [last])
    # A folder that somebody names is shared too.
    (one, _) = planned(tmp_path, **{"data.dir": str(tmp_path / "mine")}).values()
    assert one.config.data.dir == one.renders.config.data.dir == str(tmp_path / "mine")


def test_a_command_makes_the_config_of_its_run(tmp_path):
    (run, _) = planned(tmp_path).values()
    module, *words = run.command[1:]
    assert (run.command[0], module) == ("-m", "stormpsr_jax.main")
    args = config_flag.parse(main._parser(), words)
    assert args.config == run.config
    assert args.workdir == run.folder


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
    content = {"title": "T", "columns": ["f1"], "note": "", "picture": "a.png"}
    rows = [spread("row", [], ["f1"])]
    assert "| row | – | 0 |\n\n![T](a.png)\n" in markdown({**content, "rows": rows})
