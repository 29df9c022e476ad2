"""Vision transformer (Dosovitskiy et al. 2021), pre-norm, in the layout of timm's `vit_*` models.

Dimension letters: B batch, H W image, C channels, h w patch grid, T tokens, D width, N heads.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.models.dropout import Dropout

POSITION_STDDEV = 0.02
# Which of a block's activations are kept for the backward pass: all of them, the results of its
# matrix products, or only the block's input.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Attention(nn.Module):
    """Multi-head self-attention, (B, T, D) -> (B, T, D).

    One projection `qkv` holds queries, keys and values in that order, each `num_heads * dim_head`
    wide, as in the checkpoints that `weights.py` reads.
    """

    num_heads: int
    dim_head: int
    qkv_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends over the T tokens of each element of the batch."""
        B, T, D = x.shape
        N, d = self.num_heads, self.dim_head
        dense = functools.partial(
            nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        qkv = dense(3 * N * d, use_bias=self.qkv_bias, name="qkv")(x)
        # Not moveaxis of (B, T, 3, N, d), whose gradient is three padded arrays and their sum.
        q, k, v = (part.reshape(B, T, N, d) for part in jnp.split(qkv, 3, axis=-1))
        # Logits and softmax are float32, whatever the dtype.
        attend = _attend if self.dtype == jnp.float32 else jax.nn.dot_product_attention
        return dense(D, name="proj")(attend(q, k, v).reshape(B, T, N * d))


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ / √d) v of float32 arrays (B, T, N, d).

    As `jax.nn.dot_product_attention`, but the weights are divided by their sum after they met v,
    where there are d numbers a token instead of T, and tokens × features lie together: less time
    in a forward pass on CPU.
    """
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    logits = (q * q.shape[-1] ** -0.5) @ k.swapaxes(-1, -2)  # (B, N, T, T)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    out = (weights @ v) / weights.sum(axis=-1, keepdims=True)
    return out.transpose(0, 2, 1, 3)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, x · Φ(x), in float32 inside; any shape.

    As `nn.gelu(x, approximate=False)`, but the backward pass starts from x again. It would read
    three arrays of intermediate results otherwise, which takes longer on CPU than to redo them.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


def _gelu_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * (2 * math.pi) ** -0.5
    slope = _normal_cdf(wide) + wide * density
    return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


class TransformerBlock(nn.Module):
    """Pre-norm block, (B, T, D) -> (B, T, D): x + attention(norm(x)), then x + MLP(norm(x)).

    The MLP is Dense, exact GELU, Dense. Dropout follows both of its layers and the attention's
    output projection; with `train` and a rate above 0 it needs a "dropout" rng.
    """

    num_heads: int
    dim_head: int
    mlp_dim: int
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Applies the block."""
        norm = functools.partial(nn.LayerNorm, epsilon=self.norm_eps, dtype=self.dtype)
        dense = functools.partial(
            nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        drop = Dropout(self.dropout, deterministic=not train)
        attention = Attention(
            self.num_heads, self.dim_head, self.qkv_bias, dtype=self.dtype, name="attn"
        )
        x = x + drop(attention(norm(name="norm1")(x)))
        y = dense(self.mlp_dim, name="fc1")(norm(name="norm2")(x))
        y = drop(gelu(y))
        return x + drop(dense(x.shape[-1], name="fc2")(y))


class ViT(nn.Module):
    """Vision transformer whose feature is the [CLS] token after the final LayerNorm.

    The defaults are ViT-S/16 (timm `vit_small_patch16_224`, the paper's encoder).

    Attributes:
      patch_size: pixels of the input per token, both ways, the stem's downsampling included.
      width: D.
      depth: number of blocks.
      num_heads: attention heads; must divide `width`.
      mlp_dim: hidden width of the blocks' MLP; None is 4 * width.
      stem: output channels of stride-2 3x3 convolutions in front of the patches; each halves the
        resolution. Empty is the plain ViT. Small encoders learn faster with a stem.
      dropout: rate in the blocks and after the position embedding.
      dtype: of the activations; parameters and normalisation statistics are float32.
      remat: what of each block's activations is recomputed in the backward pass, to save memory:
        "none", "dots" (all but the matrix products), or "full".
    """

    patch_size: int = 16
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_dim: int | None = None
    stem: tuple[int, ...] = ()
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, return_tokens: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Encodes images.

        Args:
          images: (B, H, W, 3), normalised. H and W must be multiples of `patch_size`, and the
            same as at initialisation (the position embedding has one row per patch).
          train: whether dropout is active.
          return_tokens: also return the patch tokens.

        Returns:
          (B, D) features in `dtype`; with `return_tokens` also (B, h, w, D).

        Raises:
          ValueError: sizes that do not fit.
        """
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not divisible by num_heads {self.num_heads}")
        if self.remat not in REMAT:
            raise ValueError(f"remat {self.remat!r} is not one of {', '.join(REMAT)}")
        x = self._patch_embed(images.astype(self.dtype))
        B, h, w, D = x.shape
        cls = self.param("cls_token", nn.initializers.normal(POSITION_STDDEV), (1, 1, D))
        shape = (1, 1 + h * w, D)
        if self.has_variable("params", "pos_embed"):
            rows = self.get_variable("params", "pos_embed").shape[1]
            if rows != shape[1]:
                raise ValueError(
                    f"images of {images.shape[1]}x{images.shape[2]} pixels make {h}x{w} patches, "
                    f"but the position embedding has {rows - 1} rows beside [CLS]; give images of "
                    "the size used at initialisation, or resize with weights.initialise_from"
                )
        pos = self.param("pos_embed", nn.initializers.normal(POSITION_STDDEV), shape)
        tokens = jnp.concatenate([jnp.tile(cls, (B, 1, 1)), x.reshape(B, h * w, D)], axis=1)
        x = (tokens + pos).astype(self.dtype)
        x = Dropout(self.dropout, deterministic=not train)(x)
        # Argument 2 of the block's call (module and x come first) is `train`, a Python bool.
        block = TransformerBlock
        if self.remat != "none":
            block = nn.remat(TransformerBlock, static_argnums=(2,), policy=REMAT[self.remat])
        for i in range(self.depth):
            x = block(
                num_heads=self.num_heads,
                dim_head=D // self.num_heads,
                mlp_dim=self.mlp_dim or 4 * D,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f"block_{i}",
            )(x, train)
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        if return_tokens:
            return x[:, 0], x[:, 1:].reshape(B, h, w, D)
        return x[:, 0]

    def _patch_embed(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) -> (B, h, w, D)."""
        B, H, W, _ = x.shape
        reduction = 2 ** len(self.stem)
        if self.patch_size % reduction:
            raise ValueError(
                f"patch_size {self.patch_size} is not a multiple of {reduction}, the downsampling "
                f"of the stem {self.stem}"
            )
        if H % self.patch_size or W % self.patch_size:
            raise ValueError(f"image size {H}x{W} is not a multiple of patch {self.patch_size}")
        for i, channels in enumerate(self.stem):
            x = nn.Conv(channels, (3, 3), strides=2, dtype=self.dtype, name=f"stem_{i}")(x)
            x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=f"stem_norm_{i}")(x)
            x = gelu(x)
        # A convolution whose stride is its kernel is a matrix product over cut-out patches, and as
        # such its gradient is much faster, on CPU above all.
        p = self.patch_size // reduction
        h, w, C = x.shape[1] // p, x.shape[2] // p, x.shape[3]
        x = x.reshape(B, h, p, w, p, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, h, w, p * p * C)
        return nn.Dense(self.width, dtype=self.dtype, name="patch_embed")(x)
