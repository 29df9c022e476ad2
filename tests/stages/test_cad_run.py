import dataclasses
import json

import pytest

import stormpsr_jax
from stormpsr_jax.configs import cad
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import lantern, real_data, run_table
from tests.support.guide import REPOSITORY, block, follow
from tests.support.tiny import TINY, TRAINED, flags_of


@pytest.fixture(scope="module")
def made(system, tmp_path_factory):
    """The folder of all that was given and made, and what the page's command said."""
    folder = tmp_path_factory.mktemp("cad")
    wrong = {"lid": [{"translation": [0, 0, -32]}]}
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    _, procedure = lantern.write(folder, wrong=wrong)
    procedure.rename(folder / "pump.json")
    at_one = dataclasses.replace(load_procedure(folder / "pump.json"), fps=1.0)
    real_data.write(folder / "data_boxes", at_one, {"train": 1, "val": 4, "test": 1}, frames=30)
    fields = TINY | {"stages": cad.get_config().stages}
    for stage in TRAINED:
        fields |= {f"{stage}.steps": 2, f"{stage}.eval_every": 2}
    return folder, follow(folder, "cad", *flags_of(fields))


def test_a_product_that_nobody_filmed_is_rendered_learnt_and_recognised(made):
    folder, said = made
    alone = block("guide", "cad").replace(" --config.data.extra=data_boxes", "")
    assert alone.replace("pump_cad", "pump") == block("guide", "cad_train")
    for stage in cad.get_config().stages:
        assert f"{stage} …" in said
    model = stormpsr_jax.load_model(folder / "runs/pump_cad/model")
    assert model.procedure == load_procedure(folder / "pump.json")
    assert len(list((folder / "runs/pump_cad/data").glob("clips-train*"))) == 3
    assert any(model.part_pictures)


def test_real_recordings_are_learnt_from_choose_and_are_scored(made):
    folder, said = made
    assert "real recordings: 1 to train on, beside rendered ones; 4 for validation" in said
    done = json.loads((folder / "runs/pump_cad/detector/record.json").read_text())
    (training,) = done["trained"]
    assert training["recordings"]["train"] == ["train_000", "train_001", "train_002", "bench_000"]
    assert training["recordings"]["val"] == [f"bench_00{i}" for i in (1, 2, 3, 4)]
    metrics = json.loads((folder / "runs/pump_cad/metrics.json").read_text())
    assert list(metrics["streams"]["asd"]["recordings"]) == ["bench_005"]
    model = json.loads((folder / "runs/pump_cad/model/model.json").read_text())
    assert model["origin"]["data"] == {
        "rendered": False,
        "recordings": {"train": 4, "val": 4, "test": 1},
        "untested": True,
        "never_wrong": [],  # renders show each of them so
    }


def test_recognition_gives_what_the_table_says(made, tmp_path):
    folder, _ = made
    run_table.check(folder / "runs/pump_cad", folder / "data_boxes", tmp_path)
