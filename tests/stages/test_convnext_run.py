"""A run whose encoder is a ConvNeXt, from pre-training to recognition with its model folder."""

import subprocess

import numpy as np
import pytest
import safetensors.numpy

import stormpsr_jax
from stormpsr_jax.base import files
from stormpsr_jax.stages import fields
from tests.support.tiny import command, tiny

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


def test_convnext_run_trains_every_layer(run):
    arrays = safetensors.numpy.load_file(run / "pretrain" / "best.safetensors")
    inside = {n: value for n, value in arrays.items() if n.startswith("params/encoder/")}
    assert len(inside) == 4 + 2 * 4 + 3 * 9 + 2
    # Every array but kernels starts with equal numbers. A block's norm starts at 1, next to which
    # three steps behind a gain of a millionth may be lost in rounding.
    still = {n for n, value in inside.items() if np.ptp(value) == 0}
    assert still <= {f"params/encoder/block_{stage}_0/norm/scale" for stage in range(3)}


def test_fields_of_a_vit_are_a_mistake_of_a_convnext():
    config = tiny(**CONVNEXT | {"encoder.depth": 2, "encoder.stem": (8,)})
    (mistake,) = fields.find_mistakes(config)
    assert mistake == (
        "--config.encoder.backbone='convnext_atto': a ConvNeXt has no depth, stem; "
        "set them to 0 or ()"
    )
    (mistake,) = fields.find_mistakes(tiny(**{"encoder.depths": (1, 1)}))
    assert mistake.endswith("a ViT has no depths; set them to 0 or ()")
