"""ConvNeXt (Liu et al. 2022) and ConvNeXt V2 (Woo et al. 2023), as timm has them.

Dimension letters: B batch, H W image, h w its features, C channels, D features of the last stage.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.networks import family
from stormpsr_jax.networks.dense import Conv, Dense, spread
from stormpsr_jax.networks.family import Family, Layer
from stormpsr_jax.networks.stored import stored
from stormpsr_jax.networks.vit import REMAT, gelu

LAYER_SCALE = 1e-6  # gamma at initialisation
KERNEL = 7
STEM = 4  # pixels of a feature of the first stage; each further stage halves the resolution
_INIT = nn.initializers.truncated_normal(0.02)


class Block(nn.Module):
    """x + gamma · MLP(norm(depthwise convolution(x))), (B, h, w, C) → the same.

    The MLP is Dense of 4 C, exact GELU, with `response_norm` V2's normalisation of responses, and
    Dense; with `layer_scale` its output is multiplied by a gain for each of the C channels.
    """

    layer_scale: bool
    response_norm: bool
    norm_eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        C = x.shape[-1]
        y = Conv(
            C, (KERNEL, KERNEL), feature_group_count=C, dtype=self.dtype, kernel_init=_INIT,
            name="conv_dw",
        )(x)  # fmt: skip
        y = nn.LayerNorm(epsilon=self.norm_eps, dtype=self.dtype, name="norm")(y)
        y = gelu(Dense(4 * C, dtype=self.dtype, kernel_init=_INIT, name="fc1")(y))
        if self.response_norm:
            y = ResponseNorm(name="grn")(y)
        y = Dense(C, dtype=self.dtype, kernel_init=_INIT, name="fc2")(y)
        if self.layer_scale:
            gamma = self.param("gamma", nn.initializers.constant(LAYER_SCALE), (C,))
            y = y * spread(gamma, y)
        return x + y


class ResponseNorm(nn.Module):
    """V2's global response normalisation, (B, h, w, C) → the same, in float32 inside.

    Each channel's length over the picture, divided by the mean of these lengths over channels, is
    its gain: x + scale · gain · x + bias.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises."""
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        wide = x.astype(jnp.float32)
        # Kept away from 0, where a square root has no gradient.
        squares = jnp.sum(wide * wide, axis=(1, 2), keepdims=True)
        length = jnp.sqrt(jnp.maximum(squares, 1e-24))
        gain = length / (length.mean(axis=-1, keepdims=True) + 1e-6)
        return (wide + scale * gain * wide + bias).astype(x.dtype)


class ConvNeXt(nn.Module):
    """ConvNeXt whose feature is the mean over the picture after the last stage, normalised.

    The defaults are ConvNeXt-T (convnext_tiny of timm).

    Attributes:
        width: C of the first stage; each further stage has twice as many channels.
        depths: blocks of each stage.
        layer_scale, response_norm: of the blocks; V1 has the one, V2 the other.
        dtype: of the activations; parameters are float32.
        remat: what of each block's activations is recomputed in the backward pass, as in vit.ViT.
    """

    width: int = stored(1, 16_384, default=96)
    depths: tuple[int, ...] = stored(1, 64, default=(3, 3, 9, 3))
    layer_scale: bool = stored(False, True, default=True)
    response_norm: bool = stored(False, True, default=False)
    norm_eps: float = stored(0.0, 1e-2, default=1e-6)
    dtype: Any = jnp.float32
    remat: str = "none"

    @property
    def divisor(self) -> int:
        """Pixels that both sides of a picture have to be a multiple of."""
        return STEM * 2 ** (len(self.depths) - 1)

    @property
    def layers(self) -> list[str]:
        """Names of the parameters of each block, with what halves the resolution in front of it."""
        found = []
        for stage, depth in enumerate(self.depths):
            found += [f"block_{stage}_{i}" for i in range(depth)]
            if stage:
                found[-depth] += f" downsample_norm_{stage} downsample_{stage}"
        return [*found, "norm"]

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Encodes images.

        Args:
            images: (B, H, W, 3), normalised; H and W multiples of `divisor`.

        Returns:
            (B, D) features in `dtype`.

        Raises:
            ValueError: a size that does not fit.
        """
        H, W = images.shape[1:3]
        if H % self.divisor or W % self.divisor:
            raise ValueError(f"image size {H}x{W} is not a multiple of {self.divisor}")
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, policy=REMAT[self.remat])

        def conv(width: int, size: int, name: str) -> Conv:
            return Conv(width, (size, size), size, dtype=self.dtype, kernel_init=_INIT, name=name)

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=self.norm_eps, dtype=self.dtype, name=name)

        x = norm("stem_norm")(conv(self.width, STEM, "stem")(images.astype(self.dtype)))
        for stage, depth in enumerate(self.depths):
            if stage:
                x = norm(f"downsample_norm_{stage}")(x)
                x = conv(self.width * 2**stage, 2, f"downsample_{stage}")(x)
            for i in range(depth):
                x = block(
                    self.layer_scale,
                    self.response_norm,
                    self.norm_eps,
                    dtype=self.dtype,
                    name=f"block_{stage}_{i}",
                )(x)
        return norm("norm")(x.mean(axis=(1, 2)))


