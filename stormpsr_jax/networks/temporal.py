"""Temporal encoder: a transformer over the frame embeddings of one clip.

Dimension letters: B batch, T frames of a clip, D features, K components.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.networks import vit
from stormpsr_jax.networks.layers import Conv, Dense, Dropout, gelu
from stormpsr_jax.networks.stored import MAX_CLIP, MAX_COMPONENTS, stored

NORM_EPS = 1e-5


def last_frames(embeddings: jax.Array, context_frames: int) -> jax.Array:
    """Clips (B, T, D) as if recordings began `context_frames` before the end; 0 = as they are.

    So earlier frames repeat the first seen one. It is a control, of what a network of the same size
    makes of less.
    """
    if not context_frames:
        return embeddings
    T = embeddings.shape[1]
    return embeddings[:, jnp.maximum(jnp.arange(T), T - context_frames)]


class TemporalTransformer(nn.Module):
    """[CLS] and T frame embeddings -> per component, whether it changed within the clip.

    Blocks as in vit.TransformerBlock, without a bias on queries, keys and values, and without a
    LayerNorm after the last block. The head reads the [CLS] token.

    Attributes:
        num_components: K.
        outputs: 1, or 3 with each component's condition at the last frame beside its change.
        num_frames: the most frames a clip may have; the position embedding has one row more.
        context_frames: of `last_frames`.
        depth, num_heads, dim_head, mlp_dim, dropout: defaults are the released code's.
        drop_positions: whether dropout also follows the position embedding.
        head: "linear" is LayerNorm and Dense (released code); "mlp" has a hidden GELU layer of
            width D between them (paper).
        attention: of the blocks in training, see `vit.Attention`.
    """

    num_components: int = stored(1, MAX_COMPONENTS)
    num_frames: int = stored(1, MAX_CLIP)
    outputs: int = stored(1, 3, default=1)
    context_frames: int = stored(0, MAX_CLIP, default=0)
    depth: int = stored(1, 64, default=6)
    num_heads: int = stored(1, 256, default=8)
    dim_head: int = stored(1, 4_096, default=128)
    mlp_dim: int = stored(1, 65_536, default=4096)
    dropout: float = 0.1
    drop_positions: bool = False
    head: str = stored("linear", "mlp", default="linear")
    attention: str = "xla"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, embeddings: jax.Array, train: bool = False) -> jax.Array:
        """Logits (B, outputs · K) in float32 of clips.

        K that the component changed within the clip; of three outputs also K that it is installed
        at the clip's last frame, and K that it sits right there if it is.

        A clip (B, T, D) shorter than `num_frames` uses the first rows of the position embedding; a
        longer one is a ValueError. With `train`, dropout needs a "dropout" rng.
        """
        B, T, D = embeddings.shape
        if T > self.num_frames:
            raise ValueError(f"a clip of {T} frames, but num_frames is {self.num_frames}")
        embeddings = last_frames(embeddings, self.context_frames)
        init = nn.initializers.normal(vit.POSITION_STDDEV)
        cls = self.param("cls_token", init, (1, 1, D))
        pos = self.param("pos_embedding", init, (1, self.num_frames + 1, D))
        x = jnp.concatenate([jnp.tile(cls, (B, 1, 1)), embeddings], axis=1)
        x = (x + pos[:, : T + 1]).astype(self.dtype)
        drop = Dropout(self.dropout, deterministic=not train)
        x = drop(x) if self.drop_positions else x
        for i in range(self.depth):
            x = vit.TransformerBlock(
                num_heads=self.num_heads,
                dim_head=self.dim_head,
                mlp_dim=self.mlp_dim,
                bias="none",
                norm_eps=NORM_EPS,
                dropout=self.dropout,
                attention=self.attention,
                queries=1 if i == self.depth - 1 else 0,  # nobody reads the others
                dtype=self.dtype,
                name=f"block_{i}",
            )(x, train)
        x = nn.LayerNorm(epsilon=NORM_EPS, dtype=self.dtype, name="head_norm")(x[:, 0])
        if self.head == "mlp":
            x = Dense(D, dtype=self.dtype, name="head_hidden")(x)
            x = drop(gelu(x))
        logits = Dense(self.outputs * self.num_components, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)


TCN_KERNEL = 3
_Layer = Callable[[jax.Array], jax.Array]


def tcn_depth(num_frames: int) -> int:
    """Blocks after which the last frame's features of a TCN depend on all `num_frames` frames."""
    return max(1, (num_frames // (TCN_KERNEL - 1)).bit_length())


class Baseline(nn.Module):
    """What networks like these have in common; `_features` is a subclass's.

    Attributes:
        num_components, outputs, context_frames: see `TemporalTransformer`.
        depth: layers or blocks.
        width: their units or channels.
        dropout: rate after each of them.
    """

    num_components: int = stored(1, MAX_COMPONENTS)
    outputs: int = stored(1, 3, default=1)
    context_frames: int = stored(0, MAX_CLIP, default=0)
    depth: int = stored(1, 12, default=1)
    width: int = stored(1, 16_384, default=512)
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, embeddings: jax.Array, train: bool = False) -> jax.Array:
        """Logits (B, outputs · K) in float32 of clips (B, T, D).

        An MLP reads clips of the T of its initialisation, the others of any.
        """

        def drop(x: jax.Array) -> jax.Array:
            return nn.Dropout(self.dropout, deterministic=not train)(x)

        x = self._features(last_frames(embeddings, self.context_frames).astype(self.dtype), drop)
        x = nn.LayerNorm(dtype=self.dtype, name="head_norm")(x)
        logits = Dense(self.outputs * self.num_components, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)

    def _features(self, x: jax.Array, drop: _Layer) -> jax.Array:
        """(B, T, D) -> (B, width)."""
        raise NotImplementedError


class TemporalMLP(Baseline):
    """All frames of a clip side by side, then `depth` layers (Dense, GELU, dropout) of `width`.

    `activation` is "gelu", or "none": Dense alone, without dropout, as in the released code.
    """

    width: int = stored(1, 16_384, default=2048)
    activation: str = stored("gelu", "none", default="gelu")

    def _features(self, x: jax.Array, drop: _Layer) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for i in range(self.depth):
            x = Dense(self.width, dtype=self.dtype, name=f"dense_{i}")(x)
            if self.activation == "gelu":
                x = drop(nn.gelu(x))
        return x


class TemporalLSTM(Baseline):
    """`depth` LSTM layers of `width` units, first frame to last; the last output is read."""

    def _features(self, x: jax.Array, drop: _Layer) -> jax.Array:
        # Of any number of rows; by itself flax draws them, for which it wants to know the number.
        zeros = jnp.zeros((x.shape[0], self.width), jnp.float32)
        for i in range(self.depth):
            cell = nn.OptimizedLSTMCell(self.width, dtype=self.dtype, name=f"lstm_{i}")
            outputs: Any = nn.RNN(cell, name=f"layer_{i}")(x, initial_carry=(zeros, zeros))
            x = drop(outputs)
        return x[:, -1]


class TemporalTCN(Baseline):
    """Residual causal convolutions over time (Bai et al. 2018), dilated by 1, 2, 4, …

    Each of the `depth` blocks is x + dropout(GELU(conv(LayerNorm(x)))) with `width` channels and
    kernel 3; the last frame's features are read. Their receptive field is
    1 + 2 · (2^depth − 1) frames; `tcn_depth` gives the blocks that see a clip whole: 6 of 65
    frames, 8 of 257.
    """

    depth: int = stored(1, 12, default=6)

    @staticmethod
    def of_clips(num_frames: int, context_frames: int) -> dict[str, int]:
        """The fields that follow from the frames of a clip and those that are seen of them."""
        return {"depth": tcn_depth(context_frames or num_frames)}

    def _features(self, x: jax.Array, drop: _Layer) -> jax.Array:
        x = Dense(self.width, dtype=self.dtype, name="stem")(x)
        for i in range(self.depth):
            y = nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
            y = Conv(
                self.width,
                (TCN_KERNEL,),
                kernel_dilation=2**i,
                padding="CAUSAL",
                dtype=self.dtype,
                name=f"conv_{i}",
            )(y)
            x = x + drop(nn.gelu(y))
        return x[:, -1]
