"""State dicts of published backbones, brought to one layout and to ours.

The layout of ViTs is that of timm's `vit_*` models:

| | timm `vit_*` | timm's DINOv3 (eva.py) | transformers |
|---|---|---|---|
| queries, keys, values | fused | fused | apart |
| SwiGLU's two halves | fused, the gate first | apart | DINOv2 fused, DINOv3 apart |
| LayerScale | `ls1.gamma` | `gamma_1` | layer_scale1.lambda1 |
| position of [CLS] with registers | none, or a row | – | a row |

A file's library also says what its arrays do not: how the library fits positions to pictures of
another size, and the epsilon of its norms (see `fields_of`). An EfficientNet has the names of
efficientnet_pytorch.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.networks import efficientnet
from stormpsr_jax.networks.backbones import KEYS, LABELS, VITS
from stormpsr_jax.networks.efficientnet import EfficientNet
from stormpsr_jax.networks.vit import ViT

LIBRARIES = TIMM, TRANSFORMERS = "timm", "transformers"
MODULES: dict[str, type[nn.Module]] = {"vit": ViT, "efficientnet": EfficientNet}  # by kind
# By kind, a name at the top of the parameters that no other kind has there.
LANDMARKS = {"vit": "patch_embed", "efficientnet": "conv_head"}
# And a pattern that a name in each published state dict has.
_MARKS = {"vit": r"^cls_token$|(^|\.)embeddings\.cls_token$", "efficientnet": r"^_conv_stem\."}
# What stands in no way of the class token: masks of pre-training, poolers, classifiers.
_IGNORED = re.compile(r"(embeddings\.)?mask_token|(pooler|classifier|head)\..*")
EPS = 1e-3  # of an EfficientNet's folded norms


# Layers of a network as state dicts of PyTorch and flax have them, for `Layer.layer`;
# `torch_layout` has their arrays.
DENSE, DENSE_WITHOUT_BIAS, CONV, NORM, BATCH_NORM = "dense", "bare dense", "conv", "norm", "batch"
PATCHES = "patches"  # a convolution whose stride is its kernel, ours as a matrix product
VECTOR, TOKENS = "vector", "tokens"  # one array of one axis, and of three


class Layer(NamedTuple):
    """A layer of a network in both layouts.

    Attributes:
        torch: its name in the state dict; None: state dicts have no such layer.
        ours: the path of its module, or of its array.
        layer: one of the layers above.
    """

    torch: str | None
    ours: str
    layer: str


def count(pattern: str, names: Collection[str]) -> int:
    """One more than the largest number that the pattern finds in the names, 0 if there is none."""
    last = max((int(m[1]) for n in names if (m := re.search(pattern, n))), default=-1)
    # Never more than there are names: a made-up number is not to ask for billions of them.
    return min(len(names), last + 1)


def kind_of(params: Collection[str]) -> str:
    """The kind of parameters with these names at their top; "vit" if they are of none."""
    return "efficientnet" if LANDMARKS["efficientnet"] in params else "vit"


def kind_published(names: Collection[str]) -> str | None:
    """The kind of a published state dict with these names; None if it is of none."""
    return next((k for k, mark in _MARKS.items() if any(re.search(mark, n) for n in names)), None)


def build(params: Mapping, num_heads: int | None = None, library: str | None = None) -> nn.Module:
    """The backbone that `params` belong to."""
    return MODULES[kind_of(params)](**fields_of(params, num_heads, library))


def fields_of(
    params: Mapping, num_heads: int | None = None, library: str | None = None
) -> dict[str, Any]:
    """Fields of the backbone that `params` belong to, which a library (or None) published.

    `num_heads` None is that of the published model of this size, or else width / 64. ValueError if
    they do not divide the width, the patch is no square, or there is no such EfficientNet.
    """
    if kind_of(params) == "vit":
        return _vit_fields(params, num_heads, library)
    return _efficientnet_fields(params)


def differences(given: Mapping, wanted: Mapping) -> str:
    """Says in what the backbone of parameters given differs from one wanted; "" if in nothing.

    The parameters may be no whole backbone; other messages name what they lack.
    """
    label, other = (LABELS[MODULES[kind_of(params)]] for params in (given, wanted))
    if label != other:
        return f" (it is a {label}, not a {other}: see encoder.backbone)"
    try:
        have, need = fields_of(given, 1), fields_of(wanted, 1)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return ""
    other_fields = [f"{n} {have[n]}, not {need[n]}" for n in have if have[n] != need[n]]
    if not other_fields:
        return ""
    return f" (its {label} has {'; '.join(other_fields)}: see encoder.backbone)"


def published(
    kind: str, state: Mapping[str, np.ndarray], path: str | Path
) -> tuple[dict[str, np.ndarray], str | None]:
    """(state dict in the names of `rows`, its library if that is known) of a published one.

    Names that no rule knows are kept, for `torch_layout` to list. `path` is for messages.
    ValueError: two names mean the same, or shapes of parts do not fit each other.
    """
    return to_timm(state, path) if kind == "vit" else (_with_folded_norms(state, path), None)


def rows(kind: str, names: Collection[str]) -> Iterator[Layer]:
    """The layers of a backbone with these names of arrays, in the layout of `published` or ours."""
    yield from _vit_rows(names) if kind == "vit" else _efficientnet_rows(names)


# --- ViT ------------------------------------------------------------------------------------------


def to_timm(state: Mapping[str, np.ndarray], path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    """(state dict in the names of timm's `vit_*`, library) of a ViT of either library.

    Of positions, the first row is always [CLS]'s. The rest is of `published`.
    """
    library = TIMM
    if any(name.endswith("embeddings.cls_token") for name in state):
        library = TRANSFORMERS
    arrays: dict[str, np.ndarray] = {}
    for name, value in state.items():
        new = name
        for pattern, replacement in KEYS[library]:
            new = re.sub(pattern, replacement, new)
        if _IGNORED.fullmatch(new):
            continue
        if new in arrays:
            raise ValueError(f"{path}: {name!r} and another name both mean {new}")
        arrays[new] = np.asarray(value)
    for name in [name for name in arrays if re.fullmatch(r"blocks\.\d+\.norm1\.weight", name)]:
        _fuse(arrays, name.removesuffix("norm1.weight"), path)
    if (
        "norm_pre.weight" in arrays
        and (weight := arrays.get("patch_embed.proj.weight")) is not None
    ):
        arrays.setdefault("patch_embed.proj.bias", np.zeros(weight.shape[:1], np.float32))
    _place_class(arrays)
    return arrays, library


def _fuse(state: dict[str, np.ndarray], block: str, path: str | Path) -> None:
    """Joins queries, keys and values, and the halves of SwiGLU, of one block, in place."""
    attention = f"{block}attn."
    try:
        names = [f"{attention}{part}.weight" for part in "qkv"]
        if all(name in state for name in names):
            weights = [state.pop(name) for name in names]
            state[f"{attention}qkv.weight"] = np.concatenate(weights)
            given = {part for part in "qkv" if f"{attention}{part}.bias" in state}
            biases = [
                state.pop(f"{attention}{part}.bias", np.zeros(len(weight), np.float32))
                for part, weight in zip("qkv", weights, strict=True)
            ]
            if "k" in given:
                state[f"{attention}qkv.bias"] = np.concatenate(biases)
            elif given:
                state[f"{attention}q_bias"], _, state[f"{attention}v_bias"] = biases
        for leaf in ("weight", "bias"):
            gate, up = f"{block}mlp.gate.{leaf}", f"{block}mlp.fc1.{leaf}"
            if gate in state and up in state:
                state[up] = np.concatenate([state.pop(gate), state[up]])
    except ValueError as error:
        raise ValueError(f"{path}: parts of {block.rstrip('.')} do not fit: {error}") from error


def _place_class(state: dict[str, np.ndarray]) -> None:
    """Gives [CLS] the first row of positions, and registers none, in place.

    timm's models with registers mostly have positions of patches alone, and else rows for all
    tokens. Patches of published models make a square, which tells.
    """
    positions, registers = state.get("pos_embed"), state.get("reg_token")
    if positions is None or registers is None or positions.ndim != 3 or registers.ndim != 3:
        return
    rows, R = positions.shape[1], registers.shape[1]

    def are_patches(n: int) -> bool:
        return n > 0 and math.isqrt(n) ** 2 == n

    if are_patches(rows - 1):
        return
    if are_patches(rows):
        zero = np.zeros_like(positions[:, :1])
        state["pos_embed"] = np.concatenate([zero, positions], axis=1)
    elif are_patches(rows - 1 - R) and positions.shape[2] == registers.shape[2]:
        state["reg_token"] = registers + positions[:, 1 : 1 + R]
        state["pos_embed"] = np.concatenate([positions[:, :1], positions[:, 1 + R :]], axis=1)


def from_timm(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A ViT's state dict as timm's model of its family has it, of one that `to_timm` gave.

    With registers, the position of [CLS] is added to its token: such models have none. Without
    learned positions it is a DINOv3, with names of its own.
    """
    state = dict(state)
    if "reg_token" in state and "pos_embed" in state:
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    if "pos_embed" in state:
        return state
    arrays = {}
    for name, value in state.items():
        name = re.sub(r"\.ls(\d)\.gamma$", r".gamma_\1", name)
        down = re.sub(r"fc1\.\w+$", "fc2.weight", name)
        if ".mlp.fc1." in name and len(value) == 2 * state[down].shape[1]:
            for letter, half in zip("gx", np.split(value, 2), strict=True):
                arrays[name.replace("fc1.", f"fc1_{letter}.")] = half
        else:
            arrays[name] = value
    return arrays


def resize_position_embedding(
    pos_embed: np.ndarray, grid: tuple[int, int], antialias: bool = True, name: str = "pos_embed"
) -> np.ndarray:
    """Resizes a ViT's position embedding (1, 1 + n², D) to another patch grid (h, w), bicubically.

    The kernel is Keys's with a = -0.5, widened where the grid shrinks (`antialias`), as in Pillow
    and in PyTorch with antialias=True, which timm uses. PyTorch without it, which transformers uses
    for most models, has a = -0.75 and repeats the border. The row of [CLS] is kept. ValueError of
    patches that make no square, with the `name` of what has them.
    """
    side, _ = square(pos_embed.shape[1] - 1, name)
    D = pos_embed.shape[-1]
    patches = np.asarray(pos_embed[0, 1:], np.float32).reshape(side, side, D)
    if antialias:
        resized = jax.image.resize(jnp.asarray(patches), (*grid, D), "bicubic", antialias=True)
    else:
        rows, columns = _cubic(side, grid[0]), _cubic(side, grid[1])
        resized = np.einsum("ih,jw,hwd->ijd", rows, columns, patches, optimize=True)
    resized = np.asarray(resized, np.float32).reshape(1, -1, D)
    return np.concatenate([pos_embed[:, :1], resized], axis=1)


def _cubic(old: int, new: int) -> np.ndarray:
    """Weights (new, old) of cubic convolution with a = -0.75 between the centres of pixels."""
    a = -0.75
    at = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        pixel = np.floor(at).astype(int) + tap
        x = np.abs(at - pixel)
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        pixel = pixel.clip(0, old - 1)
        np.add.at(weights, (np.arange(new), pixel), np.where(x <= 1, near, far))
    return weights


def square(n: int, name: str) -> tuple[int, int]:
    """(side, side) of n patches; ValueError, with the name of what has them, if they make none."""
    side = round(n**0.5)
    if side * side != n:
        raise ValueError(
            f"{name}: {n} patches make no square grid; only that of square pictures can be resized"
        )
    return side, side


_BLOCK = (
    ("norm1", "norm1", NORM),
    ("attn.proj", "attn/proj", DENSE),
    ("norm2", "norm2", NORM),
    ("mlp.fc1", "fc1", DENSE),
    ("mlp.fc2", "fc2", DENSE),
)
# What only some ViTs have: a model has all of a row's arrays if any name ends like one.
_BLOCK_OPTIONS = (
    (("ls1.gamma", "gamma1"), ("ls2.gamma", "gamma2")),
    (("attn.q_bias", "attn/q_bias"), ("attn.v_bias", "attn/v_bias")),
)


def _vit_rows(names: Collection[str]) -> Iterator[Layer]:
    endings = {re.sub(r"^(?:blocks\.\d{1,9}\.|block_\d{1,9}/)", "", name) for name in names}

    def has(*ends: str) -> bool:
        return not endings.isdisjoint(ends)

    yield Layer("cls_token", "cls_token", TOKENS)
    bias = has("attn.qkv.bias", "attn/qkv/bias")
    bias |= not has("attn.qkv.weight", "attn/qkv/kernel")  # a file cut off
    # Models with rotary positions have no bias of keys.
    if bias or has("pos_embed"):
        yield Layer("pos_embed", "pos_embed", TOKENS)
    if has("reg_token", "registers"):
        yield Layer("reg_token", "registers", TOKENS)
    qkv = DENSE if bias else DENSE_WITHOUT_BIAS
    block = [*_BLOCK, ("attn.qkv", "attn/qkv", qkv)]
    for pairs in _BLOCK_OPTIONS:
        if has(*pairs[0], *pairs[1]):
            block += [(*pair, VECTOR) for pair in pairs]
    # At least one block, so that a file without any fails by the names that it lacks.
    for i in range(max(1, count(r"^(?:blocks\.|block_)(\d{1,9})[./]", names))):
        for torch, ours, layer in block:
            yield Layer(f"blocks.{i}.{torch}", f"block_{i}/{ours}", layer)
    yield Layer("patch_embed.proj", "patch_embed", PATCHES)
    yield Layer("norm", "norm", NORM)
    if has("norm_pre.weight", "norm_pre.bias", "norm_pre/scale", "norm_pre/bias"):
        yield Layer("norm_pre", "norm_pre", NORM)
    for i in range(count(r"^stem_(?:norm_)?(\d{1,9})/", names)):  # ours alone
        yield Layer(None, f"stem_{i}", CONV)
        yield Layer(None, f"stem_norm_{i}", NORM)


def _vit_fields(params: Mapping, num_heads: int | None, library: str | None) -> dict[str, Any]:
    block = params["block_0"]
    width = params["cls_token"].shape[-1]
    stems = sum(re.fullmatch(r"stem_\d+", name) is not None for name in params)
    stem = tuple(params[f"stem_{i}"]["kernel"].shape[-1] for i in range(stems))
    rows = params["patch_embed"]["kernel"].shape[0]
    channels = stem[-1] if stem else 3
    side = math.isqrt(rows // channels)
    if not side or rows != side * side * channels:
        raise ValueError(f"patch_embed has {rows} rows, which make no square patch")
    hidden = block["fc2"]["kernel"].shape[0]
    attention = block["attn"]
    fields = {
        "patch_size": side * 2 ** len(stem),
        "width": width,
        "depth": sum(name.startswith("block_") for name in params),
        "mlp_dim": hidden,
        "stem": stem,
        "mlp": "swiglu" if block["fc1"]["kernel"].shape[1] == 2 * hidden else "gelu",
        "positions": "learned" if "pos_embed" in params else "rotary",
        "bias": "qkv" if "bias" in attention["qkv"] else "qv" if "q_bias" in attention else "none",
        "layer_scale": "gamma1" in block,
        "registers": params["registers"].shape[1] if "registers" in params else 0,
        "pre_norm": "norm_pre" in params,
    }
    alike = (
        model["num_heads"]
        for model in VITS.values()
        if (model["width"], model["depth"]) == (fields["width"], fields["depth"])
        and model.get("positions", "learned") == fields["positions"]
    )
    heads = fields["num_heads"] = num_heads or next(alike, width // 64)
    if not heads or width % heads:
        raise ValueError(f"--heads={heads} does not divide the width {width}; give --heads")
    # No array tells the epsilon of the norms.
    if fields["positions"] == "rotary" or fields["pre_norm"]:
        return fields | {"norm_eps": 1e-5}
    plain = library == "transformers" and not fields["layer_scale"]
    return fields | {"norm_eps": 1e-12 if plain else 1e-6}


def fitted(
    params: Mapping, wanted: Mapping, size: tuple[int, int] | None, library: str | None, name: str
) -> Mapping:
    """The parameters of a backbone with learned positions for pictures of another size.

    Args:
        params: of any backbone; those without learned positions stay as they are.
        wanted: parameters of a backbone for that size.
        size: (H, W) of the pictures in pixels; None is a square of the patches of `wanted`.
        library: what published the parameters, or None.
        name: where they are, for messages.
    """
    if "pos_embed" not in params:
        return params
    if size is None:
        grid = square(wanted["pos_embed"].shape[1] - 1, f"{name}pos_embed")
    else:
        patch = fields_of(wanted, 1)["patch_size"]
        grid = (size[0] // patch, size[1] // patch)
    positions = params["pos_embed"]
    patches = positions.shape[1] - 1
    # The grid of a run is right if it has as many patches; published ones are of squares.
    of_a_run = library is None or grid[0] == grid[1] or math.isqrt(patches) ** 2 != patches
    if of_a_run and patches == grid[0] * grid[1]:
        return params
    antialias = library != "transformers" or "registers" in params
    resized = resize_position_embedding(positions, grid, antialias, f"{name}pos_embed")
    return {**params, "pos_embed": resized}


# --- EfficientNet ---------------------------------------------------------------------------------


def _efficientnet_rows(names: Collection[str]) -> Iterator[Layer]:
    yield Layer("_conv_stem", "stem", CONV)
    # At least one block, so that a file without any fails by the names that it lacks.
    for i in range(max(1, count(r"^(?:_blocks\.|block_)(\d{1,4})[./]", names))):
        for part in ("expand", "depthwise", "project")[i == 0 :]:
            yield Layer(f"_blocks.{i}._{part}_conv", f"block_{i}/{part}", CONV)
    yield Layer("_conv_head", "conv_head", CONV)


def _efficientnet_fields(params: Mapping) -> dict[str, Any]:
    width = params["stem"]["bias"].shape[0]
    blocks = sum(name.startswith("block_") for name in params)
    fields = [params[f"block_{i}"]["project"]["bias"].shape[0] for i in range(blocks)]
    wanted = [quarters * width // 4 for quarters, *_ in efficientnet.STAGES]
    depths = tuple(fields.count(channels) for channels in wanted)
    if [c for c, depth in zip(wanted, depths, strict=True) for _ in range(depth)] != fields:
        raise ValueError(f"blocks of {fields} channels are of no EfficientNet-Lite")
    return {"width": width, "depths": depths}


def _with_folded_norms(state: Mapping[str, np.ndarray], path: str | Path) -> dict[str, np.ndarray]:
    arrays = {name: value for name, value in state.items() if not name.startswith("_fc.")}
    for row in _efficientnet_rows(state):
        conv = str(row.torch)
        block, _, part = conv.rpartition(".")
        # A block counts its norms, and the first one has one less.
        at = {"_conv_stem": 0, "_conv_head": 1, "_expand_conv": 0, "_depthwise_conv": 1}.get(
            part, 2
        )
        norm = f"{block}{'.' * bool(block)}_bn{at}."
        names = [f"{norm}{end}" for end in ("weight", "bias", "running_mean", "running_var")]
        kernel = arrays.get(f"{conv}.weight")
        if kernel is None or not all(name in arrays for name in names):
            continue  # the list of names that do not fit says so
        gain, bias, mean, var = (np.asarray(arrays.pop(name), np.float64) for name in names)
        shapes = {array.shape for array in (gain, bias, mean, var)}
        if kernel.ndim != 4 or shapes != {kernel.shape[:1]} or not (var >= 0).all():
            raise ValueError(f"{path}: {norm}* does not fit {conv}.weight {kernel.shape}")
        gain = gain / np.sqrt(var + EPS)
        arrays[f"{conv}.weight"] = kernel * gain[:, None, None, None]
        arrays[f"{conv}.bias"] = bias - mean * gain
    return arrays
