"""Names and axes of PyTorch state dicts (timm's ViTs, the released code) beside ours.

One table serves both directions. Our flat names are those of a file of `weights.save_params`:
collection, modules and leaf joined by "/".
"""

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from flax import traverse_util

PATCHES = "patch_embed.proj.weight"
TOKENS = ("cls_token", "pos_embed", "pos_embedding", "registers")
# Where our names have the ViT and the temporal transformer.
VIT_AT = {"vit": "params/", "spatial": "params/encoder/", "storm": "params/spatial/encoder/"}
TEMPORAL_AT = {"temporal": "params/", "storm": "params/temporal/"}
# (name in the state dict, name in flax, type of layer) of the repeated parts.
DENSE, NORM, BATCH_NORM = "dense", "norm", "batch_norm"
VIT_BLOCK = (
    ("norm1", "norm1", NORM),
    ("attn.proj", "attn/proj", DENSE),
    ("norm2", "norm2", NORM),
    ("mlp.fc1", "fc1", DENSE),
    ("mlp.fc2", "fc2", DENSE),
)
# What only some families of ViTs have: a model has all of a row's arrays if any name ends like one.
VIT_BLOCK_OPTIONS = (
    (("ls1.gamma", "gamma1"), ("ls2.gamma", "gamma2")),
    (("attn.q_bias", "attn/q_bias"), ("attn.v_bias", "attn/v_bias")),
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


def _names(
    kind: str, depths: Mapping[str, int], given: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Pairs (name in the state dict, our flat name) of one kind of model.

    `depths`: number of blocks of the "vit" and of the "temporal" transformer. `given`: the names
    there are, on either side, which tell what of a ViT's options there has to be.
    """
    given = [name for name in given if not name.startswith(("temporal_enc.", "params/temporal/"))]
    endings = {re.sub(r"^.*?(?:blocks\.\d{1,9}\.|block_\d{1,9}/)", "", name) for name in given}

    def has(*names):
        return any(name.endswith(names) for name in given)

    options = [
        row
        for row in VIT_BLOCK_OPTIONS
        if not endings.isdisjoint(itertools.chain.from_iterable(row))
    ]
    bias = not endings.isdisjoint(("attn.qkv.bias", "attn/qkv/bias"))
    bias |= endings.isdisjoint(("attn.qkv.weight", "attn/qkv/kernel"))  # a file cut off
    block = (*VIT_BLOCK, ("attn.qkv", "attn/qkv", DENSE if bias else "dense_without_bias"))
    tokens = [("cls_token", "cls_token")]
    # Models with rotary positions have no bias of keys.
    if bias or has("pos_embed"):
        tokens.append(("pos_embed", "pos_embed"))
    if has("reg_token", "registers"):
        tokens.append(("reg_token", "registers"))
    ends = [("patch_embed.proj", "patch_embed", DENSE), ("norm", "norm", NORM)]
    if has("norm_pre.weight", "norm_pre.bias", "norm_pre/scale", "norm_pre/bias"):
        ends.append(("norm_pre", "norm_pre", NORM))

    def layers(torch_prefix, ours, table):
        for torch_name, name, layer in table:
            for leaf, collection, our_leaf in LEAVES[layer]:
                inner = f"{ours}/{name}" if ours else name
                yield f"{torch_prefix}{torch_name}.{leaf}", f"{collection}/{inner}/{our_leaf}"

    def encoder(torch_prefix, ours):
        slash = f"{ours}/" if ours else ""
        for torch_name, name in tokens:
            yield f"{torch_prefix}{torch_name}", f"params/{slash}{name}"
        for i in range(depths["vit"]):
            yield from layers(f"{torch_prefix}blocks.{i}.", f"{slash}block_{i}", block)
            for torch_name, name in (pair for row in options for pair in row):
                yield f"{torch_prefix}blocks.{i}.{torch_name}", f"params/{slash}block_{i}/{name}"
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
    number = r"(\d{1,9})"
    patterns = {
        "vit": rf"(?:^|\.)blocks\.{number}\.",
        "temporal": rf"temporal_enc\.layers\.{number}\.",
    }
    if ours:
        patterns = {
            "vit": f"^{VIT_AT.get(kind, 'none/')}block_{number}/",
            "temporal": f"^{TEMPORAL_AT.get(kind, 'none/')}block_{number}/",
        }
    # At least one block, so that a file without any fails by the names that it lacks.
    return {part: max(1, _count(pattern, names)) for part, pattern in patterns.items()}


def _count(pattern: str, names: Collection[str]) -> int:
    """One more than the largest number that the pattern finds in the names, 0 if there is none."""
    last = max((int(m[1]) for n in names if (m := re.search(pattern, n))), default=-1)
    # Never more than there are names: a made-up number is not to ask for billions of them.
    return min(len(names), last + 1)


def _ours_alone(kind: str, names: Collection[str]) -> Iterator[str]:
    """Our flat names of the layers that no state dict has, whole if `names` has any part of one."""
    if kind in VIT_AT:
        for i in range(_count(rf"^{VIT_AT[kind]}stem_(?:norm_)?(\d{{1,9}})/", names)):
            yield from (f"{VIT_AT[kind]}stem_{i}/{leaf}" for leaf in ("kernel", "bias"))
            yield from (f"{VIT_AT[kind]}stem_norm_{i}/{leaf}" for leaf in ("scale", "bias"))
    heads = {
        "spatial": ("params/state_head",),
        "temporal": ("params/head_hidden",),
        "storm": ("params/spatial/state_head", "params/temporal/head_hidden"),
    }
    for head in heads.get(kind, ()):
        if any(name.startswith(f"{head}/") for name in names):
            yield from (f"{head}/{leaf}" for leaf in ("kernel", "bias"))


def _ignored(kind: str, name: str) -> bool:
    """Names in a state dict that carry nothing we use: a counter, timm's ImageNet classifier."""
    return name.endswith("num_batches_tracked") or (
        kind == "vit" and name in ("head.weight", "head.bias")
    )


def check_names(path: str | Path, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Raises ValueError that lists the names, if there are any."""
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

    It may have what no state dict has: a stem, a state head, an MLP head. `path` is for messages.

    Raises:
        ValueError: lists every missing and every unexpected name, or names an array whose number of
            axes is wrong.
    """
    wanted = {name for _, name in _names(kind, _depths(kind, list(arrays), ours=True), arrays)}
    wanted |= set(_ours_alone(kind, arrays))
    missing = [name for name in wanted if name not in arrays]
    check_names(path, missing, [name for name in arrays if name not in wanted])
    for name, value in arrays.items():
        axes = 4 if re.search(r"/stem_\d+/kernel$", name) else _axes(name)
        if value.ndim != axes:
            raise ValueError(f"{path}: {name} {value.shape} should have {axes} axes")


def _axes(name: str) -> int:
    """Number of axes of an array with this flat name of ours, where a state dict has it too."""
    leaf = name.rpartition("/")[2]
    return 3 if leaf in TOKENS else 2 if leaf == "kernel" else 1


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
    pairs = dict(_names(kind, _depths(kind, list(state), ours=False), state))
    missing = [name for name in pairs if name not in state]
    check_names(path, missing, [name for name in state if name not in pairs])
    flat = {}
    for torch_name, name in pairs.items():
        value = np.asarray(state[torch_name]).astype(np.float32)
        axes = _axes(name)
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
    pairs = dict(_names(kind, _depths(kind, list(flat), ours=True), flat))
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
