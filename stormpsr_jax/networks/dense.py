"""A dense layer whose gradient is fast on CPU too."""

import functools
from typing import Any

import flax.linen as nn
import jax


def flat_dot_general(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` of (…, D) and (D, F), as one product of two matrices.

    The gradient of the kernel is a sum over all axes but the last. Over several, XLA on CPU copies
    what comes from above into another order first, which takes longer than the product itself.

    Raises:
        ValueError: another contraction than that of the last axis of `x` and the first of `kernel`.
    """
    contracted, batch = dimension_numbers
    axes = tuple(map(tuple, contracted))
    if axes != ((x.ndim - 1,), (0,)) or any(map(len, batch)) or kernel.ndim != 2:
        raise ValueError(f"a dense layer does not contract {dimension_numbers}")
    rows = x.reshape(-1, x.shape[-1])
    out = jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


# As flax's, with the same parameters and results.
Dense = functools.partial(nn.Dense, dot_general=flat_dot_general)
