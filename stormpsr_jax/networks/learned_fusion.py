"""The recurrent unit of the learned fusion in JAX, for fitting; `learned_beliefs.py` runs it.

Arrays lie with time in front and rows last: small matrices times long rows are what a CPU does
fast, and the unit is too small for anything else to be worth it.

Dimension letters: T frames, N rows (a component of a recording each), F inputs, U units.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stormpsr_jax.psr.learned_beliefs import shapes

Params = Mapping[str, jax.Array]


def initial(key: jax.Array, units: int) -> dict[str, jax.Array]:
    """Returns random weights to begin with, by name as in `learned_beliefs.shapes`.

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
    """Whole recordings, averaged inputs (T, F, N) → (T, 2, N): present, right if present.

    `start`: (N,) int, the components' initial state.
    """
    hidden = recur(
        params["input"].T, params["bias"], params["recurrent"].T, params["start"][start].T, x
    )
    return params["readout"].T @ hidden + params["skip"].T @ x + params["offset"][:, None]


def loss(
    params: Params, x: jax.Array, start: jax.Array, states: jax.Array, mask: jax.Array
) -> jax.Array:
    """Binary cross-entropy of being present, plus that of being right where a part is present.

    Both are means, over nothing 0. `states` (T, N) are -1 incorrect, 0 absent, 1 right; `mask`
    (T, N) says what counts; the others are of `logits`.
    """
    o = logits(params, x, start)
    targets = jnp.stack([states != 0, states == 1], axis=1).astype(o.dtype)
    weights = jnp.stack([mask, mask & (states != 0)], axis=1).astype(o.dtype)
    bce = (optax.sigmoid_binary_cross_entropy(o, targets) * weights).sum((0, 2))
    return (bce / jnp.maximum(weights.sum((0, 2)), 1.0)).sum()


# --- Recurrence -----------------------------------------------------------------------------------


@jax.custom_vjp
def recur(
    w_in: jax.Array, bias: jax.Array, w_hidden: jax.Array, first: jax.Array, x: jax.Array
) -> jax.Array:
    """The gated recurrent unit along time, for x (T, F, N): (T, U, N), after each frame.

    `w_in` (3U, F) and `bias` (3U,) are of the update gate, the reset gate and the new value, as is
    `w_hidden` (3U, U); `first` (U, N) is before the first frame. The gradient is written out: sums
    of the weights' gradients run along with the way back, which takes half the time of
    differentiating the scan. There is none with respect to `x`.
    """
    return _forward(w_in, bias, w_hidden, first, x)[0]


def _forward(
    w_in: jax.Array, bias: jax.Array, w_hidden: jax.Array, first: jax.Array, x: jax.Array
) -> tuple[jax.Array, Any]:
    U = len(first)

    def step(hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        a = w_in @ x + bias[:, None]
        b = w_hidden @ hidden
        gates = jax.nn.sigmoid(a[: 2 * U] + b[: 2 * U])
        update, reset = gates[:U], gates[U:]
        new = jnp.tanh(a[2 * U :] + reset * b[2 * U :])
        after = update * hidden + (1 - update) * new
        return after, (after, (hidden, gates, new, b[2 * U :]))

    _, (after, kept) = jax.lax.scan(step, first, x)
    return after, (w_in, w_hidden, x, kept)


def _backward(residuals: Any, d_after: jax.Array) -> tuple[jax.Array | None, ...]:
    w_in, w_hidden, x, kept = residuals
    U = w_hidden.shape[1]

    def step(carry: Any, at: Any) -> tuple[Any, None]:
        d_later, d_in, d_bias, d_hidden = carry
        d_after, x, (hidden, gates, new, b_new) = at
        update, reset = gates[:U], gates[U:]
        d = d_later + d_after
        d_new = d * (1 - update) * (1 - new * new)
        d_update = d * (hidden - new) * update * (1 - update)
        d_reset = d_new * b_new * reset * (1 - reset)
        d_a = jnp.concatenate([d_update, d_reset, d_new])
        d_b = jnp.concatenate([d_update, d_reset, d_new * reset])
        d_in, d_bias, d_hidden = d_in + d_a @ x.T, d_bias + d_a.sum(1), d_hidden + d_b @ hidden.T
        return (d * update + w_hidden.T @ d_b, d_in, d_bias, d_hidden), None

    zeros = (
        jnp.zeros(d_after.shape[1:], d_after.dtype),
        jnp.zeros_like(w_in),
        jnp.zeros(len(w_in), w_in.dtype),
        jnp.zeros_like(w_hidden),
    )
    (d_first, d_in, d_bias, d_hidden), _ = jax.lax.scan(
        step, zeros, (d_after, x, kept), reverse=True
    )
    return d_in, d_bias, d_hidden, d_first, None


recur.defvjp(_forward, _backward)
