"""A change makes again what depends on it, and only that; nothing stale or damaged is used."""

import contextlib
import fnmatch
import io
import itertools
import json
import os
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from stormpsr_jax import main
from stormpsr_jax.stages import (
    detector,
    embed,
    finetune,
    fuse,
    order,
    predict,
    pretrain,
    product_gate,
    provenance,
    temporal,
)
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support import check_data
from tests.support.arrays import rewrite
from tests.support.tiny import TRAINED, tiny

STAGES = ("data", *TRAINED, "embed", "predict", "evaluate")
FREE = (*provenance.FREE, *(field for stage in order.STAGES for field in stage.free))
LIGHT = ("data", "pretrain", "embed", "temporal", "predict", "evaluate")


@pytest.fixture
def run(finished, tmp_path):
    """Runs a copy of a finished run; returns {stage: why it was made again} and the text."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)

    def run(remake="", **changes):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            main.run(tiny(**changes), folder, remake=remake)
        text = said.getvalue()
        again = {}
        for line in text.splitlines():
            _, _, rest = line.partition(": ")
            if rest.startswith("made again (") or line.endswith(" …"):
                again.setdefault(line.removesuffix(" …").partition(":")[0], rest)
        return again, text

    run.folder = folder
    return run


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_evaluate_other_settings_are_scored_without_training(run):
    before = metrics(run.folder)
    again, text = run(**{"evaluate.decay": 0.5})
    assert list(again) == ["evaluate"]
    assert "evaluate: made again (evaluate.decay 0.75 → 0.5)" in text
    assert before["streams"]["storm"]["settings"]["decay"] == 0.75
    assert metrics(run.folder)["streams"]["storm"]["settings"]["decay"] == 0.5
    model = json.loads((run.folder / "model" / "model.json").read_text())
    assert model["streams"]["storm"]["settings"]["decay"] == 0.5


def test_stages_one_added_or_left_out_is_seen_by_those_after_it(run):
    again, _ = run(stages=LIGHT)
    assert list(again) == ["predict", "evaluate"]
    assert set(metrics(run.folder)["streams"]) == {"temporal"}
    assert not (run.folder / "predictions" / "test" / "asd").exists()
    again, text = run()
    assert list(again) == ["predict", "evaluate"]
    assert "stage detector is new" in text
    assert set(metrics(run.folder)["streams"]) == {"asd", "temporal", "storm", "learned"}


def edit_labels(folder, split, **arrays):
    """Puts other arrays into labels/<split>.npz, as a folder made again has them."""
    rewrite(folder / "data" / "labels" / f"{split}.npz", **arrays)


def test_boxes_do_not_train_the_encoder_again(run):
    def moved(boxes):
        boxes[:, :2] *= 0.99
        return boxes

    edit_labels(run.folder, "train", boxes=moved)
    with pytest.raises(ValueError, match=r"train again: detector \(other boxes of split train\);"):
        run()
    again, _ = run(remake="anew")
    assert "detector" in again
    assert not {"pretrain", "embed", "temporal", "finetune"} & again.keys()


def test_labels_a_corrected_state_trains_again_what_reads_it(run):
    def corrected(states):
        states[5, 0] = 1 - states[5, 0]
        return states

    edit_labels(run.folder, "train", states=corrected)
    with pytest.raises(ValueError, match="throw the weights") as caught:
        run()
    for stage in ("pretrain", "temporal", "finetune", "detector"):
        assert f"{stage} (other states of split train" in str(caught.value)


def test_labels_of_renders_train_again_what_learns_from_them(run):
    """The detector's head of components reads their states, not only boxes and classes."""

    def corrected(states):
        wrong = np.argwhere(states == -1)[0]
        states[tuple(wrong)] = 1
        return states

    edit_labels(run.folder, "cad", states=corrected)
    with pytest.raises(ValueError, match="throw the weights") as caught:
        run()
    assert "detector (other states of split cad)" in str(caught.value)
    assert "pretrain (other states of split cad)" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "trained"),
    [
        ("detector.part_loss", 0.5, ["detector"]),
        ("detector.part_loss", 0.0, ["detector"]),
        ("detector.pose_loss", 0.5, ["detector"]),
        ("detector.pose_loss", 0.0, ["detector"]),
        ("detector.cad_wrong", 0.25, ["detector"]),
        ("pretrain.key_frames", "random", ["pretrain"]),
        ("augment.occluders", 0.5, ["pretrain"]),
        ("augment.shift", 0.1, ["pretrain", "finetune"]),
        ("augment.contrast", 0.2, ["pretrain", "finetune", "detector"]),
        ("temporal_model.context_frames", 1, ["temporal", "finetune"]),
        ("temporal.state_loss", 2.0, ["temporal", "finetune"]),
        ("temporal.state_loss", 0.0, ["temporal", "finetune"]),
    ],
)
def test_fields_of_conditions_train_again_what_they_shape(run, field, value, trained):
    with pytest.raises(ValueError, match="throw the weights") as caught:
        run(**{field: value})
    text = str(caught.value)
    before = tiny()
    for key in field.split("."):
        before = before[key]
    for stage in TRAINED:
        assert (f"{stage} ({field} {before} → {value}" in text) == (stage in trained)


