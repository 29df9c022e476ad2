"""What each hand-written layer of networks/layers.py saves of a training step.

    python -m benchmarks.layers [--pairs=15]

A step (loss and gradients) of a small ViT and of a temporal transformer in float32 is timed with
all layers and, in turn, with one of them as flax or JAX has it: pairs of steps one after the other,
and of their times the median of ratios. (In float32 `LayerNorm` is flax's.)
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.networks import layers, temporal, vit
from stormpsr_jax.psr import analysis


class PlainDense(nn.Dense):
    """flax's layer, called as ours."""

    def __call__(self, *inputs, affine=None):
        """As `layers.Dense` with flax's product over all axes; `affine` is of bfloat16 alone."""
        assert affine is None
        y = super().__call__(inputs[-1])
        if len(inputs) == 1:
            return y
        parts = jnp.split(y, len(inputs), axis=-1)
        return [part[:, : x.shape[1]] for x, part in zip(inputs, parts, strict=True)]


def plain_gelu(x):
    return nn.gelu(x, approximate=False)


# By layer what stands in its place, by module and name.
PLAIN = {
    "attention": [(vit, "_attend", jax.nn.dot_product_attention)],
    "gelu": [(vit, "gelu", plain_gelu), (temporal, "gelu", plain_gelu)],
    "bernoulli": [(layers, "bernoulli", jax.random.bernoulli)],
    "Conv": [(vit, "Conv", nn.Conv)],
    "Dense": [(vit, "Dense", PlainDense), (temporal, "Dense", PlainDense)],
    "nothing": [],  # how far measurements lie apart
}


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module, attribute, plain in PLAIN.get(name, []):
            stack.enter_context(mock.patch.object(module, attribute, plain))
        yield


def steps() -> dict[str, Callable]:
    """By network, a function of a layer's name that gives a compiled step of the network."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(32, 64, 64, 3)), jnp.float32)
    clips = jnp.asarray(rng.normal(size=(32, 65, 128)), jnp.float32)
    encoder = vit.ViT(patch_size=8, width=192, depth=4, num_heads=3, stem=(16,))
    transformer = temporal.TemporalTransformer(
        num_components=11,
        num_frames=65,
        depth=2,
        num_heads=4,
        dim_head=32,
        mlp_dim=512,
    )

    def made(model, x):
        params = jax.jit(model.init)(jax.random.key(0), x)

        def compiled(name: str) -> Callable:
            def loss(params, key):
                y = model.apply(params, x, True, rngs={"dropout": key})
                return (y.astype(jnp.float32) ** 2).mean()

            with without(name):
                step = jax.jit(jax.grad(loss)).lower(params, jax.random.key(1)).compile()
            return lambda: jax.block_until_ready(step(params, jax.random.key(1)))

        return compiled

    return {"ViT": made(encoder, images), "temporal": made(transformer, clips)}


def seconds(step: Callable) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    args = parser.parse_args()
    rows = []
    for network, compiled in steps().items():
        ours = compiled("")
        for name in PLAIN:
            plain = compiled(name)
            ours(), plain()
            ratios = []
            for pair in range(args.pairs):
                order = (plain, ours) if pair % 2 else (ours, plain)
                times = {step: seconds(step) for step in order}
                ratios.append(times[plain] / times[ours])
            saved = 1 - 1 / statistics.median(ratios)
            rows.append({"layer": name, "network": network, "step saved": f"{saved:.1%}"})
            print(rows[-1], flush=True)
    print(analysis.format_rows(rows, "markdown"))


if __name__ == "__main__":
    main()
