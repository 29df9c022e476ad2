"""A change makes again what depends on it, and only that; nothing stale or damaged is used."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from stormpsr_jax import main
from stormpsr_jax.base import results
from stormpsr_jax.stages import remaking
from stormpsr_jax.training.checkpoint import BEST, save_best
from tests.support import shards_data
from tests.support.arrays import rewrite
from tests.support.tiny import opened, tiny

LIGHT = ("data", "pretrain", "embed", "temporal", "predict", "evaluate")


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def run(folder, remake=False, **changes):
    """Runs it; returns {stage that is made: why again} and the text."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main.run(tiny(**changes), folder, remake=remake)
    text = said.getvalue()
    made = {}
    for line in text.splitlines():
        name, _, rest = line.removesuffix(" …").partition(": ")
        if rest.startswith("made again (") or line.endswith(" …"):
            made.setdefault(name, rest)
    return made, text


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def labels(split, **changes):
    """An edit of labels/<split>.npz, as a folder made again has it."""
    return lambda folder: rewrite(folder / "data" / "labels" / f"{split}.npz", **changes)


def moved(boxes):
    boxes[:, :2] *= 0.99
    return boxes


def corrected(states):
    at = np.argwhere(states == -1)[0] if (states == -1).any() else (5, 0)
    states[tuple(at)] = 1 - states[tuple(at)] % 2
    return states


def shorter_label_file(folder):
    path = folder / "data" / "labels" / "test" / "test_000" / "PSR_labels.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def other_rate(folder):
    path = folder / "data" / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fps": 2.0}))


def procedure(folder, **variant):
    """An own procedure file, of whose content each stage reads a part."""
    content = json.loads((folder / "data" / "procedure.json").read_text())
    for known in content["variants"].values():
        known.update(variant)
    path = folder.parent / "procedure.json"
    path.write_text(json.dumps(content))
    return {"procedure": str(path)}


def less_expected(folder):
    return procedure(folder, expected=[0])


def other_start(folder):
    own = json.loads((folder / "data" / "procedure.json").read_text())
    components = len(own["components"])
    return procedure(folder, initial_state="1" + "0" * (components - 1), expected=[3])


def other_weights(folder):
    (folder.parent / "vit").write_text("")
    return {"init_from": str(folder.parent / "vit")}


def large(folder):
    shutil.copytree(folder / "data", folder / "large")
    return {"data.detector_dir": str(folder / "large")}


ENCODED = ("pretrain", "finetune")
STATES = ("pretrain", "temporal", "finetune", "detector")
SCORED = ("fuse", "evaluate")


@pytest.mark.parametrize(
    ("change", "stages", "why"),
    [
        ({"evaluate.threshold": 3.0}, ["evaluate"], "evaluate.threshold 0.0 → 3.0"),
        (
            {"detector.part_loss": 0.0},
            ["detector"],
            "detector.part_loss 1.0 → 0.0",
        ),
        ({"detector.cad_wrong": 0.25}, ["detector"], "detector.cad_wrong 0.5 → 0.25"),
        ({"augment.occluders": 0.5}, ["pretrain"], "augment.occluders 0.8 → 0.5"),
        ({"augment.saturation": 0.2}, [*ENCODED, "detector"], "augment.saturation 0.3 → 0.2"),
        ({"temporal_model.context_frames": 1}, ["temporal"], "temporal_model.context_frames 0 → 1"),
        ({"predict.batch": 3, "encoder.remat": "full", "log_every": 7}, [], ""),
        ({"data.synthetic.size": 40}, ["data"], "data.synthetic.size 32 → 40"),
        (labels("train", boxes=moved), ["detector"], "other boxes of split train"),
        (labels("train", states=corrected), STATES, "other states of split train"),
        (labels("cad", states=corrected), ["pretrain", "detector"], "other states of split cad"),
        (labels("test", boxes=moved), ["evaluate"], "other boxes of split test"),
        (shorter_label_file, ["evaluate"], "other label files of split test"),
        (other_rate, ["pretrain", *SCORED], "other frames per second of split"),
        (less_expected, ["evaluate"], "another procedure (whole)"),
        (other_start, SCORED, "another procedure ("),
        (other_weights, ["pretrain"], "other file of init_from"),
        (large, ["predict"], "other the detector's pictures of split"),
    ],
)
def test_a_change_makes_again_what_is_made_from_it(folder, change, stages, why):
    fields = change if isinstance(change, dict) else change(folder) or {}
    made, stages_by_name = opened(tiny(**fields), folder)
    found = remaking.stale(made, list(stages_by_name.values()))
    direct = {
        stage.name: reasons
        for stage, reasons in found.items()
        if not reasons[0].endswith("is made again")
    }
    assert direct.keys() == set(stages)
    for name, reasons in direct.items():
        # What was made again before comes second.
        assert why in reasons[0], name


# --- Runs -----------------------------------------------------------------------------------------


def test_other_settings_are_scored_without_training_and_stages_left_out_are_seen(folder):
    made, text = run(folder, stages=LIGHT, **{"evaluate.threshold": 3.0})
    assert list(made) == ["predict", "evaluate"]
    assert "evaluate: made again (evaluate.threshold 0.0 → 3.0" in text
    assert not (folder / "predictions" / "test" / "asd").exists()
    model = json.loads((folder / "model" / "model.json").read_text())
    for streams in (metrics(folder)["streams"], model["streams"]):
        assert set(streams) == {"temporal"}
        assert streams["temporal"]["settings"]["threshold"] == 3.0
    made, text = run(folder)
    assert list(made) == ["predict", "evaluate"]
    assert "stage detector is new" in text
    assert set(metrics(folder)["streams"]) == {"asd", "temporal", "storm", "learned"}


