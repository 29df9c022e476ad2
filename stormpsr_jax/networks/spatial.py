"""Spatial encoder f with projection head g: a backbone and the three-layer head of the paper.

Dimension letters: B batch, H W image, D features, K components.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.networks.layers import Dense
from stormpsr_jax.networks.stored import stored

BATCH_NORM_MOMENTUM = 0.1
BATCH_NORM_EPS = 1e-5


def l2_normalise(x: jax.Array) -> jax.Array:
    """Scales the last axis to length 1, in float32; a row shorter than 1e-6 stays short.

    The square root is taken of a number kept away from 0, so that the gradient at a row of zeros
    (every unit of a ReLU layer off) is finite.
    """
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


class BatchNorm(nn.Module):
    """Batch normalisation over axis 0 of (B, D), in float32, with PyTorch's running statistics.

    The batch is normalised by its biased variance (divide by B), while the running variance
    collects the unbiased one (divide by B - 1), as PyTorch's BatchNorm1d does. flax's BatchNorm
    uses the biased one for both, which would make resumed released checkpoints drift apart.
    New statistics count 0.1.

    Under jit with a batch sharded over devices the mean over axis 0 is already the mean of the
    global batch (the compiler adds the all-reduce), so no axis name is needed.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises (B, D) by the batch if `train`, else by the running statistics.

        In training it updates these: the collection "batch_stats" has to be mutable. ValueError of
        a batch of one then.
        """
        x = x.astype(jnp.float32)
        B, D = x.shape
        scale = self.param("scale", nn.initializers.ones, (D,))
        bias = self.param("bias", nn.initializers.zeros, (D,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (D,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (D,))
        if train and B < 2 and not self.is_initializing():
            raise ValueError(f"BatchNorm in training needs at least 2 images, the batch has {B}")
        if train:
            mean = jnp.mean(x, axis=0)
            var = jnp.mean((x - mean) ** 2, axis=0)
        else:
            mean, var = running_mean.value, running_var.value
        if train and not self.is_initializing():
            m = BATCH_NORM_MOMENTUM
            running_mean.value = (1 - m) * running_mean.value + m * mean
            running_var.value = (1 - m) * running_var.value + m * var * B / (B - 1)
        return (x - mean) * jax.lax.rsqrt(var + BATCH_NORM_EPS) * scale + bias


class HeadLayer(nn.Module):
    """Dense, BatchNorm, ReLU: (B, D) -> (B, features) float32."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the layer; arguments as in BatchNorm."""
        x = Dense(self.features, dtype=self.dtype, name="dense")(x)
        return nn.relu(BatchNorm(name="norm")(x, train))


class SpatialEncoder(nn.Module):
    """Backbone f and projection head g (paper, spatial encoder; released `encoder` and heads).

    Layer 1 (`first_head`: Dense, BatchNorm, ReLU) stays after pre-training; its L2-normalised
    output is the frame embedding. Layer 2 (`second_head`, alike) reads layer 1's output before
    that normalisation and, with layer 3 (`projection_head`, Dense), exists only for SupCon.

    Attributes:
        encoder: the backbone f, of any family, such as vit.ViT; see `backbones.LABELS`.
        hidden: width of layer 1, the frame embedding.
        second_hidden: width of layer 2; None is `hidden`.
        projection: width of layer 3, what SupCon sees.
        num_components: K of an auxiliary linear head `state_head` on layer 1's output, which helps
            small encoders; 0 is the paper's encoder, without it.
    """

    encoder: nn.Module
    hidden: int = stored(1, 16_384, default=128)
    second_hidden: int | None = None
    projection: int = 128
    num_components: int = 0

    @property
    def dtype(self) -> Any:
        """Of the activations, those of the backbone."""
        return self.encoder.dtype

    def setup(self) -> None:
        """Names the parts as weights.py expects them."""
        self.first_head = HeadLayer(self.hidden, self.dtype)
        self.second_head = HeadLayer(self.second_hidden or self.hidden, self.dtype)
        self.projection_head = Dense(self.projection, dtype=self.dtype)
        if self.num_components:
            self.state_head = Dense(self.num_components, dtype=self.dtype)

    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Images (B, H, W, 3), normalised → float32 arrays by name.

        "embedding" (B, hidden) and "projection" (B, projection), both of length 1, and with
        `num_components` "state_logits" (B, K). `train` is that of BatchNorm.
        """
        hidden = self.first_head(self.encoder(images, train), train)
        second = self.second_head(hidden, train)
        outputs = {
            "embedding": l2_normalise(hidden),
            "projection": l2_normalise(self.projection_head(second)),
        }
        if self.num_components:
            outputs["state_logits"] = self.state_head(hidden).astype(jnp.float32)
        return outputs

    def embed(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Frame embeddings (B, hidden) of images (B, H, W, 3); nothing behind layer 1 is computed.

        Differentiable, so it also serves fine-tuning; `train` is as in `__call__`.
        """
        return l2_normalise(self.first_head(self.encoder(images, train), train))
