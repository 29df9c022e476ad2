"""A function of JAX as StableHLO, for any device and any number of rows."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import export

from stormpsr_jax.serving.content import Function
from stormpsr_jax.serving.program import Array

PLATFORMS = ("cpu", "cuda", "tpu")


def write(function: Function, row: Array, names: Sequence[str], int8: bool) -> bytes:
    """Returns the program of a function of rows (B, …), which gives arrays (B, …)."""
    del names, int8  # outputs go by their order; the command has refused the other
    (batch,) = export.symbolic_shape("batch", constraints=["batch >= 1"])
    x = jax.ShapeDtypeStruct((batch, *row.shape), jnp.dtype(row.dtype))
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(x).serialize())
