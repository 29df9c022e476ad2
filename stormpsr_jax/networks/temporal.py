"""Temporal encoder: a transformer over the frame embeddings of one clip.

Dimension letters: B batch, T frames of a clip, D features, K components.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.networks import vit
from stormpsr_jax.networks.layers import Dense, Dropout, gelu
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
        attention: of the blocks in training, see `attention.Attention`.
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
