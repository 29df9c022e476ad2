"""The recurrent unit of the learned fusion in JAX, for fitting; `psr/learned.py` runs it.

Dimension letters: R recordings, T frames, K components, F inputs, U units.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stormpsr_jax.psr.learned_weights import shapes

# Frames between two hidden states that are kept for the gradient; those between are computed again.
SEGMENT = 64

Params = Mapping[str, jax.Array]


def initial(key: jax.Array, units: int) -> dict[str, jax.Array]:
    """Returns random weights to begin with, by name as in `learned_weights.shapes`.

    The update gate is nearly shut at first, so that what was seen is remembered for long.
    """
    params = {}
    for name, shape in shapes(units).items():
        if name in ("input", "recurrent", "readout"):
            key, own = jax.random.split(key)
            params[name] = jax.random.normal(own, shape) / np.sqrt(shape[0])
        else:
            params[name] = jnp.zeros(shape)
    params["bias"] = params["bias"].at[:units].set(2.0)
    return params


def logits(params: Params, x: jax.Array, start: jax.Array) -> jax.Array:
    """Applies the unit to whole recordings.

    Args:
      params: arrays by name.
      x: (R, T, K, F) averaged inputs.
      start: (R, K) int, the variant's initial state.

    Returns:
      (R, T, K, 2): of being present, of being right if present.
    """
    R, T, K, _ = x.shape
    U = params["start"].shape[1]
    segments = -(-T // SEGMENT)
    a = x @ params["input"] + params["bias"]  # (R, T, K, 3U)
    a = jnp.pad(a, ((0, 0), (0, segments * SEGMENT - T), (0, 0), (0, 0)))
    a = jnp.moveaxis(a, 1, 0).reshape(segments, SEGMENT, R * K, 3 * U)

    def step(hidden, a):
        b = hidden @ params["recurrent"]
        gates = jax.nn.sigmoid(a[:, : 2 * U] + b[:, : 2 * U])
        update, reset = gates[:, :U], gates[:, U:]
        new = jnp.tanh(a[:, 2 * U :] + reset * b[:, 2 * U :])
        hidden = update * hidden + (1 - update) * new
        return hidden, hidden

    @jax.checkpoint
    def segment(hidden, a):
        return jax.lax.scan(step, hidden, a)

    hidden = params["start"][start].reshape(R * K, U)
    _, hidden = jax.lax.scan(segment, hidden, a)
    hidden = jnp.moveaxis(hidden.reshape(segments * SEGMENT, R, K, U)[:T], 0, 1)
    return hidden @ params["readout"] + x @ params["skip"] + params["offset"]


def loss(
    params: Params, x: jax.Array, start: jax.Array, states: jax.Array, mask: jax.Array
) -> jax.Array:
    """Binary cross-entropy of being present, plus that of being right where a part is present.

    Args:
      params, x, start: as for `logits`.
      states: (R, T, K) true states, -1 sits wrong, 0 absent, 1 right.
      mask: (R, T) of the frames that count.

    Returns:
      The sum of the two means; a mean over nothing is 0.
    """
    o = logits(params, x, start)
    present = (states != 0).astype(o.dtype)
    every = jnp.broadcast_to(mask[..., None], present.shape).astype(o.dtype)
    total = 0.0
    for logit, target, weight in (
        (o[..., 0], present, every),
        (o[..., 1], (states == 1).astype(o.dtype), every * present),
    ):
        bce = optax.sigmoid_binary_cross_entropy(logit, target)
        total += (bce * weight).sum() / jnp.maximum(weight.sum(), 1.0)
    return total
