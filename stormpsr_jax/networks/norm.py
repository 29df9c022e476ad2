"""Layer normalisation in front of a dense layer, which moves less memory in bfloat16."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.networks.dense import Affine


class LayerNorm(nn.Module):
    """Normalises the last axis, with a gain and an offset for each of the D features.

    With the `Dense` behind it, it computes what `nn.LayerNorm` does, and has its parameters. In
    float32 it is that. In bfloat16 gain and offset are left to `Dense`, and the backward pass
    starts from the normalised array, which `Dense` keeps anyway: so the input is not kept, nor
    float32 arrays of intermediate results, and no sum over rows is the norm's own.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result; means and variances are float32.
    """

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, Affine | None]:
        """(…, D) -> (…, D), and what `Dense` wants as `affine`."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        if self.dtype == jnp.float32:
            plain = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, parent=None)
            normalised: Any = plain.apply({"params": {"scale": scale, "bias": bias}}, x)
            return normalised, None
        return _normalised(self.epsilon, x.astype(self.dtype)), (scale, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalised(epsilon: float, x: jax.Array) -> jax.Array:
    return _forward(epsilon, x)[0]


def _forward(epsilon: float, x: jax.Array) -> tuple[jax.Array, tuple]:
    # Two passes over a row, which XLA for GPU makes one kernel of.
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    gain = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + epsilon)
    normalised = (centred * gain).astype(x.dtype)
    return normalised, (normalised, gain)


def _backward(epsilon: float, kept: tuple, gradient: jax.Array) -> tuple[jax.Array]:
    standard, gain = kept[0].astype(jnp.float32), kept[1]
    wide = gradient.astype(jnp.float32)
    along = (wide * standard).mean(-1, keepdims=True)
    inner = gain * (wide - wide.mean(-1, keepdims=True) - standard * along)
    return (inner.astype(gradient.dtype),)


_normalised.defvjp(_forward, _backward)
