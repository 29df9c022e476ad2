"""Networks whose parameters are all drawn, and their application."""

import jax
import numpy as np

from stormpsr_jax.networks.vit import ViT

DINOV3 = {
    "patch_size": 4, "width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 12, "mlp": "swiglu",
    "positions": "rotary", "bias": "qv", "layer_scale": True, "registers": 3, "norm_eps": 1e-5,
}  # fmt: skip


def apply(model, variables, inputs, *arguments, **options):
    return jax.jit(lambda v, x: model.apply(v, x, *arguments, **options))(variables, inputs)


def random_variables(model, *inputs):
    """Every parameter drawn, none left at 0 or 1; drawn by NumPy, as compiling init takes long."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        value = 0.3 * rng.normal(size=leaf.shape) + (path[-1].key in ("scale", "var"))
        return np.abs(value).astype(np.float32) if path[-1].key == "var" else np.float32(value)

    return jax.tree_util.tree_map_with_path(
        draw, jax.eval_shape(lambda key: model.init(key, *inputs), jax.random.key(0))
    )


def dinov3_like():
    """A small ViT with all that DINOv3 has, its variables, and pictures (2, 8, 12, 3)."""
    model = ViT(**DINOV3)
    rng = np.random.default_rng(1)
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    # LayerScale drawn like the others, so that it does not hide the blocks.
    draw = lambda leaf: np.float32(0.3 * rng.normal(size=leaf.shape))  # noqa: E731
    return model, jax.tree.map(draw, shapes), images
