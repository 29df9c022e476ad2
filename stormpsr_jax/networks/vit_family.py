"""The family of vision transformers: published models by name, and what their arrays tell.

A new one is a row here, under the name that its library has for it: a model of timm (without the
tag of its weights), or a repository of transformers. Its weights are no part of this package;
docs/research.md says where they come from. The feature is always the class token after the last
norm, so models of timm without a class token are left out.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from stormpsr_jax.networks import vit_published
from stormpsr_jax.networks.family import Family
from stormpsr_jax.networks.vit import ViT

_SIZES = {  # width, depth, heads, width of the MLP
    "tiny": (192, 12, 3, 768),
    "xsmall": (256, 10, 4, 1024),
    "small": (384, 12, 6, 1536),
    "medium": (512, 12, 8, 2048),
    "betwixt": (640, 12, 10, 2560),
    "base": (768, 12, 12, 3072),
    "plus": (896, 12, 14, 3584),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "huge": (1280, 32, 16, 5120),
    "giant": (1408, 40, 16, 6144),
    "dinov2_giant": (1536, 40, 24, 4096),
    "gigantic": (1664, 48, 16, 8192),
    "huge_plus": (1280, 32, 20, 5120),  # of DINOv3, with rotary positions
    "7b": (4096, 40, 32, 8192),
}


def _vit(size: str, patch: int, **others: Any) -> dict[str, Any]:
    width, depth, heads, hidden = _SIZES[size]
    found = {"patch_size": patch, "width": width, "depth": depth, "num_heads": heads}
    return found | {"mlp_dim": hidden} | others


def _dinov2(size: str, registers: int = 0) -> dict[str, Any]:
    others = {"layer_scale": True, "registers": registers}
    if size == "giant":
        return _vit("dinov2_giant", 14, mlp="swiglu", **others)
    return _vit(size, 14, **others)


def _dinov3(size: str, bias: str) -> dict[str, Any]:
    others: dict[str, Any] = {"layer_scale": True, "registers": 4, "positions": "rotary"}
    if size in ("small_plus", "huge_plus", "7b"):
        others["mlp"] = "swiglu"
    size = "small" if size == "small_plus" else size
    return _vit(size, 16, bias=bias, norm_eps=1e-5, **others)


def _named() -> dict[str, dict[str, Any]]:
    found = {}
    for size, patches in {  # timm: patch and pixels of the pictures
        "tiny": ("16_224", "16_384"),
        "small": ("16_224", "16_384", "32_224", "32_384", "8_224"),
        "base": ("16_224", "16_384", "32_224", "32_384", "8_224"),
        "large": ("16_224", "16_384", "32_224", "32_384", "14_224"),
        "huge": ("14_224",),
        "giant": ("14_224",),
        "gigantic": ("14_224",),
    }.items():
        for given in patches:
            found[f"vit_{size}_patch{given}"] = _vit(size, int(given.split("_")[0]))
    found["vit_base_patch16_224_miil"] = _vit("base", 16, bias="none")
    found["vit_small_patch16_36x1_224"] = _vit("small", 16, depth=36, layer_scale=True)
    found["vit_base_patch16_plus_240"] = _vit("plus", 16, layer_scale=True)
    found["vit_base_patch32_plus_256"] = _vit("plus", 32, layer_scale=True)
    clip: dict[str, Any] = {"pre_norm": True, "norm_eps": 1e-5}
    for size, patches in {
        "xsmall": ("16_224",),
        "medium": ("16_224", "32_224"),
        "betwixt": ("32_224",),
        "base": ("16_224", "16_384", "32_224", "32_256", "32_384", "32_448"),
        "large": ("14_224", "14_336"),
        "huge": ("14_224", "14_336", "14_378"),
        "giant": ("14_224",),
        "gigantic": ("14_224", "14_378"),
    }.items():
        for given in patches:
            side, pixels = given.split("_")
            found[f"vit_{size}_patch{side}_clip_{pixels}"] = _vit(size, int(side), **clip)
    found["vit_base_patch16_plus_clip_240"] = _vit("plus", 16, **clip)
    for size in ("small", "base", "large", "giant"):
        found[f"vit_{size}_patch14_dinov2"] = _dinov2(size)
        found[f"vit_{size}_patch14_reg4_dinov2"] = _dinov2(size, 4)
        found[f"facebook/dinov2-{size}"] = _dinov2(size)
        found[f"facebook/dinov2-with-registers-{size}"] = _dinov2(size, 4)
    for size in ("base", "large", "so400m", "giant"):
        found[f"vit_{size}_patch14_reg1_tipsv2"] = _dinov2(size, 1)
    found["vit_tiny_patch16_dinov3_qkvb"] = _dinov3("tiny", "qv")
    for size, theirs in {
        "small": "vits16",
        "small_plus": "vits16plus",
        "base": "vitb16",
        "large": "vitl16",
        "huge_plus": "vith16plus",
        "7b": "vit7b16",
    }.items():
        found[f"vit_{size}_patch16_dinov3"] = _dinov3(size, "none")
        if size != "7b":
            found[f"vit_{size}_patch16_dinov3_qkvb"] = _dinov3(size, "qv")
        bias = "none" if size == "7b" else "qv"
        found[f"facebook/dinov3-{theirs}-pretrain-lvd1689m"] = _dinov3(size, bias)
        if size in ("large", "7b"):
            found[f"facebook/dinov3-{theirs}-pretrain-sat493m"] = _dinov3(size, bias)
    for size, patch, endings in (
        ("base", 16, ("224", "224-in21k", "384")),
        ("base", 32, ("224-in21k", "384")),
        ("large", 16, ("224", "224-in21k", "384")),
        ("large", 32, ("224-in21k", "384")),
        ("huge", 14, ("224-in21k",)),
    ):
        for ending in endings:
            name = f"google/vit-{size}-patch{patch}-{ending}"
            found[name] = _vit(size, patch, norm_eps=1e-12)
    for size in ("small", "base"):
        for patch in (8, 16):
            found[f"facebook/dino-vit{size[0]}{patch}"] = _vit(size, patch, norm_eps=1e-12)
    return found


NAMED = _named()
_LEARNED = {"positions": "learned"}  # where a name has no other ones


def configured(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a published model with some replaced; its MLP keeps its proportion."""
    hidden = fields["mlp_dim"] * changes.get("width", fields["width"]) // fields["width"]
    return {**fields, "mlp_dim": hidden, **changes}


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
    found = {
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
    same = {name: found[name] for name in ("width", "depth", "positions")}
    alike = (n["num_heads"] for n in NAMED.values() if same.items() <= (_LEARNED | n).items())
    heads = found["num_heads"] = num_heads or next(alike, width // 64)
    if not heads or width % heads:
        raise ValueError(f"--heads={heads} does not divide the width {width}; give --heads")
    # No array tells the epsilon of the norms.
    if found["positions"] == "rotary" or found["pre_norm"]:
        return found | {"norm_eps": 1e-5}
    plain = library == "transformers" and not found["layer_scale"]
    return found | {"norm_eps": 1e-12 if plain else 1e-6}


def fitted(
    params: Mapping, wanted: Mapping, size: tuple[int, int] | None, library: str | None, name: str
) -> Mapping:
    """The parameters with learned positions for pictures of another size; see `Family`."""
    if "pos_embed" not in params:
        return params
    if size is None:
        grid = vit_published.square(wanted["pos_embed"].shape[1] - 1, f"{name}pos_embed")
    else:
        patch = fields_of(wanted, 1)["patch_size"]
        grid = (size[0] // patch, size[1] // patch)
    positions = params["pos_embed"]
    patches = positions.shape[1] - 1
    same, square = patches == grid[0] * grid[1], round(patches**0.5) ** 2 == patches
    # The grid of a run is right if it has as many patches; published ones are of squares.
    if same and (library is None or grid[0] == grid[1] or not square):
        return params
    antialias = library != "transformers" or "registers" in params
    resized = vit_published.resize_position_embedding(
        positions, grid, antialias, f"{name}pos_embed"
    )
    return {**params, "pos_embed": resized}


FAMILY = Family(
    kind="vit",
    label="ViT",
    architecture="SpatialEncoder",
    module=ViT,
    named=NAMED,
    landmark="patch_embed",
    mark=r"^cls_token$|(^|\.)embeddings\.cls_token$",
    rows=vit_published.rows,
    fields_of=fields_of,
    published=vit_published.to_timm,
    exported=vit_published.from_timm,
    configured=configured,
    fitted=fitted,
)
