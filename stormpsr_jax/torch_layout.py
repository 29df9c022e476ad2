"""Names and axes of PyTorch state dicts (timm's ViT, the released code) beside ours.

One table serves both directions. Our flat names are those of a file of `weights.save_params`:
collection, modules and leaf joined by "/".
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from flax import traverse_util

PATCHES = "patch_embed.proj.weight"
TOKENS = ("cls_token", "pos_embed", "pos_embedding")
# (name in the state dict, name in flax, type of layer) of the repeated parts.
DENSE, NORM, BATCH_NORM = "dense", "norm", "batch_norm"
VIT_BLOCK = (
    ("norm1", "norm1", NORM),
    ("attn.qkv", "attn/qkv", DENSE),
    ("attn.proj", "attn/proj", DENSE),
    ("norm2", "norm2", NORM),
    ("mlp.fc1", "fc1", DENSE),
    ("mlp.fc2", "fc2", DENSE),
)
TEMPORAL_BLOCK = (
    ("0.fn.norm", "norm1", NORM),
    ("0.fn.fn.to_qkv", "attn/qkv", "dense_without_bias"),
    ("0.fn.fn.to_out.0", "attn/proj", DENSE),
    ("1.fn.norm", "norm2", NORM),
    ("1.fn.fn.net.0", "fc1", DENSE),
    ("1.fn.fn.net.3", "fc2", DENSE),
)
SPATIAL_HEADS = (
    ("first_head.0", "first_head/dense", DENSE),
    ("first_head.1", "first_head/norm", BATCH_NORM),
    ("second_head.0", "second_head/dense", DENSE),
    ("second_head.1", "second_head/norm", BATCH_NORM),
    ("second_head.3", "projection_head", DENSE),
)
LEAVES = {
    DENSE: (("weight", "params", "kernel"), ("bias", "params", "bias")),
    "dense_without_bias": (("weight", "params", "kernel"),),
    NORM: (("weight", "params", "scale"), ("bias", "params", "bias")),
    BATCH_NORM: (
        ("weight", "params", "scale"),
        ("bias", "params", "bias"),
        ("running_mean", "batch_stats", "mean"),
        ("running_var", "batch_stats", "var"),
    ),
}


def _names(kind: str, depths: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Pairs (name in the state dict, our flat name) of one kind of model.

    `depths`: number of blocks of the "vit" and of the "temporal" transformer.
    """

    def layers(torch_prefix, ours, table):
        for torch_name, name, layer in table:
            for leaf, collection, our_leaf in LEAVES[layer]:
                inner = f"{ours}/{name}" if ours else name
                yield f"{torch_prefix}{torch_name}.{leaf}", f"{collection}/{inner}/{our_leaf}"

    def encoder(torch_prefix, ours):
        slash = f"{ours}/" if ours else ""
        for name in ("cls_token", "pos_embed"):
            yield f"{torch_prefix}{name}", f"params/{slash}{name}"
        for i in range(depths["vit"]):
            yield from layers(f"{torch_prefix}blocks.{i}.", f"{slash}block_{i}", VIT_BLOCK)
        ends = (("patch_embed.proj", "patch_embed", DENSE), ("norm", "norm", NORM))
        yield from layers(torch_prefix, ours, ends)

    if kind == "vit":
        yield from encoder("", "")
    if kind in ("spatial", "storm"):
        torch_prefix, ours = ("spatial_enc.", "spatial") if kind == "storm" else ("", "")
        yield from encoder(f"{torch_prefix}encoder.", f"{ours}/encoder".lstrip("/"))
        yield from layers(torch_prefix, ours, SPATIAL_HEADS)
    if kind in ("temporal", "storm"):
        ours = "temporal" if kind == "storm" else ""
        slash = f"{ours}/" if ours else ""
        for name in ("cls_token", "pos_embedding"):
            yield f"temporal_enc.{name}", f"params/{slash}{name}"
        for i in range(depths["temporal"]):
            yield from layers(f"temporal_enc.layers.{i}.", f"{slash}block_{i}", TEMPORAL_BLOCK)
        head = (("mlp_head.0", "head_norm", NORM), ("mlp_head.1", "head", DENSE))
        yield from layers("", ours, head)


