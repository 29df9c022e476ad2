"""Layer normalisation as flax's, with a backward pass that moves less memory in bfloat16."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class LayerNorm(nn.Module):
    """Normalises the last axis, with a gain and an offset for each of the D features.

    What it computes, and its parameters, are those of `nn.LayerNorm`. In float32 it is that. In
    bfloat16 the backward pass starts from the bfloat16 input again, where JAX would keep float32
    arrays of intermediate results: on a GPU or TPU, twice as many bytes for each of them.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result; means and variances are float32.
    """

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(…, D) -> (…, D)."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        if self.dtype == jnp.float32:
            plain = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, parent=None)
            normalised: Any = plain.apply({"params": {"scale": scale, "bias": bias}}, x)
            return normalised
        # As rows of a matrix, which the products before and after it take as they lie; XLA for GPU
        # may put the batch last otherwise, and turn the array around for each of them.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        return _normalised(self.epsilon, rows, scale, bias).reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalised(epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    mean, gain = _statistics(epsilon, x)
    return ((x.astype(jnp.float32) - mean) * (gain * scale) + bias).astype(x.dtype)


def _statistics(epsilon: float, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and 1 / standard deviation over the last axis, which stays with length 1."""
    wide = x.astype(jnp.float32)
    mean, square = wide.mean(-1, keepdims=True), (wide * wide).mean(-1, keepdims=True)
    return mean, jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0) + epsilon)


def _forward(epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple:
    return _normalised(epsilon, x, scale, bias), (x, scale)


def _backward(epsilon: float, kept: tuple, gradient: jax.Array) -> tuple:
    x, scale = kept
    mean, gain = _statistics(epsilon, x)
    standard = (x.astype(jnp.float32) - mean) * gain
    wide = gradient.astype(jnp.float32)
    scaled = wide * scale
    along = (scaled * standard).mean(-1, keepdims=True)
    inner = gain * (scaled - scaled.mean(-1, keepdims=True) - standard * along)
    return inner.astype(x.dtype), (wide * standard).sum(0), wide.sum(0)


_normalised.defvjp(_forward, _backward)