def test_fields_without_conditions_the_networks_are_smaller_and_used_to_the_end(run):
    off = ("detector.part_loss", "detector.pose_loss", "temporal.state_loss")
    networks = json.loads((run.folder / "model" / "model.json").read_text())["networks"]
    assert networks["temporal"]["outputs"] == 3
    assert networks["detector"]["num_components"] > 0
    assert networks["detector"]["upright"]
    again, _ = run(remake="anew", **dict.fromkeys(off, 0.0))
    later = ["predict", "product_gate", "fuse", "evaluate"]
    assert list(again) == ["temporal", "finetune", "detector", *later]
    networks = json.loads((run.folder / "model" / "model.json").read_text())["networks"]
    assert networks["temporal"]["outputs"] == 1
    assert networks["detector"]["num_components"] == 0
    assert not networks["detector"]["upright"]


def test_labels_by_which_wrong_renders_are_found_train_again_without_a_head_for_them(finished):
    fields = {"detector.part_loss": 0.0, "data.dir": str(finished / "data")}
    context = Context(tiny(**fields), finished, None)
    read = provenance.made_from(context, detector.STAGE)["data"].keys()
    assert "states of split cad" in read
    assert "states of split train" not in read


def test_fits_other_frames_a_second_or_pictures_of_the_detector_are_seen(finished, tmp_path):
    for name in ("data", "large"):
        shutil.copytree(finished / "data", tmp_path / name)
    fields = {name: str(tmp_path / f) for name, f in (("dir", "data"), ("detector_dir", "large"))}
    config = tiny(**{f"data.{name}": folder for name, folder in fields.items()})
    before = provenance.made_from(Context(config, tmp_path, None), product_gate.STAGE)
    for name in ("data", "large"):
        path = tmp_path / name / "settings.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fps": 2.0}))
    record = {"made_from": before, "damage": []}
    now = provenance.made_from(Context(config, tmp_path, None), product_gate.STAGE)
    assert provenance.changes(record, now) == ["other frames per second"]
    assert "the detector's pictures of split val" in now["data"]


def test_label_files_of_the_test_split_are_scored_again(run):
    path = run.folder / "data" / "labels" / "test" / "test_000" / "PSR_labels.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    before = metrics(run.folder)["streams"]["storm"]["recordings"]["test_000"]["truth"]
    again, text = run()
    assert list(again) == ["evaluate"]
    assert "other label files of split test" in text
    after = metrics(run.folder)["streams"]["storm"]["recordings"]["test_000"]["truth"]
    assert len(after) == len(before) - 1


def test_procedure_what_may_happen_changes_scores_and_what_is_catalogued_trains(run):
    """An own procedure file, of whose content each stage reads a part."""
    content = json.loads((run.folder / "data" / "procedure.json").read_text())
    path = run.folder.parent / "procedure.json"
    for variant in content["variants"].values():
        variant["expected"] = variant["expected"][:-1]
    path.write_text(json.dumps(content))
    again, text = run(procedure=str(path))
    assert list(again) == ["evaluate"]
    assert "another procedure (whole)" in text


def test_size_another_one_is_another_folder_of_pictures(run):
    with pytest.raises(ValueError, match=r"pretrain \(data is made again\)"):
        run(**{"data.synthetic.size": 40})


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("finetune/best.safetensors", "finetune"),
        ("embed/val/val_000.0.npy", "embed"),
        ("predictions/test/temporal/test_000_results_pred.csv", "predict"),
        ("predictions/test/scores/test_000.npz", "predict"),
        ("product_gate/product_gate.json", "product_gate"),
        ("fuse/fusion.json", "fuse"),
        ("model/weights.safetensors", "evaluate"),
        ("metrics.json", "evaluate"),
    ],
)
def test_damage_is_named_and_made_again_as_it_was(run, finished, name, stage):
    path = run.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    again, text = run()
    assert next(iter(again)) == stage
    assert f"{name} was damaged or changed" in text
    assert path.read_bytes() == (finished / name).read_bytes()
    assert set(again) <= {stage, "evaluate"}  # whose figures are the same, but not its date


