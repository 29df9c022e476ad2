"""The assembly-state detector: one stage, anchor-free, a box and a state per feature point.

Plays the part of the paper's YOLOv8-m (assembly state detection stream). It differs where the task
does: there is one object per picture, and its states differ by single parts. So the state is read
once, from features resampled inside the likeliest box, with every part at its own place: a head on
pooled features hardly starts to learn such states, and a head on fixed places does at once.

Which way round the product lies still moves its parts within the box. Where renders tell it
(`upright`), one head learns that, and another reads the state from the picture turned upright. That
picture shows by how much the first was off, so a third one corrects it (`corrections`).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stormpsr_jax.networks.layers import Conv, Dense
from stormpsr_jax.networks.stored import MAX_COMPONENTS, stored

STRIDE = 8  # of the finest feature level; each further level doubles it


class ConvNorm(nn.Module):
    """Convolution → GroupNorm (→ ReLU); no batch statistics, so every picture stands alone."""

    channels: int
    stride: int = 1
    kernel: int = 3
    activate: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) → (B, H / stride, W / stride, channels), sizes rounded up."""
        kernel = (self.kernel, self.kernel)
        x = Conv(self.channels, kernel, self.stride, use_bias=False, dtype=self.dtype)(x)
        x = nn.GroupNorm(num_groups=math.gcd(8, self.channels), dtype=self.dtype)(x)
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


def crop(features: jax.Array, boxes: jax.Array, size: int, margin: float) -> jax.Array:
    """Resamples the inside of boxes (B, 4), cx, cy, w, h in 0..1, to a grid: (B, size, size, C).

    A box is enlarged by the factor `margin` first. Products of matrices, no gather: bilinear where
    it enlarges, a triangle as wide as two output cells where it reduces. Cells beyond the border
    are zero.
    """

    def weights(centre: jax.Array, extent: jax.Array, length: int) -> jax.Array:
        # (B,), (B,) → (B, size, length).
        cell = (
            jnp.maximum(extent * margin, 1 / length)[:, None] * length / size
        )  # a cell of the grid, in feature points
        at = centre[:, None] * length + cell * (np.arange(size) + 0.5 - size / 2)
        width = jnp.maximum(cell, 1.0)[..., None]
        distance = jnp.abs(np.arange(length) + 0.5 - at[..., None])
        return (nn.relu(1 - distance / width) / width).astype(features.dtype)

    rows = weights(boxes[:, 1], boxes[:, 3], features.shape[1])
    columns = weights(boxes[:, 0], boxes[:, 2], features.shape[2])
    x = jnp.einsum("byh,bhwc->bywc", rows, features)
    return jnp.einsum("bxw,bywc->byxc", columns, x)


def straighten(images: jax.Array, poses: jax.Array, size: int) -> jax.Array:
    """Resamples pictures so that the product lies upright and fills them (bilinear).

    Images (B, H, W, C), poses (B, 6), see `data.folder.LabelledFrames` → (B, size, size, C),
    left to right along the product's x, bottom to top along y. The border is repeated.
    """
    at = 2 * (np.arange(size, dtype=np.float32) + 0.5) / size - 1
    centre, x_axis, y_axis = (poses[:, None, None, i : i + 2] for i in (0, 2, 4))
    points = centre + at[None, :, None] * x_axis - at[:, None, None] * y_axis  # 0..1 of the picture
    height, width = images.shape[1:3]
    points = points * np.asarray([width, height], np.float32) - 0.5

    def sample(channel: jax.Array, points: jax.Array) -> jax.Array:
        rows_columns = [points[..., 1], points[..., 0]]
        return jax.scipy.ndimage.map_coordinates(channel, rows_columns, order=1, mode="nearest")

    channels = jax.vmap(sample, in_axes=(-1, None), out_axes=-1)
    return jax.vmap(channels)(images, points)


