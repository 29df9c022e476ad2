"""Published ViTs: their names and sizes, and their state dicts brought to one layout.

A new one is a row in `vits.json`, under the name that its library has for it: a model of timm
(without the tag of its weights), or a repository of transformers. Its weights are no part of this
package; docs/research.md says where they come from. The feature is always the class token after the
last norm, so models of timm without a class token are left out.

The layout is of timm's `vit_*` models:

| | timm `vit_*` | timm's DINOv3 (eva.py) | transformers |
|---|---|---|---|
| queries, keys, values | fused | fused | apart |
| SwiGLU's two halves | fused, the gate first | apart | DINOv2 fused, DINOv3 apart |
| LayerScale | `ls1.gamma` | `gamma_1` | layer_scale1.lambda1 |
| position of [CLS] with registers | none, or a row | – | a row |

A file's library also says what its arrays do not: how the library fits positions to pictures of
another size, and the epsilon of its norms (see `fields_of`).
"""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.networks import stored
from stormpsr_jax.networks.stored import Layer

_PUBLISHED = json.loads(Path(__file__).with_name("vits.json").read_text("utf-8"))
NAMED: dict[str, dict[str, Any]] = _PUBLISHED["models"]  # fields of the ViT, by name
# By library, (pattern, replacement) on its names: of transformers those of ViT, DINOv2 with and
# without registers, and DINOv3.
_KEYS: dict[str, list[tuple[str, str]]] = _PUBLISHED["keys"]
LIBRARIES = TIMM, TRANSFORMERS = "timm", "transformers"
# What stands in no way of the class token: masks of pre-training, poolers, classifiers.
_IGNORED = re.compile(r"(embeddings\.)?mask_token|(pooler|classifier|head)\..*")


def to_timm(
    state: Mapping[str, np.ndarray], path: str | Path = "state dict"
) -> tuple[dict[str, np.ndarray], str]:
    """(state dict in the names of timm's `vit_*`, library) of a ViT of either library.

    Of positions, the first row is always [CLS]'s. Names that no rule knows are kept, for
    `weights.torch_layout` to list. `path` is for messages. ValueError: two names mean the same, or
    shapes of parts do not fit each other.
    """
    library = TIMM
    if any(name.endswith("embeddings.cls_token") for name in state):
        library = TRANSFORMERS
    arrays: dict[str, np.ndarray] = {}
    for name, value in state.items():
        new = name
        for pattern, replacement in _KEYS[library]:
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
    ("norm1", "norm1", stored.NORM),
    ("attn.proj", "attn/proj", stored.DENSE),
    ("norm2", "norm2", stored.NORM),
    ("mlp.fc1", "fc1", stored.DENSE),
    ("mlp.fc2", "fc2", stored.DENSE),
)
# What only some ViTs have: a model has all of a row's arrays if any name ends like one.
_BLOCK_OPTIONS = (
    (("ls1.gamma", "gamma1"), ("ls2.gamma", "gamma2")),
    (("attn.q_bias", "attn/q_bias"), ("attn.v_bias", "attn/v_bias")),
)


def rows(names: Collection[str]) -> Iterator[Layer]:
    """The layers of a ViT with these names of arrays, in the layout of `to_timm` or in ours."""
    endings = {re.sub(r"^(?:blocks\.\d{1,9}\.|block_\d{1,9}/)", "", name) for name in names}

    def has(*ends: str) -> bool:
        return not endings.isdisjoint(ends)

    yield Layer("cls_token", "cls_token", stored.TOKENS)
    bias = has("attn.qkv.bias", "attn/qkv/bias")
    bias |= not has("attn.qkv.weight", "attn/qkv/kernel")  # a file cut off
    # Models with rotary positions have no bias of keys.
    if bias or has("pos_embed"):
        yield Layer("pos_embed", "pos_embed", stored.TOKENS)
    if has("reg_token", "registers"):
        yield Layer("reg_token", "registers", stored.TOKENS)
    qkv = stored.DENSE if bias else stored.DENSE_WITHOUT_BIAS
    block = [*_BLOCK, ("attn.qkv", "attn/qkv", qkv)]
    for pairs in _BLOCK_OPTIONS:
        if has(*pairs[0], *pairs[1]):
            block += [(*pair, stored.VECTOR) for pair in pairs]
    # At least one block, so that a file without any fails by the names that it lacks.
    for i in range(max(1, stored.count(r"^(?:blocks\.|block_)(\d{1,9})[./]", names))):
        for torch, ours, layer in block:
            yield Layer(f"blocks.{i}.{torch}", f"block_{i}/{ours}", layer)
    yield Layer("patch_embed.proj", "patch_embed", stored.PATCHES)
    yield Layer("norm", "norm", stored.NORM)
    if has("norm_pre.weight", "norm_pre.bias", "norm_pre/scale", "norm_pre/bias"):
        yield Layer("norm_pre", "norm_pre", stored.NORM)
    for i in range(stored.count(r"^stem_(?:norm_)?(\d{1,9})/", names)):  # ours alone
        yield Layer(None, f"stem_{i}", stored.CONV)
        yield Layer(None, f"stem_norm_{i}", stored.NORM)


def fields_of(
    params: Mapping, num_heads: int | None = None, library: str | None = None
) -> dict[str, Any]:
    """Fields of the ViT that `params` belong to, which a library (or None) published.

    `num_heads` None is that of the published model of this size, or else width / 64. ValueError if
    they do not divide the width, or the patch is no square.
    """
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
        for model in NAMED.values()
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
