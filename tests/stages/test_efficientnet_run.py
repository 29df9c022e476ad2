import subprocess

import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax.base import files
from tests.support.tiny import command

EFFICIENTNET = {
    "encoder.backbone": "efficientnet_lite0",
    "encoder.width": 4,
    "encoder.patch_size": 0,
    "encoder.depth": 0,
    "encoder.num_heads": 0,
    "encoder.stem": (),
}


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """An encoder that is taken as it is, as of own:photos, and three steps of the window."""
    workdir = tmp_path_factory.mktemp("efficientnet") / "run"
    changes = EFFICIENTNET | {
        "stages": ("pretrain", "embed", "temporal", "predict", "evaluate"),
        "data.dir": finished / "data",
        "pretrain.steps": 0,
        "temporal.steps": 3,
        "temporal.eval_every": 3,
    }
    words, environment = command(workdir, changes)
    subprocess.run(words, env=environment, check=True, capture_output=True)
    return workdir


def test_efficientnet_run_leaves_a_model_that_recognises(run):
    described = files.read_json(run / "model" / "model.json")["networks"]["encoder"]
    assert described["architecture"] == "EfficientNetEncoder"
    assert (described["width"], described["depths"]) == (4, [1, 2, 2, 3, 3, 4, 1])
    card = (run / "model" / "README.md").read_text()
    assert "encoder: EfficientNetEncoder, width 4, depths 1, 2, 2, 3, 3, 4, 1, " in card
    model = stormpsr_jax.load_model(run / "model")
    pictures = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), np.uint8)
    events = list(model.recognise(pictures, stream="temporal"))
    assert events == list(model.recognise(pictures, stream="temporal"))
    assert all(0 <= event.frame < 5 for event in events)
