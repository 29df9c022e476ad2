import contextlib
import dataclasses
import json
import shlex
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import stormpsr_jax
from data_prep import train
from stormpsr_jax.base import results
from stormpsr_jax.configs import cad
from stormpsr_jax.recordings import predictions
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.serving import functions
from stormpsr_jax.stages import run
from stormpsr_jax.stages.config_flag import typed
from stormpsr_jax.training import checkpoint
from tests.support import lantern, real_data, run_table
from tests.support.arrays import rewrite
from tests.support.guide import REPOSITORY, block
from tests.support.processes import environment, finish, start
from tests.support.tiny import TINY, TRAINED, flags_of, opened, tiny, tiny_run

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
CAD = np.array([False, True])
REAL = {"data.mean": (0.1, 0.2, 0.3), "data.std": (0.2, 0.3, 0.4)}
FROM_FOLDER = {"data.cad_mean": (), "data.cad_std": ()}


def normalised(image, mean, std):
    return (image / 255 - np.array(mean)) / np.array(std)


def test_normalise_renders_have_the_statistics_of_their_folder(rendered, tmp_path):
    cad = tiny_run(rendered)[0].data.source("cad")
    pictures = np.concatenate(
        [cad.rows(name, range(r.num_frames)) for name, r in cad.recordings.items()]
    ).reshape(-1, 3)
    expected = (pictures / 255).mean(axis=0), (pictures / 255).std(axis=0)
    data = str(rendered / "data")
    for folders in ({"data.dir": data}, {"data.dir": str(tmp_path), "data.cad_dir": data}):
        one = tiny_run(tmp_path, **REAL, **FROM_FOLDER, **folders)[0].data
        np.testing.assert_allclose(one.cad_statistics, expected, rtol=1e-6)
        real, rendered = np.asarray(one.normalise(IMAGES, CAD))
        np.testing.assert_allclose(rendered, normalised(IMAGES[1], *expected), atol=1e-4)
        np.testing.assert_allclose(real, normalised(IMAGES[0], *REAL.values()), atol=1e-5)


SIZES = {"encoder.image_size": 24, "detector.image_size": 28}  # of 32 pixels that are stored


def of_detector(rendered, **changes):
    stages = ("pretrain", "detector", "predict")
    return {"data.dir": str(rendered / "data"), "stages": stages, **changes}


def errors(folder, fields):
    values = typed(tiny(**fields))
    made, stages = tiny_run(folder, **fields)
    return run.find_errors(values, made, run.chosen(stages, values, made))


def by_hand(source, name, rows, size):
    """The stored pictures, decoded whole, then resized with antialiasing."""
    images = map(Image.fromarray, source.at(0, "").rows(name, rows))
    return np.stack([image.resize((size, size), Image.Resampling.BICUBIC) for image in images])


@pytest.mark.parametrize(("stage", "size"), [("pretrain", 24), ("detector", 28)])
def test_stages_train_on_pictures_of_their_size(rendered, tmp_path, stage, size):
    made, stages = tiny_run(tmp_path, **of_detector(rendered, **SIZES))
    batches = stages[stage].build(made).data(0)
    assert next(batches)["image"].shape[1:] == (size, size, 3)
    batches.close()


@pytest.mark.parametrize("own_folder", [False, True])
def test_predict_the_detector_sees_its_own_pictures(rendered, tmp_path, own_folder):
    changes = {"stages": ("detector", "predict"), "predict.splits": ("val",)}
    changes |= {"detector.image_size": 28}
    if own_folder:
        shutil.copytree(rendered / "data", tmp_path / "data")
        changes |= {"data.detector_dir": str(tmp_path / "data")}
    fields = of_detector(rendered, **changes)
    assert errors(tmp_path / "run", fields) == []
    made, stages = tiny_run(tmp_path / "run", **fields)
    (made.workdir / "detector").mkdir(parents=True)
    checkpoint.save_best(made.workdir / "detector", *stages["detector"].build(made).init())
    stages["predict"].make(made)
    source = made.data.source("val")
    network = stages["predict"].networks(made)["detector"]
    looks = made.data.pictures(source, with_detector=True)
    assert (looks.size, looks.detector_size) == ((32, 32), (28, 28))
    detect = functions.functions({"detector": network}, looks, 1, 64)["detect"]
    for name, recording in source.recordings.items():
        rows = np.arange(recording.num_frames)
        boxes, _, confidences, _ = detect(by_hand(source, name, rows, 28))
        path = tmp_path / "run/predictions/val/asd" / f"{name}_results_pred.csv"
        found = predictions.read_detections(path, made.procedure)
        np.testing.assert_allclose(found.boxes, boxes[:, 0], atol=1e-5)
        np.testing.assert_allclose(found.confidences, confidences[:, 0], atol=1e-5)


