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
    model = stormpsr_jax.load_model(run / "model")
    assert list(model.recognise(np.zeros((3, 40, 40, 3), np.uint8), stream="temporal")) == []


def test_convnext_run_trains_every_layer(run):
    stages = ("pretrain", "finetune")
    first, last = (
        safetensors.numpy.load_file(run / stage / "best.safetensors") for stage in stages
    )
    names = [name for name in first if name.startswith("params/encoder/")]
    assert len(names) == 4 + 2 * 4 + 3 * 9 + 2
    moved = [n for n in names if (first[n] != last[n.replace("params", "params/spatial", 1)]).any()]
    assert set(moved) == set(names)


def test_convnext_run_has_its_card(run):
    card = (run / "model" / "README.md").read_text()
    assert "encoder: ConvNeXtEncoder, width 4, depths 1, 1, 1, " in card


def test_fields_of_a_vit_are_a_mistake_of_a_convnext():
    config = tiny(**CONVNEXT | {"encoder.depth": 2, "encoder.stem": (8,)})
    (mistake,) = fields.find_mistakes(config)
    assert mistake == (
        "--config.encoder.backbone='convnext_atto': a ConvNeXt has no depth, stem; "
        "set them to 0 or ()"
    )
    (mistake,) = fields.find_mistakes(tiny(**{"encoder.depths": (1, 1)}))
    assert mistake.endswith("a ViT has no depths; set them to 0 or ()")