@pytest.mark.parametrize(
    ("stage", "name", "way"),
    [
        ("embed", "embed/val/val_000.0.npy", "flipped"),
        ("embed", "embed/val/val_000.0.npy", "removed"),
        ("predict", "predictions/test/asd/test_000_results_pred.csv", "flipped"),
        ("predict", "predict/completed/test/test_000.json", "flipped"),
        ("temporal", "temporal/best.safetensors", "flipped"),
    ],
)
@pytest.mark.filterwarnings("default:checkpoint")
def test_damage_of_an_interrupted_stage_is_named(run, finished, stage, name, way, recwarn):
    """What it has finished is kept, but for what was damaged."""
    (run.folder / stage / provenance.DONE).unlink()
    path = run.folder / name
    before = {p: p.stat().st_mtime_ns for p in path.parent.iterdir() if p.is_file()}
    if way == "flipped":
        content = bytearray(path.read_bytes())
        content[-9] ^= 4
        path.write_bytes(content)
    else:
        path.unlink()
    again, text = run()
    assert list(again) == [stage]
    warned = "".join(str(warning.message) for warning in recwarn)
    # A damaged checksum looks like damage of the file that it is of.
    assert name in text + warned or "damaged or changed; the recording is done again" in text
    for file in path.parent.iterdir():
        if file.is_file() and stage != "temporal":
            assert file.read_bytes() == (finished / file.relative_to(run.folder)).read_bytes()
            assert (file.stat().st_mtime_ns == before.get(file)) == (file != path)
    best = run.folder / "temporal" / "best.safetensors"
    assert best.read_bytes() == (finished / "temporal" / "best.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("temporal/done.json", ["temporal"]),  # from its last checkpoint, with the same result
        ("embed/done.json", ["embed"]),
        ("predict/done.json", ["predict"]),
        ("checksums.json", []),
        ("pretrain/made_from.json", []),  # what counts is in done.json
    ],
)
def test_records_damaged_ones_are_made_again(run, finished, name, again):
    path = run.folder / name
    path.write_bytes(path.read_bytes()[:-20])
    before = metrics(run.folder)
    found, text = run()
    assert list(found) == again
    assert (f"{path}: line" in text) == bool(again)
    assert metrics(run.folder) == before
    for best in run.folder.glob("*/best.safetensors"):
        assert best.read_bytes() == (finished / best.relative_to(run.folder)).read_bytes()


def test_damage_of_a_log_is_said_and_nothing_is_trained_again(run):
    path = run.folder / "temporal" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(True)[:-1]))
    again, text = run()
    assert again == {}
    assert f"temporal: {path} was damaged or changed" in text


def test_records_errors_sound_weights_without_any_are_not_thrown_away_unasked(run):
    for name in (provenance.DONE, provenance.MADE_FROM):
        (run.folder / "temporal" / name).write_text("{")
    with pytest.raises(ValueError, match=r"train again: temporal \(.*done.json: line 1: not JSON"):
        run()
    again, _ = run(remake="anew")
    assert next(iter(again)) == "temporal"


