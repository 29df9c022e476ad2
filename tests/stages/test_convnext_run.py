import subprocess

import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax.base import files
from tests.support.tiny import command

CONVNEXT = {
    "encoder.backbone": "convnext_atto",
    "encoder.width": 4,
    "encoder.depths": (1, 1, 1),
    "encoder.patch_size": 0,
    "encoder.depth": 0,
    "encoder.num_heads": 0,
    "encoder.stem": (),
}


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """Three steps a stage, with blocks that are redone and layers that learn more slowly."""
    workdir = tmp_path_factory.mktemp("convnext") / "run"
    changes = CONVNEXT | {
        "stages": ("pretrain", "embed", "temporal", "finetune", "predict", "evaluate"),
        "data.dir": finished / "data",
        "encoder.remat": "dots",
        "encoder.microbatches": 2,
        "pretrain.layer_decay": 0.5,
        "finetune.layer_decay": 0.5,
    }
    for stage in ("pretrain", "temporal", "finetune"):
        changes |= {f"{stage}.steps": 3, f"{stage}.eval_every": 3}
    words, environment = command(workdir, changes)
    subprocess.run(words, env=environment, check=True, capture_output=True)
    return workdir


def test_convnext_run_leaves_a_model_that_recognises(run):
    described = files.read_json(run / "model" / "model.json")["networks"]["encoder"]
    assert described["architecture"] == "ConvNeXtEncoder"
    assert (described["width"], described["depths"]) == (4, [1, 1, 1])
    card = (run / "model" / "README.md").read_text()
    assert "encoder: ConvNeXtEncoder, width 4, depths 1, 1, 1, " in card
    model = stormpsr_jax.load_model(run / "model")
    pictures = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), np.uint8)
    events = list(model.recognise(pictures, stream="temporal"))
    assert events == list(model.recognise(pictures, stream="temporal"))
    assert all(0 <= event.frame < 5 for event in events)
