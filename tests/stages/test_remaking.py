"""A change makes again what depends on it, and only that; nothing stale or damaged is used."""

import contextlib
import fnmatch
import io
import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import stormpsr_jax
from stormpsr_jax import main
from stormpsr_jax.base import files, results
from stormpsr_jax.stages import (
    detector,
    embed,
    finetune,
    order,
    predict,
    pretrain,
    provenance,
    remaking,
    temporal,
)
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.arrays import rewrite
from tests.support.processes import ROOT
from tests.support.tiny import TRAINED, command, tiny

LIGHT = ("data", "pretrain", "embed", "temporal", "predict", "evaluate")
SHARED = ("pretrain", "embed", "temporal", "finetune", "detector", "predict")


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def run(folder, remake="", others=(), keep=(), **changes):
    """Runs it; returns {stage that is made: why again} and the text."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main.run(tiny(**changes), folder, remake=remake, others=others, keep=keep)
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


# --- What depends on what -------------------------------------------------------------------------


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
CLIPS = ("temporal", "finetune", "predict")
SCORED = ("fuse", "evaluate")


@pytest.mark.parametrize(
    ("change", "stages", "why"),
    [
        ({"evaluate.decay": 0.5}, ["evaluate"], "evaluate.decay 0.75 → 0.5"),
        (
            {"detector.part_loss": 0.0},
            ["detector", "predict"],
            "detector.part_loss 1.0 → 0.0",
        ),
        ({"detector.cad_wrong": 0.25}, ["detector"], "detector.cad_wrong 0.5 → 0.25"),
        ({"augment.occluders": 0.5}, ["pretrain"], "augment.occluders 0.8 → 0.5"),
        ({"augment.contrast": 0.2}, [*ENCODED, "detector"], "augment.contrast 0.1 → 0.2"),
        ({"temporal_model.context_frames": 1}, CLIPS, "temporal_model.context_frames 0 → 1"),
        ({"embed.batch": 3, "encoder.remat": "full", "encoder.microbatches": 2}, [], ""),
        ({"data.synthetic.size": 40}, ["data"], "data.synthetic.size 32 → 40"),
        (labels("train", boxes=moved), ["detector"], "other boxes of split train"),
        (labels("train", states=corrected), TRAINED, "other states of split train"),
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
    context = Context(tiny(**fields), folder, None)
    found = remaking.stale(context, order.chosen(context))
    direct = {
        stage.name: reasons
        for stage, reasons in found.items()
        if not reasons[0].endswith("is made again")
    }
    assert direct.keys() == set(stages)
    for name, reasons in direct.items():
        # What was made again before comes second.
        assert why in reasons[0], name
    if change is other_weights:
        now = provenance.made_from(context, pretrain.STAGE)
        record = provenance.read(folder / "pretrain")
        (line,) = remaking._refused(context, pretrain.STAGE, record, now)
        assert "has other things changed than its data (other file of init_from)" in line


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
    "stage",
    [pretrain, embed, temporal, finetune, detector, predict],
)
def test_fields_are_all_that_a_stage_reads(finished, tmp_path, stage):
    name = stage.__name__.rpartition(".")[2]
    stages = ("pretrain", "embed", "temporal", "finetune", "detector")
    for before in ("data", *stages):
        if before != name:
            (tmp_path / before).symlink_to(finished / before)
    read = set()
    config = tiny()
    context = Context(Reading(config, read), tmp_path, make_mesh(1, 1))
    if name in ("embed", "predict"):  # one recording is enough
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
        given = params, batch_stats, next(batches) | held, context.key("test")
        jax.eval_shape(definition.loss_fn, *given)
        batches.close()
        definition.evaluate(params, batch_stats)
    else:
        stage.run(context)
    folders = ("data.dir", "data.cad_dir", "data.detector_dir", "data.extra")
    free = [name[1:] for one in order.STAGES for name in one.fields if name.startswith("!")]
    neutral = (*provenance.FREE, *free, "procedure", "stages", *folders)
    named = provenance.fields(config, stage.STAGE)
    unknown = [
        field
        for field in read - named.keys()
        if not any(fnmatch.fnmatchcase(field, pattern) for pattern in neutral)
    ]
    assert read
    assert not unknown
    assert {field for field in named if field.startswith(("augment.", "predict."))} <= read


# --- Runs -----------------------------------------------------------------------------------------


def test_other_settings_are_scored_without_training_and_stages_left_out_are_seen(folder):
    made, text = run(folder, stages=LIGHT, **{"evaluate.decay": 0.5})
    assert list(made) == ["predict", "evaluate"]
    assert "evaluate: made again (evaluate.decay 0.75 → 0.5" in text
    assert not (folder / "predictions" / "test" / "asd").exists()
    model = json.loads((folder / "model" / "model.json").read_text())
    for streams in (metrics(folder)["streams"], model["streams"]):
        assert set(streams) == {"temporal"}
        assert streams["temporal"]["settings"]["decay"] == 0.5
    made, text = run(folder)
    assert list(made) == ["predict", "evaluate"]
    assert "stage detector is new" in text
    assert set(metrics(folder)["streams"]) == {"asd", "temporal", "storm", "learned"}


def test_weights_are_not_thrown_away_unasked(folder):
    change = {"stages": LIGHT, "temporal.state_loss": 0.0}
    with pytest.raises(ValueError, match=r"train again: temporal \(temporal\.state_loss 1\.0 → 0"):
        run(folder, **change)
    made, _ = run(folder, "anew", **change)
    assert list(made) == ["temporal", "predict", "evaluate"]
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


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("embed", "embed/val/val_000.npy"),
        ("predict", "predict/completed/test/test_000/record.json"),
        ("temporal", "temporal/best.safetensors"),
    ],
)
@pytest.mark.filterwarnings("default:checkpoint")
def test_an_interrupted_stage_keeps_what_is_sound(folder, finished, stage, name, recwarn):
    record = results.read(folder / stage)
    record.results = None
    results.write(folder / stage, record)
    path = folder / name
    before = {p: p.stat().st_mtime_ns for p in path.parent.iterdir() if p.is_file()}
    flip(path)
    made, text = run(folder)
    assert list(made) == [stage]
    warned = "".join(str(warning.message) for warning in recwarn)
    assert name in text + warned or "it is made again" in text
    for file in before:
        if stage != "temporal":
            assert file.read_bytes() == (finished / file.relative_to(folder)).read_bytes()
            assert (file.stat().st_mtime_ns == before[file]) == (file != path)
    best = folder / "temporal" / "best.safetensors"
    assert best.read_bytes() == (finished / "temporal" / "best.safetensors").read_bytes()


def test_what_is_unknown_or_left_out_is_refused(folder):
    with pytest.raises(ValueError, match=r"'predict' .* else \(data.mean \[0.5, 0.5, 0.5\] → \["):
        run(folder, stages=("evaluate",), **{"data.mean": (0.4, 0.5, 0.5)})
    flip(folder / "pretrain" / "best.safetensors")
    with pytest.raises(ValueError, match=r"'pretrain' .* cannot be used \(pretrain/best.* was dam"):
        run(folder, stages=("embed",))
    record = results.read(folder / "temporal")
    record.results = None  # begun, and goes on only with what it began with
    results.write(folder / "temporal", record)
    with pytest.raises(ValueError, match=r"temporal \(temporal.sigma 2.0 → 3.0\)"):
        run(folder, **{"temporal.sigma": 3.0})
    (folder / "temporal" / results.RECORD).write_text("{")
    with pytest.raises(ValueError, match=r"train again: temporal \(.*record.json: line 1: not JS"):
        run(folder)


# --- Other code -----------------------------------------------------------------------------------


def test_what_other_code_has_made_is_made_again_or_kept_as_the_user_says(folder, tmp_path):
    """In a copy of the package, whose sources are edited."""
    for name in ("configs", "data_prep", "stormpsr_jax"):
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=left_out)
    best = folder / "temporal/best.safetensors"
    before = best.read_bytes()

    def edit(name, old, new):
        path = tmp_path / "stormpsr_jax" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    def again(*flags):
        stages = ("data", "pretrain", "embed", "temporal")
        words, env = command(folder, {"stages": stages}, PYTHONPATH=str(tmp_path))
        return subprocess.run(
            [*words, *flags], cwd=tmp_path, env=env, capture_output=True, text=True
        )

    loss = "losses.multilabel_bce(changed"
    edit("stages/temporal.py", '"""XOR loss of a batch', '"""The loss of a batch')
    edit("report/pages.py", "import contextlib", "CHANGED = 1\nimport contextlib")
    edit("stages/temporal.py", loss, f"10 * {loss}")
    stopped = again()
    assert stopped.returncode == 2, stopped.stderr
    (line,) = stopped.stderr.splitlines()
    assert "stage 'temporal' in " in line
    assert "was made by other code in stormpsr_jax/stages/temporal.py, at the same" in line
    assert "--remake" in line
    assert "--keep=temporal" in line
    remade = again("--remake")
    assert "temporal: made again (other code in stormpsr_jax/stages/temporal.py)" in remade.stdout
    assert remade.stdout.count("done before") == 3, remade.stderr
    assert best.read_bytes() != before
    edit("stages/temporal.py", f"10 * {loss}", loss)
    kept = again("--keep")
    assert "made by other sources of the package, and kept: temporal" in kept.stdout, kept.stderr
    assert kept.stdout.count("done before") == 4


@pytest.mark.parametrize(
    ("package", "keep", "said"),
    [
        ({"version": stormpsr_jax.__version__}, ["temporal"], "made by other sources of the"),
        ({"version": "0.0.1"}, [], "made by version 0.0.1 of the"),
        (None, [], "made by an earlier version of the"),
    ],
)
def test_what_is_kept_is_said_once_and_further_edits_are_seen(folder, package, keep, said):
    record = results.read(folder / "temporal")
    record.made_from["sources"] = {"stormpsr_jax/stages/temporal.py": "0"}
    record.made_from["package"] = package
    if package is None:
        del record.made_from["package"], record.made_from["sources"]
    results.write(folder / "temporal", record)
    made, text = run(folder, keep=keep)
    assert made == {}
    assert f"{said} package, and kept: temporal\n" in text
    made, text = run(folder)
    assert made == {}
    assert "and kept" not in text
    record = results.read(folder / "temporal")
    record.kept["sources"]["stormpsr_jax/stages/temporal.py"] = "0"
    results.write(folder / "temporal", record)
    with pytest.raises(ValueError, match=r"'temporal' .* other code in stormpsr_jax/stages/temp"):
        run(folder)


# --- Other work folders ---------------------------------------------------------------------------


def taken(workdir, other, **changes):
    workdir.mkdir()
    context = Context(tiny(**{"data.dir": str(other / "data"), **changes}), workdir, mesh=None)
    found = []
    for stage in order.chosen(context):
        now = provenance.made_from(context, stage)
        others = [workdir.parent / "absent", other]
        if remaking._take_over(context, stage, now, "", others) == other:
            found.append(stage.name)
    return found


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"embed.batch": 32}, [*SHARED, "fuse"]),
        ({"temporal.sampling": "uniform"}, ["pretrain", "embed", "detector"]),
        ({"detector.cad_wrong": 0.2}, ["pretrain", "embed", "temporal", "finetune"]),
        ({"pretrain.t_f": 9.0}, ["detector"]),
        ({"seed": 1}, []),
    ],
)
def test_a_run_takes_over_the_stages_that_would_come_out_the_same(
    tmp_path, finished, changes, stages
):
    known = {path: path.stat() for path in finished.rglob("*") if path.is_file()}
    assert taken(tmp_path / "run", finished, **changes) == stages
    for stage in (stage for stage in order.STAGES if stage.taken_over):
        for name in stage.folders:  # a later run does not spoil what was taken over
            files.remove(tmp_path / "run" / name)
    assert not list((tmp_path / "run").iterdir())
    assert {path: path.stat().st_size for path in known} == {p: s.st_size for p, s in known.items()}
