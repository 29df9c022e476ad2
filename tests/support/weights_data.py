import functools
import itertools
import pathlib

import jax
import numpy as np
import safetensors.numpy

from stormpsr_jax.networks import spatial
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.weights.__main__ import main

# Of tools/backbone_fixtures.py.
FIXTURES = pathlib.Path(__file__).parents[1] / "networks/backbones"


def random_state(kind: str, seed: int = 0, depth: int = 2) -> dict[str, np.ndarray]:
    """A state dict in the released layout, written out by hand: width 8, patch 4, 3x3 patches."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name, fan_out, fan_in, bias=True):
        shapes[f"{name}.weight"] = (fan_out, fan_in)
        if bias:
            shapes[f"{name}.bias"] = (fan_out,)

    def norm(name, width, running=False):
        for leaf in ("weight", "bias", *(("running_mean", "running_var") if running else ())):
            shapes[f"{name}.{leaf}"] = (width,)

    def conv(name, fan_out, fan_in, size):
        shapes[f"{name}.weight"] = (fan_out, fan_in, size, size)
        shapes[f"{name}.bias"] = (fan_out,)

    def encoder(p):
        shapes[f"{p}cls_token"] = (1, 1, 8)
        shapes[f"{p}pos_embed"] = (1, 10, 8)
        shapes[f"{p}patch_embed.proj.weight"] = (8, 3, 4, 4)
        shapes[f"{p}patch_embed.proj.bias"] = (8,)
        for i in range(depth):
            norm(f"{p}blocks.{i}.norm1", 8)
            linear(f"{p}blocks.{i}.attn.qkv", 24, 8)
            linear(f"{p}blocks.{i}.attn.proj", 8, 8)
            norm(f"{p}blocks.{i}.norm2", 8)
            linear(f"{p}blocks.{i}.mlp.fc1", 20, 8)
            linear(f"{p}blocks.{i}.mlp.fc2", 8, 20)
        norm(f"{p}norm", 8)

    if kind == "vit":
        encoder("")
    if kind == "efficientnet":
        conv("_conv_stem", 8, 3, 3)
        widths = (8, 4, 6, 10, 20, 28, 48, 80)
        for i, (C, out) in enumerate(itertools.pairwise(widths)):
            wide = 6 * C if i else C
            if i:
                conv(f"_blocks.{i}._expand_conv", wide, C, 1)
            conv(f"_blocks.{i}._depthwise_conv", wide, 1, 5 if i in (2, 4, 5) else 3)
            conv(f"_blocks.{i}._project_conv", out, wide, 1)
        conv("_conv_head", 320, 80, 1)
    if kind in ("spatial", "storm"):
        p = "spatial_enc." if kind == "storm" else ""
        encoder(f"{p}encoder.")
        linear(f"{p}first_head.0", 6, 8)
        norm(f"{p}first_head.1", 6, running=True)
        linear(f"{p}second_head.0", 7, 6)
        norm(f"{p}second_head.1", 7, running=True)
        linear(f"{p}second_head.3", 5, 7)
    if kind in ("temporal", "storm"):
        shapes["temporal_enc.cls_token"] = (1, 1, 6)
        shapes["temporal_enc.pos_embedding"] = (1, 5, 6)
        for i in range(depth):
            p = f"temporal_enc.layers.{i}"
            norm(f"{p}.0.fn.norm", 6)
            linear(f"{p}.0.fn.fn.to_qkv", 24, 6, bias=False)
            linear(f"{p}.0.fn.fn.to_out.0", 6, 8)
            norm(f"{p}.1.fn.norm", 6)
            linear(f"{p}.1.fn.fn.net.0", 9, 6)
            linear(f"{p}.1.fn.fn.net.3", 6, 9)
        norm("mlp_head.0", 6)
        linear("mlp_head.1", 3, 6)
    rng = np.random.default_rng(seed)
    return {
        name: np.abs(rng.normal(size=shape)).astype(np.float32) + 0.1
        if name.endswith("running_var")
        else rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def published(name: str, folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """A published state dict as a file, with inputs and the library's outputs for them."""
    arrays = dict(np.load(FIXTURES / f"{name}.npz"))
    state = {k[6:]: np.float32(v) for k, v in arrays.items() if k.startswith("state/")}
    safetensors.numpy.save_file(state, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors", arrays


def command(name: str, **flags) -> int:
    return main([name, *(f"--{flag}={value}" for flag, value in flags.items())])


@functools.cache
def tiny_encoder():
    """A SpatialEncoder of the sizes of random_state("spatial"), freshly initialised."""
    model = spatial.SpatialEncoder(
        ViT(patch_size=4, width=8, depth=2, num_heads=2, mlp_dim=20),
        hidden=6,
        second_hidden=7,
        projection=5,
    )
    images = np.zeros((2, 12, 12, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    # Told apart from random_state by value; compiling init would take seconds.
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes)
    return variables["params"], variables["batch_stats"]