def test_weights_are_not_thrown_away_unasked(folder):
    change = {"stages": LIGHT, "temporal.state_loss": 0.0}
    with pytest.raises(ValueError, match=r"train again: temporal \(temporal\.state_loss 1\.0 → 0"):
        run(folder, **change)
    made, _ = run(folder, remake=True, **change)
    assert list(made) == ["temporal", "predict", "evaluate"]
    assert "another result of predict" in made["evaluate"]
    networks = json.loads((folder / "model" / "model.json").read_text())["networks"]
    assert networks["temporal"]["outputs"] == 1


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("temporal/best.safetensors", "temporal"),
        ("predictions/test/scores/test_000.npz", "predict"),
        ("embed/record.json", "embed"),
    ],
)
def test_damage_is_named_and_made_again_as_it_was(folder, finished, name, stage):
    flip(folder / name)
    if name.endswith(results.RECORD):
        (folder / name).write_text("{")
    made, text = run(folder)
    assert next(iter(made)) == stage
    assert (f"{name} was damaged or changed" in text) or "record.json: line 1: not JSON" in text
    assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert set(made) == {stage}


def test_files_without_a_record_of_what_they_were_made_from_are_made_again(folder, finished):
    name = "predictions/test/asd/test_000_results_pred.csv"
    (folder / name).write_text("")
    shutil.rmtree(folder / "predict")
    assert "predict" in run(folder)[0]
    assert (folder / name).read_bytes() == (finished / name).read_bytes()


def test_a_field_that_is_newer_than_a_run_loses_nothing_of_it_at_its_default(folder):
    record = folder / "temporal/record.json"
    content = json.loads(record.read_text())
    del content["made_from"]["config"]["temporal.sampling"]  # of an earlier version without it
    record.write_text(json.dumps(content))
    assert run(folder)[0] == {}
    with pytest.raises(ValueError, match=r"temporal.sampling absent → 'uniform'|--remake"):
        run(folder, **{"temporal.sampling": "uniform"})


def test_what_is_unknown_or_left_out_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"'predict' .* as it is \(data.mean \[0.5, 0.5, 0.5\] → \["
    ):
        run(folder, stages=("evaluate",), **{"data.mean": (0.4, 0.5, 0.5)})
    flip(folder / "pretrain" / "best.safetensors")
    with pytest.raises(ValueError, match=r"'pretrain' .* used as it is \(pretrain/best.* was dam"):
        run(folder, stages=("embed",))
    record = results.read(folder / "temporal")
    record.results = None  # begun, and goes on only with what it began with
    results.write(folder / "temporal", record)
    with pytest.raises(ValueError, match=r"temporal \(temporal.sigma 2.0 → 3.0\)"):
        run(folder, **{"temporal.sigma": 3.0})
    (folder / "temporal" / results.RECORD).write_text("{")
    with pytest.raises(ValueError, match=r"train again: temporal \(.*record.json: line 1: not JS"):
        run(folder)


def test_what_other_code_has_made_is_kept_and_told_until_it_is_to_be_made_again(folder):
    record = results.read(folder / "temporal")
    digest = record.made_from["package"]["digest"]
    record.made_from["package"]["digest"] = "0"
    results.write(folder / "temporal", record)
    made, text = run(folder, stages=LIGHT[:4])
    assert made == {}
    told = "made by other code of the package, and kept: temporal; --remake makes it again\n"
    assert told in text
    made, text = run(folder, remake=True, stages=LIGHT[:4])
    assert made == {"temporal": "made again (other code of the package)"}
    assert "and kept" not in text
    assert results.read(folder / "temporal").made_from["package"]["digest"] == digest


def test_weights_do_not_start_from_what_saw_recordings_that_choose_or_are_scored(tmp_path):
    def context(name, init_from="", **splits):
        data = tmp_path / f"{name}_data"
        shards_data.build(data, splits=splits)
        fields = {"procedure": "", "data.dir": str(data), "stages": ("pretrain",)}
        fields |= {"pretrain.cad_per_state": 0, "init_from": init_from}
        return opened(tiny(**fields), tmp_path / name)

    def make(made, stages):
        """Makes stage pretrain as a run does, but for its training."""
        stage = stages["pretrain"]
        remaking.check(made, [stage], remake=False)
        assert not remaking.prepare(made, stage, remake=False)
        save_best(made.workdir / "pretrain", {"w": np.zeros(2)}, {})
        remaking.finish(made, stage, {"best_step": 5})
        return str(made.workdir / "pretrain" / BEST)

    first = make(*context("first", train=["a", "b"], val=["c"], test=["d"]))
    second = make(*context("second", first, train=["b"], val=["c"], test=["d"]))
    trained = results.read(tmp_path / "second/pretrain").trained
    assert [one.recordings["train"] for one in trained] == [["a", "b"], ["b"]]
    assert [one.steps for one in trained] == [5, 5]
    # The first of the trainings behind these weights saw one.
    third, stages = context("third", second, train=["b"], val=["c"], test=["a", "d"])
    saw = f"--config.init_from={second}: these weights saw a in split train, and now it is in test"
    with pytest.raises(ValueError, match=saw):
        remaking.prepare(third, stages["pretrain"], remake=True)
    # Also of a stage that is left out, and that comes long before.
    for name in ("pretrain", "temporal"):
        with pytest.raises(ValueError, match=saw):
            remaking.check(third, [stages[name]], remake=True)
        shutil.copytree(tmp_path / "second", tmp_path / "third", dirs_exist_ok=True)
