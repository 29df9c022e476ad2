"""Models that fit given parameters, and what they compute."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from stormpsr_jax.networks import architectures, backbones, spatial, temporal, vit_published


def build_backbone(
    params: Mapping, num_heads: int | None = None, library: str | None = None
) -> nn.Module:
    """The backbone that `params` belong to."""
    of = backbones.family_of(params)
    return of.module(**of.fields_of(params, num_heads, library))


def build_spatial(params: Mapping, num_heads: int | None = None) -> spatial.SpatialEncoder:
    """The SpatialEncoder that `params` belong to."""
    return spatial.SpatialEncoder(
        build_backbone(params["encoder"], num_heads),
        hidden=params["first_head"]["dense"]["kernel"].shape[1],
        second_hidden=params["second_head"]["dense"]["kernel"].shape[1],
        projection=params["projection_head"]["kernel"].shape[1],
        num_components=params["state_head"]["bias"].shape[0] if "state_head" in params else 0,
    )


def build_temporal(params: Mapping, num_heads: int | None = None) -> temporal.TemporalTransformer:
    """The TemporalTransformer that `params` belong to; heads default to 8."""
    num_heads = num_heads or 8
    inner = params["block_0"]["attn"]["proj"]["kernel"].shape[0]
    if inner % num_heads:
        raise ValueError(f"--temporal_heads={num_heads} does not divide the inner width {inner}")
    return temporal.TemporalTransformer(
        num_components=params["head"]["bias"].shape[0],
        num_frames=params["pos_embedding"].shape[1] - 1,
        depth=sum(name.startswith("block_") for name in params),
        num_heads=num_heads,
        dim_head=inner // num_heads,
        mlp_dim=params["block_0"]["fc1"]["kernel"].shape[1],
        head="mlp" if "head_hidden" in params else "linear",
    )


def forward(
    kind: str,
    params: Mapping,
    heads: int | None = None,
    temporal_heads: int | None = None,
    library: str | None = None,
) -> Callable[[Mapping, Mapping, jax.Array], dict[str, jax.Array]]:
    """The evaluation-mode function (params, batch_stats, x) -> outputs of the model of `params`.

    Of x, normalised: images (N, H, W, 3) -> {"features"} (a backbone) or {"embedding",
    "projection"} (spatial); embeddings (N, T, D) -> {"logits"} (temporal); clips (N, T, H, W, 3) ->
    {"logits"} (storm). `kind` is one of `parameters.KINDS`, `library` what published a backbone's
    parameters; `heads` None is as in `vit_published.fields_of`, `temporal_heads` None is 8.
    """
    if kind in backbones.BY_KIND:
        backbone = build_backbone(params, heads, library)
        return lambda p, _, x: {"features": architectures.apply(backbone, {"params": p}, x)}
    if kind == "temporal":
        transformer = build_temporal(params, temporal_heads)
        return lambda p, _, x: {"logits": architectures.apply(transformer, {"params": p}, x)}
    if kind == "spatial":
        spatial_encoder = build_spatial(params, heads)

        def spatial_outputs(p: Mapping, stats: Mapping, x: jax.Array) -> dict[str, jax.Array]:
            outputs: Any = spatial_encoder.apply({"params": p, "batch_stats": stats}, x)
            return {name: outputs[name] for name in ("embedding", "projection")}

        return spatial_outputs
    encoder = build_spatial(params["spatial"], heads)
    transformer = build_temporal(params["temporal"], temporal_heads)

    def storm_outputs(p: Mapping, stats: Mapping, x: jax.Array) -> dict[str, jax.Array]:
        variables = {"params": p["spatial"], "batch_stats": stats["spatial"]}
        frames = architectures.apply(encoder, variables, x.reshape(-1, *x.shape[2:]))
        embeddings = frames.reshape(*x.shape[:2], -1)
        return {"logits": architectures.apply(transformer, {"params": p["temporal"]}, embeddings)}

    return storm_outputs


def run(
    kind: str,
    params: Mapping,
    batch_stats: Mapping,
    x: np.ndarray,
    heads: int | None = None,
    temporal_heads: int | None = None,
    chunk: int = 64,
    library: str | None = None,
) -> dict[str, np.ndarray]:
    """Applies a model in evaluation mode and float32, `chunk` images or clips at a time.

    Arguments and outputs as in `forward`. A ViT's position embedding is resized to the images of x,
    as its library does. ValueError if the shape of x, or the number of heads, does not fit.
    """
    axes = {"temporal": 3, "storm": 5}.get(kind, 4)
    if x.ndim != axes or (axes > 3 and x.shape[-1] != 3) or 0 in x.shape:
        form = {3: "(N, T, D)", 4: "(N, H, W, 3)", 5: "(N, T, H, W, 3)"}[axes]
        raise ValueError(f"x has shape {x.shape}; --kind={kind} takes {form}")
    x = np.asarray(x, np.float32)

    def fitted(params: Mapping) -> Mapping:
        if "encoder" in params:
            return {**params, "encoder": fitted(params["encoder"])}
        return vit_published.fitted(params, params, x.shape[-3:-1], library, "")

    if kind == "storm":
        params = {**params, "spatial": fitted(params["spatial"])}
        chunk = max(1, chunk // x.shape[1])
    elif kind != "temporal":
        params = fitted(params)
    function = jax.jit(forward(kind, params, heads, temporal_heads, library))
    params, batch_stats = jax.device_put((params, batch_stats))
    # GPUs and TPUs round the factors of a product to fewer digits unless told otherwise.
    with jax.default_matmul_precision("highest"):
        parts = [
            jax.device_get(function(params, batch_stats, x[i : i + chunk]))
            for i in range(0, len(x), chunk)
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