def _depths(kind: str, names: Sequence[str], ours: bool) -> dict[str, int]:
    """Counts the blocks from the names present."""
    patterns = {"vit": r"(?:^|\.)blocks\.(\d+)\.", "temporal": r"temporal_enc\.layers\.(\d+)\."}
    if ours:
        block = r"block_(\d+)/"
        vit_prefix = {"vit": "", "spatial": "encoder/", "storm": "spatial/encoder/"}
        temporal_prefix = {"temporal": "", "storm": "temporal/"}
        patterns = {
            "vit": f"^params/{vit_prefix.get(kind, 'none/')}{block}",
            "temporal": f"^params/{temporal_prefix.get(kind, 'none/')}{block}",
        }
    depths = {}
    for part, pattern in patterns.items():
        last = max((int(m[1]) for n in names if (m := re.search(pattern, n))), default=0)
        # At least one block, so that a file without any fails by the names that it lacks; never
        # more than there are names, so that a made-up number does not ask for billions of them.
        depths[part] = min(len(names), last + 1)
    return depths


def _ignored(kind: str, name: str) -> bool:
    """Names in a state dict that carry nothing we use: a counter, timm's ImageNet classifier."""
    return name.endswith("num_batches_tracked") or (
        kind == "vit" and name in ("head.weight", "head.bias")
    )


def check_names(path: str | Path, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Raises ValueError that lists the names, if there are any."""
    if missing or unexpected:
        raise ValueError(
            f"{path}: the names do not fit the model; "
            f"missing: {', '.join(sorted(missing)) or 'none'}; "
            f"unexpected: {', '.join(sorted(unexpected)) or 'none'}"
        )


def from_state_dict(
    state: Mapping[str, np.ndarray], kind: str, path: str | Path = "state dict"
) -> tuple[dict, dict]:
    """(params, batch_stats) in float32 of a state dict in timm's or the released code's names.

    `path` is for messages.

    Raises:
      ValueError: lists every missing and every unexpected name, or names an array whose number of
        axes is wrong.
    """
    state = {name: value for name, value in state.items() if not _ignored(kind, name)}
    pairs = dict(_names(kind, _depths(kind, list(state), ours=False)))
    missing = [name for name in pairs if name not in state]
    check_names(path, missing, [name for name in state if name not in pairs])
    flat = {}
    for torch_name, name in pairs.items():
        value = np.asarray(state[torch_name]).astype(np.float32)
        leaf = torch_name.rpartition(".")[2]
        axes = 3 if leaf in TOKENS else 2 if name.endswith("/kernel") else 1
        if torch_name.endswith(PATCHES):
            # (D, C, p, p); our patch embedding multiplies rows of p * p * C values.
            D, C, *pixels = value.shape if value.ndim == 4 else (0, 0, 0, 1)
            if C != 3 or pixels[0] != pixels[1]:
                raise ValueError(f"{path}: {torch_name} {value.shape} is not (width, 3, p, p)")
            value = value.transpose(2, 3, 1, 0).reshape(-1, D)
        elif value.ndim != axes:
            raise ValueError(f"{path}: {torch_name} {value.shape} should have {axes} axes")
        elif axes == 2:
            value = value.T
        flat[name] = np.ascontiguousarray(value)
    tree = traverse_util.unflatten_dict(flat, sep="/")
    return tree["params"], tree.get("batch_stats", {})


def to_state_dict(
    params: Mapping, batch_stats: Mapping, kind: str, path: str | Path = "parameters"
) -> dict[str, np.ndarray]:
    """The inverse of `from_state_dict`. `state_head`, our addition, has no place there.

    Raises:
      ValueError: lists every missing and every unexpected name, such as a stem or an MLP head.
    """
    flat = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats}, sep="/")
    flat = {name: np.asarray(value) for name, value in flat.items() if "/state_head/" not in name}
    pairs = dict(_names(kind, _depths(kind, list(flat), ours=True)))
    ours = set(pairs.values())
    check_names(path, [n for n in ours if n not in flat], [n for n in flat if n not in ours])
    state = {}
    for torch_name, name in pairs.items():
        value = flat[name]
        if torch_name.endswith(PATCHES):
            p = math.isqrt(value.shape[0] // 3)
            value = value.reshape(p, p, 3, -1).transpose(3, 2, 0, 1)
        elif name.endswith("/kernel"):
            value = value.T
        state[torch_name] = np.ascontiguousarray(value)
    return state
