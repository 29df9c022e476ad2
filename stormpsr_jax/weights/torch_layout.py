"""Names and axes of PyTorch state dicts (timm's backbones, the released code) beside ours.

One table serves both directions; the rows of backbones are in `backbones`. Our flat names are those
of a file of `parameters.save_params`: collection, modules and leaf joined by "/".
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from stormpsr_jax.weights import backbones
from stormpsr_jax.weights.backbones import Layer

# Where the backbone of each kind is, in the state dict and in our flat names.
BACKBONE_AT = dict.fromkeys(backbones.MODULES, ("", "params/")) | {
    "spatial": ("encoder.", "params/encoder/"),
    "storm": ("spatial_enc.encoder.", "params/spatial/encoder/"),
}
_HEADS = (
    Layer("first_head.0", "first_head/dense", backbones.DENSE),
    Layer("first_head.1", "first_head/norm", backbones.BATCH_NORM),
    Layer("second_head.0", "second_head/dense", backbones.DENSE),
    Layer("second_head.1", "second_head/norm", backbones.BATCH_NORM),
    Layer("second_head.3", "projection_head", backbones.DENSE),
)
_TEMPORAL_BLOCK = (
    Layer("0.fn.norm", "norm1", backbones.NORM),
    Layer("0.fn.fn.to_qkv", "attn/qkv", backbones.DENSE_WITHOUT_BIAS),
    Layer("0.fn.fn.to_out.0", "attn/proj", backbones.DENSE),
    Layer("1.fn.norm", "norm2", backbones.NORM),
    Layer("1.fn.fn.net.0", "fc1", backbones.DENSE),
    Layer("1.fn.fn.net.3", "fc2", backbones.DENSE),
)


class Leaf(NamedTuple):
    """An array of a layer.

    Attributes:
        torch: ending of its name in the state dict.
        ours: ending of our name.
        axes: of ours.
        collection: of flax.
        torch_axes: of the state dict's.
        from_torch, to_torch: bring it from one layout to the other.
    """

    torch: str
    ours: str
    axes: int
    collection: str = "params"
    torch_axes: int = 1
    from_torch: Callable[[np.ndarray], np.ndarray] = np.asarray
    to_torch: Callable[[np.ndarray], np.ndarray] = np.asarray


def _patches_from_torch(value: np.ndarray) -> np.ndarray:
    """(D, 3, p, p) → (p p 3, D): our patch embedding multiplies rows of p * p * 3 values."""
    D, C, p, q = value.shape
    if C != 3 or p != q:
        raise ValueError(f"{value.shape} is not (width, 3, p, p)")
    return value.transpose(2, 3, 1, 0).reshape(-1, D)


def _patches_to_torch(value: np.ndarray) -> np.ndarray:
    p = math.isqrt(value.shape[0] // 3)
    return value.reshape(p, p, 3, -1).transpose(3, 2, 0, 1)


_BIAS = Leaf(".bias", "/bias", 1)
_KERNEL = Leaf(".weight", "/kernel", 2, "params", 2, np.transpose, np.transpose)
_NORM = (Leaf(".weight", "/scale", 1), _BIAS)
LEAVES: dict[str, tuple[Leaf, ...]] = {
    backbones.DENSE: (_KERNEL, _BIAS),
    backbones.DENSE_WITHOUT_BIAS: (_KERNEL,),
    backbones.CONV: (
        Leaf(
            *(".weight", "/kernel", 4, "params", 4),
            lambda value: value.transpose(2, 3, 1, 0),
            lambda value: value.transpose(3, 2, 0, 1),
        ),
        _BIAS,
    ),
    backbones.PATCHES: (
        Leaf(".weight", "/kernel", 2, "params", 4, _patches_from_torch, _patches_to_torch),
        _BIAS,
    ),
    backbones.NORM: _NORM,
    backbones.BATCH_NORM: (
        *_NORM,
        Leaf(".running_mean", "/mean", 1, "batch_stats"),
        Leaf(".running_var", "/var", 1, "batch_stats"),
    ),
    backbones.VECTOR: (Leaf("", "", 1),),
    backbones.TOKENS: (Leaf("", "", 3, "params", 3),),
}


def _arrays(kind: str, names: Collection[str]) -> Iterator[tuple[str | None, str, Leaf]]:
    """Of each array: (name in the state dict, None if it has none there; our flat name; leaf)."""
    for row in _rows(kind, names):
        for leaf in LEAVES[row.layer]:
            torch = None if row.torch is None else row.torch + leaf.torch
            yield torch, f"{leaf.collection}/{row.ours}{leaf.ours}", leaf


def _rows(kind: str, names: Collection[str]) -> Iterator[Layer]:
    if kind in BACKBONE_AT:
        torch, ours = BACKBONE_AT[kind]
        inner = {n.removeprefix(at) for at in (torch, ours) for n in names if n.startswith(at)}
        tops = {name.split("/")[0] for name in inner}
        held = backbones.kind_published(inner) or backbones.kind_of(tops)
        for row in backbones.rows(kind if kind in backbones.MODULES else held, inner):
            path = f"{ours.removeprefix('params/')}{row.ours}"
            yield Layer(None if row.torch is None else f"{torch}{row.torch}", path, row.layer)
    if kind in ("spatial", "storm"):
        torch, ours = ("spatial_enc.", "spatial/") if kind == "storm" else ("", "")
        for row in _HEADS:
            yield Layer(f"{torch}{row.torch}", f"{ours}{row.ours}", row.layer)
        yield from _ours_alone(f"{ours}state_head", names)
    if kind in ("temporal", "storm"):
        ours = "temporal/" if kind == "storm" else ""
        for name in ("cls_token", "pos_embedding"):
            yield Layer(f"temporal_enc.{name}", f"{ours}{name}", backbones.TOKENS)
        blocks = rf"^(?:temporal_enc\.layers\.|params/{ours}block_)(\d{{1,9}})[./]"
        # At least one block, so that a file without any fails by the names that it lacks.
        for i in range(max(1, backbones.count(blocks, names))):
            for row in _TEMPORAL_BLOCK:
                torch, path = f"temporal_enc.layers.{i}.{row.torch}", f"{ours}block_{i}/{row.ours}"
                yield Layer(torch, path, row.layer)
        yield Layer("mlp_head.0", f"{ours}head_norm", backbones.NORM)
        yield Layer("mlp_head.1", f"{ours}head", backbones.DENSE)
        yield from _ours_alone(f"{ours}head_hidden", names)


def _ours_alone(path: str, names: Collection[str]) -> Iterator[Layer]:
    """A Dense layer that no state dict has, if the names have any part of it."""
    if any(name.startswith(f"params/{path}/") for name in names):
        yield Layer(None, path, backbones.DENSE)


def check_names(path: str | Path, wanted: Collection[str], given: Collection[str]) -> None:
    """Raises ValueError that lists what is missing of the wanted names, and what is given beside.

    `path` is for messages.
    """
    missing, unexpected = set(wanted) - set(given), set(given) - set(wanted)
    if missing or unexpected:
        lists = (
            ", ".join(n if n.isprintable() else ascii(n) for n in sorted(names)) or "none"
            for names in (missing, unexpected)
        )
        raise ValueError(
            "{}: the names do not fit the model; missing: {}; unexpected: {}".format(path, *lists)
        )


def check_ours(arrays: Mapping[str, np.ndarray], kind: str, path: str | Path) -> None:
    """Checks that {flat name: array} of a file of ours is a whole model of its kind.

    It may have what no state dict has: a stem, a state head, an MLP head. ValueError lists every
    missing and every unexpected name, or names an array whose number of axes is wrong.
    """
    leaves = {name: leaf for _, name, leaf in _arrays(kind, arrays)}
    check_names(path, leaves, arrays)
    for name, value in arrays.items():
        if value.ndim != leaves[name].axes:
            raise ValueError(f"{path}: {name} {value.shape} should have {leaves[name].axes} axes")


def from_state_dict(
    state: Mapping[str, np.ndarray], kind: str, path: str | Path = "state dict"
) -> tuple[dict, dict]:
    """(params, batch_stats) in float32 of a state dict in timm's or the released code's names.

    ValueError lists every missing and every unexpected name, or names an array with other axes.
    """
    # A counter, and timm's ImageNet classifier.
    unused = {name for name in state if name.endswith("num_batches_tracked")}
    unused |= {"head.weight", "head.bias"} if kind in backbones.MODULES else set()
    state = {name: value for name, value in state.items() if name not in unused}
    arrays = {torch: (name, leaf) for torch, name, leaf in _arrays(kind, state) if torch}
    check_names(path, arrays, state)
    flat = {}
    for torch, (name, leaf) in arrays.items():
        value = np.asarray(state[torch]).astype(np.float32)
        if value.ndim != leaf.torch_axes:
            raise ValueError(f"{path}: {torch} {value.shape} should have {leaf.torch_axes} axes")
        try:
            flat[name] = np.ascontiguousarray(leaf.from_torch(value))
        except ValueError as error:
            raise ValueError(f"{path}: {torch} {error}") from error
    tree = traverse_util.unflatten_dict(flat, sep="/")
    return tree["params"], tree.get("batch_stats", {})


def to_state_dict(
    params: Mapping, batch_stats: Mapping, kind: str, path: str | Path = "parameters"
) -> dict[str, np.ndarray]:
    """The inverse of `from_state_dict`, without `state_head`, our addition.

    ValueError lists names that are missing or have no place there, such as a stem or an MLP head.
    """
    flat = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats}, sep="/")
    flat = {name: np.asarray(value) for name, value in flat.items() if "/state_head/" not in name}
    arrays = {name: (torch, leaf) for torch, name, leaf in _arrays(kind, flat) if torch}
    check_names(path, arrays, flat)
    return {
        torch: np.ascontiguousarray(leaf.to_torch(flat[name]))
        for name, (torch, leaf) in arrays.items()
    }
