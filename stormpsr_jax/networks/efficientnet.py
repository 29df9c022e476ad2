"""EfficientNet-Lite0 (Tan and Le 2019; Lite: Google 2020), in the names of efficientnet_pytorch.

Its BatchNorms never see a batch here: their stored statistics are folded into the convolutions in
front of them. So a network without `init_from` has no norms at all.
"""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.networks.layers import Conv, spread
from stormpsr_jax.networks.stored import stored
from stormpsr_jax.networks.vit import REMAT

EXPANSION = 6
# Of each stage: channels in quarters of the stem's, kernel, stride.
STAGES = ((2, 3, 1), (3, 3, 2), (5, 5, 2), (10, 3, 2), (14, 5, 1), (24, 5, 2), (40, 3, 1))
FEATURES = 40  # channels of the head over those of the stem
SIDE = 32  # pixels of a feature of the last stage


def _conv(
    channels: int, kernel: int, dtype: Any, name: str, stride: int = 1, groups: int = 1
) -> Conv:
    """A convolution padded as TensorFlow does: of an odd number, more at the end."""
    how: dict[str, Any] = {"conv_general_dilated": _depthwise} if groups > 1 else {}
    return Conv(
        channels, (kernel, kernel), stride, feature_group_count=groups, dtype=dtype,
        kernel_init=nn.initializers.he_normal(), name=name, **how,
    )  # fmt: skip


def _depthwise(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], *_: Any, **__: Any
) -> Any:
    """A sum of shifted pictures: of a grouped convolution XLA for CPU makes 45 times the work."""
    size, stride, (H, W) = kernel.shape[0], strides[0], x.shape[1:3]
    h, w = -(-H // stride), -(-W // stride)
    sides = [max((n - 1) * stride + size - of, 0) for n, of in ((h, H), (w, W))]
    x = jnp.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in sides), (0, 0)])
    y: Any = 0
    for i in range(size):
        for j in range(size):
            part = x[:, i : i + (h - 1) * stride + 1 : stride]
            part = part[:, :, j : j + (w - 1) * stride + 1 : stride]
            y = y + part * spread(kernel[i, j, 0], part)
    return y


class Block(nn.Module):
    """Wider, a depthwise convolution, narrower: (B, h, w, C) → (B, h / stride, …, channels)."""

    channels: int
    kernel: int
    stride: int
    expands: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        y, C = x, x.shape[-1]
        if self.expands:
            C *= EXPANSION
            y = nn.relu6(_conv(C, 1, self.dtype, "expand")(y))
        y = nn.relu6(_conv(C, self.kernel, self.dtype, "depthwise", self.stride, C)(y))
        y = _conv(self.channels, 1, self.dtype, "project")(y)
        return x + y if y.shape == x.shape else y


class EfficientNet(nn.Module):
    """EfficientNet-Lite whose feature is the mean over the picture after the last convolution.

    The defaults are Lite0. The first block does not expand.

    Attributes:
        width: C of the stem; that of all stages goes with it.
        depths: blocks of each of the 7 stages.
        dtype: of the activations; parameters are float32.
        remat: what of each block's activations is recomputed in the backward pass, as in vit.ViT.
    """

    width: int = stored(4, 16_384, default=32)
    depths: tuple[int, ...] = stored(1, 64, default=(1, 2, 2, 3, 3, 4, 1))
    dtype: Any = jnp.float32
    remat: str = "none"

    @property
    def layers(self) -> list[str]:
        """Names of the parameters of each block, and of the head."""
        return [*(f"block_{i}" for i in range(sum(self.depths))), "conv_head"]

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """(B, H, W, 3), normalised, H and W multiples of SIDE → (B, 40 · width) in `dtype`.

        ValueError of a size that does not fit, or of another number of stages.
        """
        H, W = images.shape[1:3]
        if H % SIDE or W % SIDE:
            raise ValueError(f"image size {H}x{W} is not a multiple of {SIDE}")
        if len(self.depths) != len(STAGES):
            raise ValueError(f"depths {self.depths} are not of {len(STAGES)} stages")
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, policy=REMAT[self.remat])
        x = nn.relu6(_conv(self.width, 3, self.dtype, "stem", 2)(images.astype(self.dtype)))
        number = itertools.count()
        for (quarters, kernel, stride), depth in zip(STAGES, self.depths, strict=True):
            for i in range(depth):
                x = block(
                    quarters * self.width // 4,
                    kernel,
                    1 if i else stride,
                    (n := next(number)) > 0,
                    dtype=self.dtype,
                    name=f"block_{n}",
                )(x)
        x = nn.relu6(_conv(FEATURES * self.width, 1, self.dtype, "conv_head")(x))
        return x.mean(axis=(1, 2))