def test_others_errors_a_damaged_result_of_a_stage_left_out(run):
    path = run.folder / "pretrain" / "best.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"'pretrain' .* cannot be used \(pretrain/best.* was dam"):
        run(stages=("embed",))


def test_stage_errors_a_pipe_in_its_folder(run):
    (run.folder / "temporal" / "metrics.jsonl").unlink()
    os.mkfifo(run.folder / "temporal" / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics.jsonl: is not a regular file; remove it"):
        run()


def test_interrupted_goes_on_only_with_what_it_began_with(run):
    (run.folder / "temporal" / provenance.DONE).unlink()
    with pytest.raises(ValueError, match=r"temporal \(temporal.sigma 2.0 → 3.0\)"):
        run(**{"temporal.sigma": 3.0})
    again, text = run()
    assert list(again) == ["temporal"]  # from its last checkpoint: with the same result
    assert "made again" not in text


def test_others_errors_a_stage_left_out_whose_result_is_of_something_else(run):
    """Else the model would have the networks of one config and the pictures of another."""
    with pytest.raises(ValueError, match=r"'predict' .* else \(data.mean \[0.5, 0.5, 0.5\] → \["):
        run(stages=("evaluate",), **{"data.mean": (0.4, 0.5, 0.5)})


class Reading:
    """A config that notes which fields are read."""

    def __init__(self, config, read, prefix=""):
        self.__dict__.update(_config=config, _read=read, _prefix=prefix)

    def __getattr__(self, name):
        value = getattr(self._config, name)
        if isinstance(value, ConfigDict):
            return Reading(value, self._read, f"{self._prefix}{name}.")
        self._read.add(self._prefix + name)
        return value

    __getitem__ = __getattr__

    def keys(self):
        return self._config.keys()

    def items(self):
        """Notes no field: what a network takes of a section is on record where it was trained."""
        return self._config.items()


@pytest.mark.parametrize(
    "stage", [pretrain, embed, temporal, finetune, detector, predict, product_gate]
)
def test_fields_are_all_that_a_stage_reads(finished, tmp_path, stage):
    """Whatever field a stage reads is on its record, or is one that changes no result."""
    name = stage.__name__.rpartition(".")[2]
    for before in ("data", "pretrain", "embed", "temporal", "finetune", "detector"):
        if before != name:
            (tmp_path / before).symlink_to(finished / before)
    read = set()
    config = tiny(**{"embed.views": 1 if name == "embed" else 0})
    context = Context(Reading(config, read), tmp_path, make_mesh(1, 1))
    if name in ("embed", "predict", "product_gate"):  # one recording is enough
        for recordings in (context.source(split).recordings for split in ("train", "val", "test")):
            for other in list(recordings)[1:]:
                del recordings[other]
    if name in TRAINED:
        definition = stage.build(context)
        params, batch_stats = definition.init()
        definition.optimizer(params)
        definition.schedule(0)
        batches = definition.data(0)
        held = definition.held() if definition.held else {}
        definition.loss_fn(params, batch_stats, next(batches) | held, context.key("test"))
        batches.close()
        definition.evaluate(params, batch_stats)
    else:
        stage.run(context)
    folders = ("data.dir", "data.cad_dir", "data.detector_dir", "data.extra")
    neutral = (*FREE, "procedure", "stages", *folders, "init_from")
    unknown = [
        field
        for field in read
        if not any(fnmatch.fnmatchcase(field, pattern) for pattern in neutral)
        and not any(field == known or field.startswith(f"{known}.") for known in stage.STAGE.fields)
    ]
    assert read
    assert not unknown
    named = provenance.made_from(Context(config, tmp_path, None), stage.STAGE)["config"]
    assert {field for field in named if field.startswith(("augment.", "predict."))} <= read


@pytest.mark.parametrize("stage", [detector, product_gate])
def test_fields_that_an_earlier_version_named_too_make_nothing_again(finished, stage):
    """Of its records: what the stage does not read is no difference, and all else is one."""
    record = provenance.read(finished / stage.STAGE.name)
    now = provenance.made_from(Context(tiny(), finished, None), stage.STAGE)
    record["made_from"]["config"] |= dict.fromkeys(provenance.UNREAD, "another value")
    assert provenance.changes(record, now) == []
    record["made_from"]["config"] |= {"temporal.sigma": 2.0}
    assert provenance.changes(record, now) == ["temporal.sigma 2.0 → absent"]


def test_fields_every_name_is_one_of_the_config():
    fields = provenance.flat_config(tiny())
    for name in itertools.chain.from_iterable(stage.fields for stage in order.STAGES):
        assert any(field == name or field.startswith(f"{name}.") for field in fields), name
    for pattern in FREE:
        assert any(fnmatch.fnmatchcase(field, pattern) for field in fields), pattern


def test_procedure_fits_and_fuse_record_what_recordings_begin_with(tmp_path):
    data = check_data.build(tmp_path / "data")

    def made_from(stage, **variants):
        content = check_data.PROCEDURE.to_json() | {"variants": variants}
        path = tmp_path / "procedure.json"
        path.write_text(json.dumps(content))
        context = Context(tiny(**{"procedure": str(path), "data.dir": str(data)}), tmp_path, None)
        return provenance._procedure(context, stage)

    def variant(initial, *globs):
        return {"initial_state": initial, "expected": [], "recordings": globs}

    before = {"empty": variant("000", "a", "b", "c", "d"), "full": variant("111", "e")}
    other_globs = {"empty": variant("000", "a", "b", "d"), "full": variant("111", "c", "e")}
    other_start = before | {"full": variant("100", "e")}
    fits_before, fuse_before = (made_from(s, **before) for s in (product_gate.STAGE, fuse.STAGE))
    assert made_from(product_gate.STAGE, **other_start) != fits_before
    assert made_from(product_gate.STAGE, **other_globs) == fits_before
    assert made_from(fuse.STAGE, **other_start) != fuse_before
    assert made_from(fuse.STAGE, **other_globs) != fuse_before
