import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import stormpsr_jax
from stormpsr_jax.stages import networks, pretrain
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from stormpsr_jax.weights import parameters
from stormpsr_jax.weights.command import main
from tests.support.tiny import command, tiny

FIXTURES = Path(__file__).parents[1] / "networks" / "backbones"
# Of the size of the fixtures.
SMALL = {
    "encoder.patch_size": 4,
    "encoder.width": 16,
    "encoder.depth": 2,
    "encoder.num_heads": 2,
    "encoder.stem": (),
}


def published(case, folder):
    arrays = dict(np.load(FIXTURES / f"{case}.npz"))
    state = {k[6:]: np.float32(v) for k, v in arrays.items() if k.startswith("state/")}
    safetensors.numpy.save_file(state, folder / f"{case}.safetensors")
    return folder / f"{case}.safetensors", arrays


def context(folder, name, path):
    changes = SMALL | {"encoder.backbone": name, "init_from": str(path)}
    return Context(tiny(**changes), folder, make_mesh(1, 1))


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("timm_dinov2_registers", "vit_small_patch14_reg4_dinov2"),
        ("transformers_dinov3", "facebook/dinov3-vits16-pretrain-lvd1689m"),
    ],
)
@pytest.mark.usefixtures("system")
def test_starting_point_is_the_published_backbone_at_the_size_of_the_pictures(case, name, tmp_path):
    path, arrays = published(case, tmp_path)
    ours = tmp_path / "ours.safetensors"
    flags = [f"--checkpoint={path}", f"--out={ours}"]
    assert main(["import", "--kind=vit", *flags]) == 0
    for i, file in enumerate((path, ours)):
        run = context(tmp_path, name, file)
        x = np.float32(arrays[f"x{i}"])
        params, stats = pretrain.starting_point(run, x.shape[1:3])
        features = networks.spatial_encoder(run).apply(
            {"params": params, "batch_stats": stats}, x, method=lambda m, x: m.encoder(x)
        )
        np.testing.assert_allclose(features, arrays[f"y{i}"], atol=1e-4)


@pytest.mark.slow
def test_run_a_backbone_goes_through_every_stage_on_a_mesh(tmp_path):
    """Frozen in pretrain, then fine-tuned in bfloat16 with remat, over two devices; recognised."""
    path, _ = published("transformers_dinov3", tmp_path)
    changes = SMALL | {
        "encoder.backbone": "facebook/dinov3-vits16-pretrain-lvd1689m",
        "init_from": str(path),
        "encoder.remat": "dots",
        "pretrain.encoder_lr_scale": 0.0,
        "dtype": "bfloat16",
        "mesh.fsdp": 2,
    }
    words, environment = command(tmp_path / "run", changes, devices=2)
    subprocess.run(words, env=environment, check=True)
    first, _ = parameters.load_params(tmp_path / "run" / "pretrain" / "best.safetensors")
    second, _ = parameters.load_params(tmp_path / "run" / "finetune" / "best.safetensors")
    start, _, _ = parameters.load_any(path, "vit")
    np.testing.assert_array_equal(first["encoder"]["registers"], start["registers"])
    assert "registers" in second["spatial"]["encoder"]
    model = stormpsr_jax.load_model(tmp_path / "run" / "model")
    assert list(model.recognise(np.zeros((3, 40, 40, 3), np.uint8), stream="temporal")) == []