def anchor_points(height: int, width: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and strides of the N feature points of an image, finest level first, row by row.

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


class Correction(nn.Module):
    """By how much a pose is off, read from pictures that it turned upright."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pictures: jax.Array) -> jax.Array:
        """(B, H, W, 3) → (B, 6) float32 in units of the axes of the pose, at first about 0."""
        x = ConvNorm(2 * self.width, 4, 4, dtype=self.dtype)(pictures)
        for _ in range(2):
            x = ConvNorm(4 * self.width, 2, dtype=self.dtype)(x)
        x = nn.relu(Dense(128, dtype=self.dtype)(x.reshape(x.shape[0], -1)))
        start = nn.initializers.normal(0.01)
        return Dense(6, kernel_init=start)(x.astype(jnp.float32))


class Detector(nn.Module):
    """Boxes, state logits and objectness at every feature point.

    Small pictures need no more than the defaults; for 640 pixels take width=52, depth=2, levels=3,
    grid=24, which is as large as YOLOv8-m (78.9 GFLOPs a picture, twice its multiply-adds).

    Attributes:
        num_classes: S + 1; index c of the logits is class c + 1 (the last one is the error state).
            0 tells no states, only where the object is.
        width: channels are 2, 4, 8, 8, … times this at strides 4, 8, 16, 32, …
        depth: residual blocks per stride.
        levels: feature levels, strides 8, 16, …; more than one are joined top-down.
        grid: height and width of the features that the state is read from.
        num_components: K of the head "parts", which tells each component's condition from the same
            features; 0 leaves it out.
        upright: a head "pose" tells how the product lies in the picture, and the state is read from
            the picture turned upright, instead of from the inside of the box.
        corrections: times that the picture turned upright by a pose corrects it.
        dtype: of activations; parameters and outputs are float32.
    """

    num_classes: int = stored(0, 100_001)
    width: int = stored(1, 1_024, default=24)
    depth: int = stored(0, 16, default=1)
    levels: int = stored(1, 6, default=1)
    grid: int = stored(1, 128, default=12)
    num_components: int = stored(0, MAX_COMPONENTS, default=0)
    upright: bool = stored(False, True, default=False)
    corrections: int = stored(0, 8, default=0)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Images (B, H, W, 3), normalised → arrays by name; ValueError of H or W not in fours.

        "boxes" (B, N, 4) cx, cy, w, h in 0..1 of the image; "logits" (B, N, S+1) of the state if
        the object is there (softmax; equal at all points of an image); "objectness" (B, N) logit
        that it is there. Points in the order of `anchor_points`. With `num_components` also "parts"
        (B, 2K) logits: K that the component is installed, K that it sits right if it is; with
        `upright` "pose" (1 + corrections, B, 6), the last the best, see
        `data.folder.LabelledFrames`.
        """
        del train
        _, height, width, _ = images.shape
        if height % 4 or width % 4:
            raise ValueError(
                f"the detector takes pictures whose sides are multiples of 4, not {height} x "
                f"{width}; build the shards at another image size"
            )
        # A patch per point: on CPUs a pyramid of convolutions up to here costs 7 times as much.
        x = ConvNorm(2 * self.width, 4, 4, dtype=self.dtype, name="stem")(images)
        x = fine = self._blocks(x, "stride4")
        features = []
        # Where the state has pictures of its own, the levels are for boxes alone.
        narrow = -(-self.width // 2) if self.upright else self.width
        for level in range(self.levels):
            stride = STRIDE * 2**level
            x = self._stage(x, narrow * min(stride // 2, 8), f"stride{stride}")
            features.append(x)
        if self.levels > 1:
            features = self._top_down(features)
        boxes, objectness = self._boxes(features, (height, width))
        if not self.num_classes:
            return {"boxes": boxes, "objectness": objectness}

        best = objectness.argmax(-1)[:, None, None]
        box = jax.lax.stop_gradient(jnp.take_along_axis(boxes, best, 1)[:, 0])
        x = crop(fine, box, self.grid, margin=1.2)
        outputs = {"boxes": boxes, "objectness": objectness}
        if self.upright:
            outputs["pose"] = poses = self._corrected(images, self._pose(x, box))
            # What the parts look like says nothing about where they are.
            pictures = straighten(images, jax.lax.stop_gradient(poses[-1]), 4 * self.grid)
            x = ConvNorm(2 * self.width, 4, 4, dtype=self.dtype, name="upright_stem")(pictures)
        x = self._hidden(x, "state")
        logits = Dense(self.num_classes, name="logits")(x)
        outputs["logits"] = jnp.broadcast_to(logits[:, None], (*objectness.shape, self.num_classes))
        if self.num_components:
            outputs["parts"] = Dense(2 * self.num_components, name="parts")(x)
        return outputs

    def _hidden(self, x: jax.Array, name: str) -> jax.Array:
        """(B, grid, grid, C) → (B, 128) float32, each cell with weights of its own."""
        x = self._stage(x, 4 * self.width, f"{name}_half")
        x = ConvNorm(4 * self.width, stride=2, dtype=self.dtype, name=f"{name}_quarter")(x)
        dense = Dense(128, dtype=self.dtype, name=f"{name}_hidden")
        return nn.relu(dense(x.reshape(x.shape[0], -1))).astype(jnp.float32)

    def _pose(self, x: jax.Array, box: jax.Array) -> jax.Array:
        """Features in a box (B, grid, grid, C), the box (B, 4) → pose (B, 6) in the picture."""
        # In units of the box, so that a product seen from further away is no other task.
        found = Dense(6, name="pose")(self._hidden(x, "pose"))
        side = box[:, 2:].max(axis=1, keepdims=True)
        return jnp.concatenate([box[:, :2], jnp.zeros_like(box)], 1) + found * side / 2

    def _corrected(self, images: jax.Array, pose: jax.Array) -> jax.Array:
        """Poses (1 + corrections, B, 6): the first, and each later one of what that one shows."""
        poses = [pose]
        if self.corrections:
            correction = Correction(self.width, self.dtype, name="correction")
        for _ in range(self.corrections):
            pose = jax.lax.stop_gradient(poses[-1])
            # With its surroundings: what is cut off cannot be seen to be off.
            wide = pose.at[:, 2:].multiply(1.3)
            found = correction(straighten(images, wide, 4 * self.grid))
            axes = pose[:, 2:].reshape(-1, 2, 2)
            poses.append(pose + (found.reshape(-1, 3, 2) @ axes).reshape(-1, 6))
        return jnp.stack(poses)

    def _boxes(
        self, features: Sequence[jax.Array], image_size: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array]:
        """Feature levels (B, h, w, C) → boxes (B, N, 4), objectness (B, N)."""
        batch, *_, channels = features[0].shape
        # One head for all levels, as box sides are in units of the stride.
        tower = ConvNorm(channels, dtype=self.dtype, name="box_tower")
        x = jnp.concatenate([tower(f).reshape(batch, -1, channels) for f in features], 1)
        x = x.astype(jnp.float32)
        # Most points are background: starts at probability 0.01 (RetinaNet, Lin et al. 2017).
        prior = nn.initializers.constant(-np.log(99))
        objectness = Dense(1, bias_init=prior, name="objectness")(x)[..., 0]
        # log of the distances to the left, top, right and bottom side; starts at 2 strides.
        sides = Dense(
            4,
            kernel_init=nn.initializers.normal(0.01),
            bias_init=nn.initializers.constant(np.log(2)),
            name="sides",
        )(x)
        points, strides = anchor_points(*image_size, self.levels)
        sides = jnp.exp(jnp.clip(sides, -4, 6)) * strides[:, None]
        size = np.asarray(image_size[::-1], np.float32)
        centre = (points + (sides[..., 2:] - sides[..., :2]) / 2) / size
        return jnp.concatenate([centre, (sides[..., :2] + sides[..., 2:]) / size], -1), objectness

    def _stage(self, x: jax.Array, channels: int, name: str) -> jax.Array:
        x = ConvNorm(channels, stride=2, dtype=self.dtype, name=f"{name}_down")(x)
        return self._blocks(x, name)

    def _blocks(self, x: jax.Array, name: str) -> jax.Array:
        for i in range(self.depth):
            x = ResidualBlock(self.dtype, name=f"{name}_block{i}")(x)
        return x

    def _top_down(self, features: list[jax.Array]) -> list[jax.Array]:
        """Feature pyramid (Lin et al. 2017): the coarse levels' context added to the finer."""
        channels = features[0].shape[-1]
        merged = []
        above = None
        for level in reversed(range(len(features))):
            x = Dense(channels, dtype=self.dtype, name=f"lateral{level}")(features[level])
            if above is not None:
                # Odd sizes: the upsampled map is one row or column too large.
                above = above.repeat(2, axis=1).repeat(2, axis=2)
                x = x + above[:, : x.shape[1], : x.shape[2]]
            merged.append(x)
            above = x
        return merged[::-1]
