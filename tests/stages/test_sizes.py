import json
import shutil

import numpy as np
import pytest
from PIL import Image

from stormpsr_jax.recordings import predictions
from stormpsr_jax.serving import functions
from stormpsr_jax.stages import checks, detector, networks, predict, pretrain
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import checkpoint
from stormpsr_jax.training.sharding import make_mesh
from tests.support.arrays import rewrite
from tests.support.tiny import tiny

SIZES = {"encoder.image_size": 24, "detector.image_size": 28}  # of 32 pixels that are stored


def context_of(rendered, folder, **changes):
    stages = ("pretrain", "detector", "predict")
    changes = {"data.dir": str(rendered / "data"), "stages": stages, **changes}
    return Context(tiny(**changes), folder, make_mesh(1, 1))


def by_hand(source, name, rows, size):
    """The stored pictures, decoded whole, then resized with antialiasing."""
    images = map(Image.fromarray, source.at(0, "").rows(name, rows))
    return np.stack([image.resize((size, size), Image.Resampling.BICUBIC) for image in images])


@pytest.mark.parametrize(("stage", "size"), [(pretrain, 24), (detector, 28)])
def test_stages_train_on_pictures_of_their_size(rendered, tmp_path, stage, size):
    definition = stage.build(context_of(rendered, tmp_path, **SIZES))
    batches = definition.data(0)
    assert next(batches)["image"].shape[1:] == (size, size, 3)
    batches.close()


def write_random(context):
    (context.workdir / "detector").mkdir(parents=True)
    checkpoint.save_best(context.workdir / "detector", *detector.build(context).init())


@pytest.mark.parametrize("own_folder", [False, True])
def test_predict_the_detector_sees_its_own_pictures(rendered, tmp_path, own_folder):
    changes = {"stages": ("detector", "predict"), "predict.splits": ("val",)}
    changes |= {"detector.image_size": 28}
    if own_folder:
        shutil.copytree(rendered / "data", tmp_path / "data")
        changes |= {"data.detector_dir": str(tmp_path / "data")}
    context = context_of(rendered, tmp_path / "run", **changes)
    assert checks.find_errors(context) == []
    write_random(context)
    predict.run(context)
    source = context.source("val")
    network = networks.trained(context, ("detector",))["detector"]
    looks = networks.pictures(context, source, with_detector=True)
    assert (looks.size, looks.detector_size) == ((32, 32), (28, 28))
    detect = functions.functions({"detector": network}, looks, 1, 64)["detect"]
    for name, recording in source.recordings.items():
        rows = np.arange(recording.num_frames)
        boxes, _, confidences, _ = detect(by_hand(source, name, rows, 28))
        path = tmp_path / "run/predictions/val/asd" / f"{name}_results_pred.csv"
        found = predictions.read_detections(path, context.procedure)
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
    assert checks.find_errors(context_of(rendered, tmp_path, **changes)) == []
    spoil(other, "fps", 7.0)
    found = checks.find_errors(context_of(rendered, tmp_path, **changes))
    assert len(found) == 3
    assert found[0].startswith(f"--config.data.detector_dir={other}: split 'test' has other frames")
    assert "frames a second than" in found[0]
    spoil(other, "fps", 1.0)
    spoil(other, "settings", {"aspect": "pad"})
    found = checks.find_errors(context_of(rendered, tmp_path, **changes))
    assert "has other pictures (--aspect, --crop) than" in found[0]
    spoil(other, "settings", {})
    rewrite(other / "labels" / "val.npz", first_frame=lambda frame: frame + 1)
    (found,) = checks.find_errors(context_of(rendered, tmp_path, **changes))
    assert "split 'val' has other frames than" in found
