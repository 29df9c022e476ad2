"""The assembly-state detector: one stage, anchor-free, one box and one state per feature point.

Plays the part of the paper's YOLOv8-m (assembly state detection stream). Differences that follow
from the task: there is one object per image, and its states differ by single parts, so every
point classifies with the whole object in view (attention pooling over all points) while boxes and
objectness stay local. The same class covers 48-pixel synthetic pictures (`levels=1`) and 640-pixel
real ones (`width=48, depth=3, levels=3`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

STRIDE = 8  # of the finest feature level; each further level doubles it


def _norm(channels: int, dtype, name: str | None = None) -> nn.GroupNorm:
    """GroupNorm: no batch statistics, so small and background-heavy batches train alike."""
    groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
    return nn.GroupNorm(num_groups=groups, dtype=dtype, name=name)


class ConvNorm(nn.Module):
    """3x3 convolution → GroupNorm (→ ReLU)."""

    channels: int
    stride: int = 1
    activate: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) → (B, H / stride, W / stride, channels), sizes rounded up."""
        x = nn.Conv(self.channels, (3, 3), strides=self.stride, use_bias=False, dtype=self.dtype)(x)
        x = _norm(self.channels, self.dtype)(x)
        return nn.relu(x) if self.activate else x


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip connection (plain ones: XLA's depthwise are slow)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) → the same shape."""
        y = ConvNorm(x.shape[-1], dtype=self.dtype)(x)
        y = ConvNorm(x.shape[-1], activate=False, dtype=self.dtype)(y)
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """Learned queries, each of which looks for its own place (a part, say) among all points."""

    queries: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        """(B, N, C) → (B, features)."""
        scores = nn.Dense(self.queries, dtype=self.dtype, name="scores")(points)
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=1).astype(self.dtype)
        pooled = jnp.einsum("bnq,bnc->bqc", weights, points)
        pooled = pooled.reshape(pooled.shape[0], -1)  # (B, Q C)
        return nn.Dense(self.features, dtype=self.dtype, name="out")(pooled)


def anchor_points(height: int, width: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and strides of the N feature points of an image, finest level first, row by row.

    Args:
      height: image height in pixels.
      width: image width in pixels.
      levels: number of feature levels.

    Returns:
      points (N, 2) float32, x and y in pixels; strides (N,) float32 in pixels.
    """
    points, strides = [], []
    for level in range(levels):
        stride = STRIDE * 2**level
        y, x = np.mgrid[: -(-height // stride), : -(-width // stride)]
        points.append((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(np.full(x.size, stride))
    return np.concatenate(points).astype(np.float32), np.concatenate(strides).astype(np.float32)


class Detector(nn.Module):
    """Boxes, state logits and objectness at every feature point.

    Attributes:
      num_classes: S + 1; index c of `logits` is class c + 1 (the last one is the error state).
      width: channels after the stem; they double at strides 4, 8 and 16 (and stop there).
      depth: residual blocks per stride from 4 on.
      levels: feature levels, strides 8, 16, …; more than one are joined top-down.
      queries: attention queries of the state head.
      dropout: on the state head's hidden layer.
      dtype: of activations; parameters and outputs are float32.
    """

    num_classes: int
    width: int = 24
    depth: int = 1
    levels: int = 1
    queries: int = 8
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Detects.

        Args:
          images: (B, H, W, 3), normalised; H and W at least 8 pixels.
          train: whether dropout is on (then pass rngs={"dropout": key}).

        Returns:
          "boxes" (B, N, 4) cx, cy, w, h in 0..1 of the image, "logits" (B, N, S+1) of the state
          given that the object is there (softmax), "objectness" (B, N) logit that it is. Points
          in the order of `anchor_points`.
        """
        batch, height, width, _ = images.shape
        # Stem and stride 4.
        x = ConvNorm(self.width, stride=2, dtype=self.dtype, name="stem")(images)
        x = self._stage(x, 2 * self.width, "stride4")
        features = []
        for level in range(self.levels):
            stride = STRIDE * 2**level
            channels = self.width * min(stride // 2, 8)
            x = self._stage(x, channels, f"stride{stride}")
            features.append(x)

        if self.levels > 1:
            features = self._top_down(features)
        channels = features[0].shape[-1]
        # Towers are shared by the levels, as box sizes are in units of the stride.
        box_tower = ConvNorm(channels, dtype=self.dtype, name="box_tower")
        state_tower = ConvNorm(channels, dtype=self.dtype, name="state_tower")
        local = jnp.concatenate([box_tower(f).reshape(batch, -1, channels) for f in features], 1)
        state = jnp.concatenate([state_tower(f).reshape(batch, -1, channels) for f in features], 1)

        hidden = 2 * channels
        context = AttentionPool(self.queries, hidden, self.dtype, name="context")(state)
        point = nn.Dense(hidden, use_bias=False, dtype=self.dtype, name="point")(state)
        point = nn.relu(point + context[:, None])  # (B, N, hidden)
        point = nn.Dropout(self.dropout, deterministic=not train)(point)
        logits = nn.Dense(self.num_classes, name="logits")(point.astype(jnp.float32))

        local = local.astype(jnp.float32)
        # Prior probability 0.01, as in RetinaNet: most points are background.
        prior = nn.initializers.constant(-4.6)
        objectness = nn.Dense(1, bias_init=prior, name="objectness")(local)[..., 0]
        # Distances to the four sides, in strides; starts at boxes 4 strides wide.
        sides = jnp.exp(
            jnp.clip(
                nn.Dense(
                    4,
                    kernel_init=nn.initializers.normal(0.01),
                    bias_init=nn.initializers.constant(np.log(2.0)),
                    name="sides",
                )(local),
                -4.0,
                6.0,
            )
        )
        points, strides = anchor_points(height, width, self.levels)
        left_top = points - sides[..., :2] * strides[:, None]
        right_bottom = points + sides[..., 2:] * strides[:, None]
        size = np.asarray([width, height], np.float32)
        boxes = jnp.concatenate(
            [(left_top + right_bottom) / (2 * size), (right_bottom - left_top) / size], axis=-1
        )
        return {"boxes": boxes, "logits": logits, "objectness": objectness}

    def _stage(self, x: jax.Array, channels: int, name: str) -> jax.Array:
        x = ConvNorm(channels, stride=2, dtype=self.dtype, name=f"{name}_down")(x)
        for i in range(self.depth):
            x = ResidualBlock(self.dtype, name=f"{name}_block{i}")(x)
        return x

    def _top_down(self, features: list[jax.Array]) -> list[jax.Array]:
        """Feature pyramid (Lin et al. 2017): the coarse levels' context added to the finer."""
        channels = features[0].shape[-1]
        merged = []
        above = None
        for level in reversed(range(len(features))):
            x = nn.Dense(channels, dtype=self.dtype, name=f"lateral{level}")(features[level])
            if above is not None:
                # Odd sizes: the upsampled map is one row or column too large.
                above = above.repeat(2, axis=1).repeat(2, axis=2)
                x = x + above[:, : x.shape[1], : x.shape[2]]
            merged.append(x)
            above = x
        return merged[::-1]
