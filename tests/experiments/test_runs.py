import pytest

from stormpsr_jax.experiments import execute
from stormpsr_jax.experiments.result_tables import markdown, spread
from stormpsr_jax.experiments.runs import Run, expected_stages
from tests.support.tiny import tiny


def run_of(folder, name, **changes):
    return Run(name, tiny(**{"data.dir": str(folder / "data"), **changes}), folder / name)


def test_a_plan_makes_what_runs_share_once(tmp_path):
    base, last = (
        run_of(tmp_path, "base"),
        run_of(tmp_path, "last", **{"temporal_model.context_frames": 1}),
    )
    other = run_of(tmp_path, "other", **{"data.dir": str(tmp_path / "elsewhere")})
    assert expected_stages([base, last, other]) == {
        base: list(base.config.stages),
        last: ["temporal", "finetune", "predict", "fuse", "evaluate"],
        other: list(other.config.stages),
    }


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, ["evaluate"]),
        (
            {"temporal.delta": 3.0},
            ["temporal", "finetune", "predict", "fuse", "evaluate"],
        ),
        (
            {"detector.cad_wrong": 0.2},
            ["detector", "predict", "fuse", "evaluate"],
        ),
        ({"seed": 1}, None),
    ],
)
def test_a_plan_leaves_out_what_other_work_folders_have(tmp_path, finished, changes, left):
    run = run_of(tmp_path, "run", **{"data.dir": str(finished / "data"), **changes})
    every = list(run.config.stages)[1:]  # its data are given
    assert expected_stages([run], [finished]) == {run: every if left is None else left}
    assert expected_stages([run]) == {run: every}


def test_what_is_left_takes_as_long_as_stages_of_its_name_took(tmp_path):
    a, b = run_of(tmp_path, "a"), run_of(tmp_path, "b")
    expected = {a: ["embed", "temporal"], b: ["temporal"]}
    progress = execute.Outlook(expected)
    assert progress.seconds("temporal") is None
    assert progress.left() == "time left not known yet"
    progress.made(a, "temporal", 600)
    assert progress.left() == "at least 10 min left"  # nothing is known of embed
    progress.made(a, "embed", 60)
    assert progress.left() == "about 10 min left"
    progress.ended(b)
    assert progress.left() == "about 0 min left"
    # The log of an earlier command tells too.
    a.log.write_text("data: done before\ntemporal: 30 s\nembed: 5 s\nnonsense: x s\n")
    again = execute.Outlook(expected)
    assert (again.seconds("temporal"), again.seconds("embed")) == (30, 5)


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
