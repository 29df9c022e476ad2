"""Vision transformers, pre-norm: the plain one and what later families add to it.

Dosovitskiy et al. 2021, in the layout of timm's `vit_*` models; with LayerScale, SwiGLU and
registers (DINOv2: Oquab et al. 2023, Darcet et al. 2024), and with rotary positions in place of
learned ones (DINOv3: Siméoni et al. 2025). `vits.json` has the published models by name.

Dimension letters: B batch, H W image, C channels, h w patch grid, T tokens, D width, N heads,
d width of a head, R registers.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.networks.layers import (
    Affine,
    Conv,
    Dense,
    Dropout,
    LayerNorm,
    apart,
    gelu,
    spread,
)
from stormpsr_jax.networks.stored import stored

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


POSITION_STDDEV = 0.02
LAYER_SCALE = 1e-5  # gamma at initialisation, as in DINOv2 and DINOv3
TILE = 8  # rows and columns that a GPU's matrix units take of bfloat16 arrays
# Which of a block's activations are kept for the backward pass: all of them, the results of its
# matrix products, or only the block's input.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def _filled_up(
    x: jax.Array, rotation: tuple[np.ndarray, np.ndarray] | None
) -> tuple[jax.Array, tuple[np.ndarray, np.ndarray] | None]:
    """Tokens (B, T, D) with zeros up to a multiple of TILE of them, which are not turned either.

    Once here, in place of before each matrix product and behind it: XLA for GPU gives these arrays
    of whole tiles, and JAX's kernel of cuDNN takes no odd numbers of tokens.
    """
    more = -x.shape[1] % TILE
    if rotation is not None:
        cos, sin = rotation
        end = ((0, more), (0, 0))
        rotation = np.pad(cos, end, constant_values=1), np.pad(sin, end)
    return jnp.pad(x, ((0, 0), (0, more), (0, 0))), rotation


class TransformerBlock(nn.Module):
    """Pre-norm block, (B, T, D) -> (B, T, D): x + attention(norm(x)), then x + MLP(norm(x)).

    The MLP is Dense, exact GELU, Dense ("gelu"), or Dense of twice `mlp_dim`, the SiLU of its first
    half times its second half, Dense ("swiglu"). With `layer_scale` both branches are multiplied by
    a gain for each of the D features. Dropout follows both layers of the MLP and the attention's
    output projection; with `train` and a rate above 0 it needs a "dropout" rng. `attention`,
    `tokens` and `queries` are those of Attention: (B, T, D) -> (B, queries, D).
    """

    num_heads: int
    dim_head: int
    mlp_dim: int
    mlp: str = "gelu"
    bias: str = "qkv"
    layer_scale: bool = False
    norm_eps: float = 1e-6
    dropout: float = 0.0
    attention: str = "xla"
    tokens: int = 0
    queries: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        rotation: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> jax.Array:
        """Applies the block; `rotation` as in Attention."""
        norm = functools.partial(LayerNorm, epsilon=self.norm_eps, dtype=self.dtype)
        dense = functools.partial(
            Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        drop = Dropout(self.dropout, deterministic=not train, of=x.shape[1])
        attention = Attention(
            self.num_heads,
            self.dim_head,
            self.bias,
            self.attention,
            self.tokens,
            self.queries,
            dtype=self.dtype,
            name="attn",
        )
        # Norms and sums are of the rows of a matrix, which the products between them take as they
        # lie. XLA for GPU puts the batch last otherwise, and turns the array around for each.
        B, _, D = x.shape
        flat = x.reshape(-1, D)
        y, affine = norm(name="norm1")(flat)
        y = drop(self._scaled("gamma1", attention(y.reshape(x.shape), rotation, affine)))
        if self.queries:
            flat = x[:, : self.queries].reshape(-1, D)
        flat = flat + y.reshape(-1, D)
        gated = self.mlp == "swiglu"
        y, affine = norm(name="norm2")(flat)
        y = y.reshape(B, -1, D)
        y = dense((2 if gated else 1) * self.mlp_dim, name="fc1")(y, affine=affine)
        if gated:
            gate, y = jnp.split(y, 2, axis=-1)
            y = drop(nn.silu(gate) * y)
        else:
            y = drop(gelu(y))
        y = drop(self._scaled("gamma2", dense(D, name="fc2")(y)))
        return (flat + y.reshape(-1, D)).reshape(B, -1, D)

    def _scaled(self, name: str, x: jax.Array) -> jax.Array:
        if not self.layer_scale:
            return x
        gamma = self.param(name, nn.initializers.constant(LAYER_SCALE), x.shape[-1:])
        return x * spread(gamma, x)


class ViT(nn.Module):
    """Vision transformer whose feature is the [CLS] token after the final LayerNorm.

    The defaults are ViT-S/16 (timm `vit_small_patch16_224`, the paper's encoder).

    Attributes:
        patch_size: pixels of the input per token, both ways, the stem's downsampling included.
        mlp_dim: hidden width of the blocks' MLP; 0 is 4 * width.
        stem: output channels of stride-2 3x3 convolutions in front of the patches; each halves the
            resolution. Empty is the plain ViT. Small encoders learn faster with a stem.
        dtype: of the activations; parameters and normalisation statistics are float32.
        remat: what of each block's activations is recomputed in the backward pass, to save memory:
            "none", "dots" (all but the matrix products), or "full".
        attention: what computes the attention in training, "xla" or "cudnn".
        mlp: of the blocks, "gelu" or "swiglu".
        positions: "learned", a row for each patch of pictures of one size, or "rotary", of any
            size.
        bias: of the blocks' attention, one of BIASES.
        layer_scale: whether the blocks have it.
        registers: R, tokens between [CLS] and the patches that have no position.
        pre_norm: whether a LayerNorm stands before the first block too, as in CLIP.
        norm_eps: of every LayerNorm but the stem's.
    """

    patch_size: int = stored(1, 256, default=16)
    width: int = stored(1, 16_384, default=384)
    depth: int = stored(1, 64, default=12)
    num_heads: int = stored(1, 256, default=6)
    mlp_dim: int = stored(1, 65_536, default=0)
    stem: tuple[int, ...] = stored(1, 16_384, default=())
    dtype: Any = jnp.float32
    remat: str = "none"
    attention: str = "xla"
    mlp: str = stored("gelu", "swiglu", default="gelu")
    positions: str = stored("learned", "rotary", default="learned")
    bias: str = stored(*BIASES, default="qkv")
    layer_scale: bool = stored(False, True, default=False)
    registers: int = stored(0, 64, default=0)
    pre_norm: bool = stored(False, True, default=False)
    norm_eps: float = stored(0.0, 1e-2, default=1e-6)

    def __post_init__(self) -> None:
        if not self.mlp_dim:
            object.__setattr__(self, "mlp_dim", 4 * self.width)
        super().__post_init__()

    @property
    def layers(self) -> list[str]:
        """Names of the parameters of the blocks and of the last norm."""
        return [*(f"block_{i}" for i in range(self.depth)), "norm"]

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Images (B, H, W, 3), normalised → features (B, D) in `dtype`; ValueError of other sizes.

        H and W must be multiples of `patch_size`, and with learned positions the same as at
        initialisation (one row per patch).
        """
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not divisible by num_heads {self.num_heads}")
        x = self._patch_embed(images.astype(self.dtype))
        _, h, w, D = x.shape
        dim_head = D // self.num_heads
        rotation = rotary(h, w, dim_head) if self.positions == "rotary" else None
        x = self._tokens(x, images.shape)
        tokens = x.shape[1]
        if self.attention == "cudnn" and not self.is_initializing():
            x, rotation = _filled_up(x, rotation)
        norm = functools.partial(nn.LayerNorm, epsilon=self.norm_eps, dtype=self.dtype)
        if self.pre_norm:
            x = norm(name="norm_pre")(x)
        # Argument 2 of the block's call (module and x come first) is `train`, a Python bool.
        block = TransformerBlock
        if self.remat != "none":
            block = nn.remat(TransformerBlock, static_argnums=(2,), policy=REMAT[self.remat])
        for i in range(self.depth):
            x = block(
                num_heads=self.num_heads,
                dim_head=dim_head,
                mlp_dim=self.mlp_dim,
                mlp=self.mlp,
                bias=self.bias,
                layer_scale=self.layer_scale,
                norm_eps=self.norm_eps,
                attention=self.attention,
                tokens=tokens if x.shape[1] > tokens else 0,
                queries=1 if i == self.depth - 1 else 0,  # nobody reads the others
                dtype=self.dtype,
                name=f"block_{i}",
            )(x, train, rotation)
        return norm(name="norm")(x)[:, 0]

    def _tokens(self, x: jax.Array, image_shape: tuple[int, ...]) -> jax.Array:
        """Patches (B, h, w, D) with positions, behind [CLS] and registers: (B, 1 + R + h w, D)."""
        B, h, w, D = x.shape
        init = nn.initializers.normal(POSITION_STDDEV)
        cls = self.param("cls_token", init, (1, 1, D))
        x = jnp.concatenate([jnp.tile(cls, (B, 1, 1)), x.reshape(B, h * w, D)], axis=1)
        if self.positions == "learned":
            shape = (1, 1 + h * w, D)
            if self.has_variable("params", "pos_embed"):
                rows: int = self.get_variable("params", "pos_embed").shape[1]
                if rows != shape[1]:
                    raise ValueError(
                        f"images of {image_shape[1]}x{image_shape[2]} pixels make {h}x{w} patches, "
                        f"but the position embedding has {rows - 1} rows beside [CLS]; give images "
                        "of the size used at initialisation, or resize with weights.initialise_from"
                    )
            x = x + self.param("pos_embed", init, shape)
        x = x.astype(self.dtype)
        if self.registers:
            registers = self.param("registers", init, (1, self.registers, D))
            registers = jnp.tile(registers, (B, 1, 1)).astype(self.dtype)
            x = jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)
        return x

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
            x = Conv(channels, (3, 3), strides=2, dtype=self.dtype, name=f"stem_{i}")(x)
            x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=f"stem_norm_{i}")(x)
            x = gelu(x)
        # A convolution whose stride is its kernel is a matrix product over cut-out patches, and as
        # such its gradient is much faster, on CPU above all.
        p = self.patch_size // reduction
        h, w, C = x.shape[1] // p, x.shape[2] // p, x.shape[3]
        x = x.reshape(B, h, p, w, p, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, h, w, p * p * C)
        return Dense(self.width, dtype=self.dtype, name="patch_embed")(x)
