"""A run of two steps a stage, in this process: what a plain test can see of all stages."""

import json

import pytest

from stormpsr_jax import load_model, main
from tests.support.made_once import made_once
from tests.support.tiny import TRAINED, tiny

SHORT = {
    **{f"{stage}.{field}": 2 for stage in TRAINED for field in ("steps", "eval_every")},
    **{f"{stage}.{field}": 1 for stage in TRAINED for field in ("checkpoint_every", "log_every")},
    **{f"data.synthetic.recordings.{split}": 1 for split in ("train", "val", "test")},
    "data.synthetic.cad_per_state": 1,
    "data.synthetic.cad_wrong": 1,
    # Most of the time is compilation; what is left out here has tests of its own.
    **{f"augment.{field}": 0.0 for field in ("occluders", "blur_sigma", "shift")},
    **{f"detector.{field}": 0.0 for field in ("cad", "cad_wrong", "part_loss", "pose_loss")},
    **{f"detector.{field}": 0.0 for field in ("zoom", "shift")},
    "temporal.state_loss": 0.0,
    "encoder.stem": (),
    "detector.depth": 0,
}


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    """Its work folder, which tests may go on with."""
    make = lambda folder: main.run(tiny(**SHORT), folder)  # noqa: E731
    return made_once(tmp_path_factory, "short", make)


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_short_run_leaves_a_model_its_figures_and_a_report(short):
    assert set(metrics(short)["streams"]) == {"asd", "temporal", "storm", "learned"}
    assert set(load_model(short / "model").streams) == set(metrics(short)["streams"])
    assert "<svg" in (short / "report.html").read_text(encoding="utf-8")
    for stage in TRAINED:
        rows = (short / stage / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in rows if "loss" in json.loads(row)] == [1, 2]


def test_a_short_run_goes_on_with_what_a_change_concerns_and_nothing_else(short, capsys):
    main.run(tiny(**SHORT), short)
    assert "made again" not in capsys.readouterr().out
    main.run(tiny(**SHORT, **{"evaluate.decay": 0.5}), short)
    again = [line for line in capsys.readouterr().out.splitlines() if "made again" in line]
    assert again == ["evaluate: made again (evaluate.decay 0.75 → 0.5)"]
    assert metrics(short)["streams"]["storm"]["settings"]["decay"] == 0.5


def test_a_short_run_says_what_is_wrong_before_it_begins(short):
    wrong = {f"{stage}.steps": -1 for stage in TRAINED}
    with pytest.raises(ValueError, match="steps") as caught:
        main.run(tiny(**SHORT | wrong), short)
    assert len(str(caught.value).splitlines()) == len(TRAINED)
