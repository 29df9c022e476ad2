"""The temporal encoders that STORM-PSR compares its transformer with: MLP, LSTM and TCN.

All take the frame embeddings of a clip and give the logits that `TemporalTransformer` gives. Their
sizes are not in the paper. Defaults are those of the released code where it has any: an MLP of one
layer of 2,048 units (without an activation there), and 512 units of a recurrent network (a GRU
there, to whose number of layers it gives the number of frames by mistake; one layer here). There is
no TCN in it.

Dimension letters: B batch, T frames of a clip, D features, K components.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.networks.layers import Conv, Dense
from stormpsr_jax.networks.stored import MAX_CLIP, MAX_COMPONENTS, stored
from stormpsr_jax.networks.temporal import last_frames

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