def spoil(folder, key, value):
    settings = json.loads((folder / "settings.json").read_text())
    settings[key] = value
    (folder / "settings.json").write_text(json.dumps(settings))


def test_detector_dir_errors_other_recordings_or_pictures(rendered, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(rendered / "data", other)
    changes = {"data.detector_dir": str(other)}
    assert errors(tmp_path, of_detector(rendered, **changes)) == []
    spoil(other, "fps", 7.0)
    found = errors(tmp_path, of_detector(rendered, **changes))
    assert len(found) == 3
    assert found[0].startswith(f"--config.data.detector_dir={other}: split 'test' has other frames")
    assert "frames a second than" in found[0]
    spoil(other, "fps", 1.0)
    spoil(other, "settings", {"aspect": "pad"})
    found = errors(tmp_path, of_detector(rendered, **changes))
    assert "has other pictures (--aspect, --crop, --locate) than" in found[0]
    spoil(other, "settings", {})
    rewrite(other / "labels" / "val.npz", first_frame=lambda frame: frame + 1)
    (found,) = errors(tmp_path, of_detector(rendered, **changes))
    assert "split 'val' has other frames than" in found


TOY = dataclasses.replace(load_procedure("synthetic"), fps=1.0)
ENOUGH, FEW = {"train": 3, "val": 4, "test": 1}, {"train": 2, "val": 1}
LEARNING = ("pretrain", "embed", "temporal", "detector", "predict", "evaluate")


def with_real(rendered, real, **changes):
    fields = {"data.dir": str(rendered / "data"), "stages": LEARNING, "data.extra": str(real)}
    return fields | changes


def test_more_real_recordings_make_again_what_is_learnt_and_nothing_is_rendered(rendered, tmp_path):
    without = tiny_run(tmp_path, **{"data.dir": str(rendered / "data")})
    few = real_data.write(tmp_path / "few", TOY, FEW, boxed=False)
    many = real_data.write(tmp_path / "many", TOY, ENOUGH | {"train": 5})
    with_few, more = (tiny_run(tmp_path, **with_real(rendered, real)) for real in (few, many))

    def changed(stage, one, two):
        return results.differences(*(stages[stage].made_from(made) for made, stages in (one, two)))

    for one, two in ((without, with_few), (with_few, more)):
        assert "other pictures of split train" in changed("pretrain", one, two)
        assert changed("data", one, two) == []
    assert "other label files of split test" in changed("evaluate", with_few, more)


@pytest.mark.parametrize("splits", [FEW, {"val": 4, "test": 1}], ids=["join", "replace"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 40}, "it has pictures of (40, 40) pixels (HxW), 1 a second, they (32, 32), 1 a"),
        ({"fps": 2.0}, "it has pictures of (32, 32) pixels (HxW), 2 a second, they (32, 32), 1 a"),
    ],
)
def test_recordings_that_do_not_go_together_are_told(rendered, tmp_path, options, splits, message):
    procedure = dataclasses.replace(TOY, fps=options.get("fps", 1.0))
    size = options.get("size", 32)
    real = real_data.write(tmp_path / "real", procedure, splits, size=size)
    (found,) = errors(tmp_path, with_real(rendered, real))
    assert found.startswith(f"--config.data.extra={real}: does not go with the other recordings")
    assert message in found


def config_of(files, **changes):
    config = cad.get_config()
    config.procedure = str(files[1])
    small = {**TINY, "stages": cad.get_config().stages, "data.synthetic.meshes": str(files[0])}
    config.update_from_flattened_dict({**small, **changes})
    return config


def test_the_data_are_made_again_where_a_mesh_a_pose_or_the_procedure_changes(tmp_path):
    files = lantern.write(tmp_path)

    def made_from():
        made, stages = opened(config_of(files), tmp_path / "run")
        return stages["data"].made_from(made)

    before = made_from()
    assert results.differences(before, made_from()) == []
    poses = files[0] / "poses.json"
    poses.write_text('{"lid": {"translation": [0, 0, 1]}}')
    assert results.differences(before, made_from()) == ["other meshes or poses"]
    poses.unlink()
    files[1].write_text(files[1].read_text().replace('"11100", ', ""))
    assert results.differences(before, made_from()) == ["other procedure"]


# --- A run from CAD -------------------------------------------------------------------------------


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
    with contextlib.chdir(folder):
        _, (_, *words) = train.commands(*train.parse(shlex.split(block("guide", "cad"))[2:]))
    command = [sys.executable, "-m", "stormpsr_jax.main", *words, *flags_of(fields)]
    process = start(command, cwd=folder, env=environment(OMP_NUM_THREADS="1"))
    return folder, finish(process)[0]


def test_a_product_that_nobody_filmed_is_rendered_learnt_and_recognised(made):
    folder, said = made
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