def _named() -> dict[str, dict[str, Any]]:
    """timm's models, without the tag of their weights."""
    sizes = {  # of V1 and of V2
        "atto": (40, (2, 2, 6, 2)),
        "femto": (48, (2, 2, 6, 2)),
        "pico": (64, (2, 2, 6, 2)),
        "nano": (80, (2, 2, 8, 2)),
        "tiny": (96, (3, 3, 9, 3)),
        "small": (96, (3, 3, 27, 3)),
        "base": (128, (3, 3, 27, 3)),
        "large": (192, (3, 3, 27, 3)),
        "xlarge": (256, (3, 3, 27, 3)),
        "xxlarge": (384, (3, 4, 30, 3)),
        "huge": (352, (3, 3, 27, 3)),
    }
    found = {}
    for size, (width, depths) in sizes.items():
        fields = {"width": width, "depths": depths}
        if size != "huge":
            eps = {"norm_eps": 1e-5} if size == "xxlarge" else {}
            found[f"convnext_{size}"] = fields | eps
        if size not in ("small", "xlarge", "xxlarge"):
            second = {"layer_scale": False, "response_norm": True}
            found[f"convnextv2_{size}"] = fields | second
    return found


NAMED = _named()


def rows(names: Collection[str]) -> Iterator[Layer]:
    """The layers of a ConvNeXt with these names of arrays, of either layout."""
    depths: dict[int, int] = {}
    for name in names:
        if found := re.match(r"(?:stages\.(\d)\.blocks\.|block_(\d)_)(\d{1,3})[./]", name):
            stage = int(found[1] or found[2])
            depths[stage] = max(depths.get(stage, 0), int(found[3]) + 1)
    gains = any(name.endswith("gamma") for name in names) or not depths
    responses = any(re.search(r"grn[./]", name) for name in names)
    yield Layer("stem.0", "stem", family.CONV)
    yield Layer("stem.1", "stem_norm", family.NORM)
    # At least one block, so that a file without any fails by the names that it lacks.
    for stage in range(max(depths, default=0) + 1):
        torch = f"stages.{stage}."
        if stage:
            yield Layer(f"{torch}downsample.0", f"downsample_norm_{stage}", family.NORM)
            yield Layer(f"{torch}downsample.1", f"downsample_{stage}", family.CONV)
        for i in range(depths.get(stage, 1)):
            block, ours = f"{torch}blocks.{i}.", f"block_{stage}_{i}/"
            yield Layer(f"{block}conv_dw", f"{ours}conv_dw", family.CONV)
            yield Layer(f"{block}norm", f"{ours}norm", family.NORM)
            yield Layer(f"{block}mlp.fc1", f"{ours}fc1", family.DENSE)
            yield Layer(f"{block}mlp.fc2", f"{ours}fc2", family.DENSE)
            if gains:
                yield Layer(f"{block}gamma", f"{ours}gamma", family.VECTOR)
            if responses:
                yield Layer(f"{block}mlp.grn", f"{ours}grn", family.NORM)
    yield Layer("head.norm", "norm", family.NORM)


def fields_of(
    params: Mapping, num_heads: int | None = None, library: str | None = None
) -> dict[str, Any]:
    """Attributes of the ConvNeXt that `params` belong to; it has no heads."""
    blocks = [match for name in params if (match := re.fullmatch(r"block_(\d)_\d+", name))]
    stages = [int(match[1]) for match in blocks]
    found = {
        "width": params["stem"]["bias"].shape[0],
        "depths": tuple(stages.count(stage) for stage in range(max(stages) + 1)),
        "layer_scale": "gamma" in params["block_0_0"],
        "response_norm": "grn" in params["block_0_0"],
    }
    # No array tells the epsilon of the norms.
    plain = {"layer_scale": True, "response_norm": False, "norm_eps": 1e-6}
    models = [plain | fields for fields in NAMED.values()]
    same = [fields for fields in models if all(fields[name] == found[name] for name in found)]
    return found | {"norm_eps": same[0]["norm_eps"] if same else plain["norm_eps"]}


def published(
    state: Mapping[str, np.ndarray], path: str | Path = "state dict"
) -> tuple[dict[str, np.ndarray], str]:
    """(state dict in the names of `rows`, "timm") of a model of timm, without its classifier.

    Small models have the MLP as convolutions of one pixel. `path` is not needed.
    """
    found = {}
    for name, value in state.items():
        if name.startswith("head.fc."):
            continue
        if re.search(r"\.mlp\.fc\d\.weight$", name) and value.ndim == 4:
            value = value.reshape(value.shape[:2])
        found[name] = value
    return found, family.TIMM


FAMILY = Family(
    kind="convnext",
    label="ConvNeXt",
    architecture="ConvNeXtEncoder",
    module=ConvNeXt,
    named=NAMED,
    landmark="stem_norm",
    mark=r"^stem\.0\.",
    rows=rows,
    fields_of=fields_of,
    published=published,
)
