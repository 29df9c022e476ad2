"""Multi-head self-attention by XLA or by cuDNN's fused kernel, and rotary positions.

Dimension letters: B batch, h w patch grid, T tokens, D width, N heads, d width of a head.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.networks.layers import Affine, Dense, apart, spread

BIASES = ("qkv", "qv", "none")  # which of queries, keys and values have a bias
ROTARY_BASE = 100.0  # DINOv3's rope_theta


class Attention(nn.Module):
    """Multi-head self-attention, (B, T, D) -> (B, T, D).

    One projection `qkv` holds queries, keys and values in that order, each `num_heads * dim_head`
    wide, as in the checkpoints that `torch_layout` knows. `bias` is one of BIASES. `attention` is
    "xla", or "cudnn" for its fused kernel, which takes a GPU of NVIDIA and bfloat16, and can leave
    out what stands behind the first `tokens` of them, if these are not 0. `queries` tokens ask, the
    first ones, and there are no others in what comes out; 0 is all.
    """

    num_heads: int
    dim_head: int
    bias: str = "qkv"
    attention: str = "xla"
    tokens: int = 0
    queries: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rotation: tuple[np.ndarray, np.ndarray] | None = None,
        affine: Affine | None = None,
    ) -> jax.Array:
        """Attends over the T tokens of each element of the batch.

        `rotation` (see `rotary`) turns queries and keys of the last h w tokens; those before them
        alone can be `queries`. `affine` is that of `Dense`.
        """
        B, T, D = x.shape
        N, d = self.num_heads, self.dim_head
        fused = self.attention == "cudnn" and not self.is_initializing() and not self.queries
        dense = functools.partial(
            Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        qkv = dense(3 * N * d, use_bias=self.bias == "qkv", name="qkv")
        if fused or self.queries:  # the kernel wants three arrays, which parts of one are not
            q, k, v = qkv(x[:, : self.queries or T], x, x, affine=affine)
        else:
            # Not moveaxis of (B, T, 3, N, d), whose gradient is three padded arrays and their sum.
            q, k, v = jnp.split(qkv(x, affine=affine), 3, axis=-1)
        if self.bias == "qv":
            q = q + spread(self.param("q_bias", nn.initializers.zeros, (N * d,)), q)
            v = v + spread(self.param("v_bias", nn.initializers.zeros, (N * d,)), v)
        q, k, v = (part.reshape(B, -1, N, d) for part in (q, k, v))
        if rotation is not None:
            q, k = q if self.queries else _rotate(q, rotation), _rotate(k, rotation)
        # Logits and softmax are float32, whatever the dtype.
        attend: Callable[..., jax.Array]
        if fused:
            attend = functools.partial(fused_attention, tokens=self.tokens)
        elif self.queries or self.dtype == jnp.float32:
            attend, end = _attend, self.tokens or T
            k, v = k[:, :end], v[:, :end]
        else:
            attend = jax.nn.dot_product_attention
        return dense(D, name="proj")(attend(q, k, v).reshape(B, -1, N * d))


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ / √d) v of arrays (B, T, N, d), in float32 inside; q may have fewer tokens.

    As `jax.nn.dot_product_attention`, but the weights are divided by their sum after they met v,
    where there are d numbers a token instead of T, and tokens × features lie together: less time
    in a forward pass on CPU. There, XLA cannot compile the gradient of the other for one token in
    bfloat16.
    """
    dtype = q.dtype
    q, k, v = (x.astype(jnp.float32).transpose(0, 2, 1, 3) for x in (q, k, v))
    logits = (q * q.shape[-1] ** -0.5) @ k.swapaxes(-1, -2)  # (B, N, T, T)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    out = (weights @ v) / weights.sum(axis=-1, keepdims=True)
    return out.transpose(0, 2, 1, 3).astype(dtype)


def fused_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    tokens: int = 0,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> jax.Array:
    """softmax(q kᵀ / √d) v of bfloat16 arrays (B, T, N, d), as a kernel that keeps no logits.

    JAX refuses an odd T in training: it takes the bias that is not there for one, whose rows cuDNN
    wants in pairs. So there is one token more then, which nobody looks at. d is a multiple of 8, at
    most 128. `tokens` count, the first ones (0: all); what comes out for others means nothing.
    `implementation` "xla" computes the same on any device, for comparison.
    """
    T = q.shape[1]
    if T % 2:
        q, k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, k, v))
    attend = functools.partial(jax.nn.dot_product_attention, implementation=implementation)

    def of_rows(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        if not T % 2 and not tokens:
            return attend(q, k, v)
        lengths = jnp.full(len(q), tokens or T, jnp.int32)
        return attend(q, k, v, query_seq_lengths=lengths, key_value_seq_lengths=lengths)[:, :T]

    # Left to XLA, each device would be given the lengths of all rows.
    return apart(of_rows, q, k, v)


def rotary(h: int, w: int, dim_head: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of DINOv3's rotary positions, each float32 (h w, d).

    Patch centres lie in -1 … 1 over the height and over the width, whatever the numbers of patches,
    so pictures of any size will do. Over d, a quarter of the angles is of the height and one of the
    width, with periods from 1 to ROTARY_BASE (left out) in equal ratios; then both once more.
    ValueError: d is no multiple of 4.
    """
    if dim_head % 4:
        raise ValueError(f"rotary positions need heads of a multiple of 4, not {dim_head}, wide")
    frequencies = 2 * np.pi / ROTARY_BASE ** (np.arange(dim_head // 4) * 4 / dim_head)  # (d / 4,)
    rows, columns = ((2 * np.arange(n) + 1) / n - 1 for n in (h, w))
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(h * w, 2, 1)
    angles = np.tile((grid * frequencies).reshape(h * w, dim_head // 2), 2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _rotate(x: jax.Array, rotation: tuple[np.ndarray, np.ndarray]) -> jax.Array:
    """Turns the pairs (x_i, x_{i + d/2}) of the last tokens of (B, T, N, d) by their angles."""
    cos, sin = (part[:, None] for part in rotation)  # (h w, 1, d)
    prefix, patches = x[:, : -len(cos)], x[:, -len(cos) :].astype(jnp.float32)
    left, right = jnp.split(patches, 2, axis=-1)
    turned = patches * cos + jnp.concatenate([-right, left], axis=-1) * sin
    return jnp.concatenate([prefix, turned.astype(x.dtype)], axis=1)
