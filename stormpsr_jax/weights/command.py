"""Weights in and out: published backbones, released PyTorch checkpoints, our own files.

    python -m stormpsr_jax.weights import --kind=spatial --checkpoint=best.pth --out=f.safetensors
    python -m stormpsr_jax.weights export --kind=spatial --checkpoint=f.safetensors --out=f.npz
    python -m stormpsr_jax.weights run --kind=vit --checkpoint=vit.pth --inputs=x.npz --out=y.npz

Kinds: `vit` (also DINOv2 and DINOv3, in the names of timm or of transformers; docs/research.md),
`efficientnet` (Lite0, in those of efficientnet_pytorch; norms are folded into convolutions),
`spatial` (one of them and projection head), `temporal` (the transformer), and `storm`, both
together: its parameters are {"spatial": …, "temporal": …}. Foreign checkpoints are `.pth`,
`.safetensors` or `.npz` with a state dict; nothing in them is ever executed. Our format is
`.safetensors` with the flax collections flattened to names such as `params/block_0/fc1/kernel` and
`batch_stats/first_head/norm/mean`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import tell
from stormpsr_jax.networks import architectures, spatial, temporal
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.weights import backbones, torch_files
from stormpsr_jax.weights.parameters import KINDS, load_any, save_params, write_safetensors
from stormpsr_jax.weights.torch_layout import to_state_dict


def build_spatial(params: Mapping, num_heads: int | None = None) -> spatial.SpatialEncoder:
    """The SpatialEncoder that `params` belong to."""
    return spatial.SpatialEncoder(
        backbones.build(params["encoder"], num_heads),
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
    """Applies the model of `params` in evaluation mode and float32, `chunk` rows of x at a time.

    Of x, normalised: images (N, H, W, 3) → "features" (a backbone), or "embedding" and "projection"
    (spatial); embeddings (N, T, D) → "logits" (temporal); clips (N, T, H, W, 3) → "logits" (storm).
    A ViT's position embedding is resized to the images, as its library does.

    Args:
        kind: one of `parameters.KINDS`.
        heads: of a ViT, as in `backbones.fields_of`.
        temporal_heads: None is 8.
        library: what published a backbone's parameters.

    Raises:
        ValueError: the shape of x, or the number of heads, does not fit.
    """
    axes = {"temporal": 3, "storm": 5}.get(kind, 4)
    if x.ndim != axes or (axes > 3 and x.shape[-1] != 3) or 0 in x.shape:
        form = {3: "(N, T, D)", 4: "(N, H, W, 3)", 5: "(N, T, H, W, 3)"}[axes]
        raise ValueError(f"x has shape {x.shape}; --kind={kind} takes {form}")
    x = np.asarray(x, np.float32)

    def fitted(params: Mapping) -> Mapping:
        if "encoder" in params:
            return {**params, "encoder": fitted(params["encoder"])}
        return backbones.fitted(params, params, x.shape[-3:-1], library, "")

    if kind == "storm":
        params = {**params, "spatial": fitted(params["spatial"])}
        chunk = max(1, chunk // x.shape[1])
        encoder = build_spatial(params["spatial"], heads)
        transformer = build_temporal(params["temporal"], temporal_heads)
    elif kind == "temporal":
        transformer = build_temporal(params, temporal_heads)
    else:
        params = fitted(params)
        whole = kind == "spatial"
        network: Any = (
            build_spatial(params, heads) if whole else backbones.build(params, heads, library)
        )

    @jax.jit
    def outputs(params: Mapping, stats: Mapping, x: jax.Array) -> dict[str, jax.Array]:
        variables = {"params": params, "batch_stats": stats}
        if kind == "temporal":
            return {"logits": architectures.apply(transformer, variables, x)}
        if kind == "storm":
            variables = {"params": params["spatial"], "batch_stats": stats["spatial"]}
            frames = architectures.apply(encoder, variables, x.reshape(-1, *x.shape[2:]))
            clips = frames.reshape(*x.shape[:2], -1)
            logits = architectures.apply(transformer, {"params": params["temporal"]}, clips)
            return {"logits": logits}
        if kind != "spatial":
            return {"features": network.apply(variables, x)}
        found = network.apply(variables, x)
        return {name: found[name] for name in ("embedding", "projection")}

    params, batch_stats = jax.device_put((params, batch_stats))
    # GPUs and TPUs round the factors of a product to fewer digits unless told otherwise.
    with jax.default_matmul_precision("highest"):
        parts = [
            jax.device_get(outputs(params, batch_stats, x[i : i + chunk]))
            for i in range(0, len(x), chunk)
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    if path.suffix == ".npz":
        with files.replacing(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy sees its flag in them
    else:
        write_safetensors(path, arrays)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 after a one-line error."""
    parser = OneLineParser(prog="python -m stormpsr_jax.weights", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("import", "foreign checkpoint -> our format (.safetensors)"),
        ("export", "our format -> state dict of timm or the released code (.safetensors, .npz)"),
        ("run", "apply a checkpoint to the array x of a file (.npz)"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--kind", choices=KINDS, required=True)
        command.add_argument("--checkpoint", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
        if name == "run":
            command.add_argument("--inputs", type=Path, required=True, help=".npz holding x")
            command.add_argument("--heads", type=int, help="of the ViT; default: of its size")
            command.add_argument("--temporal_heads", type=int, help="default: 8")
    args = parser.parse_args(argv)
    endings = {"import": (".safetensors",), "export": (".safetensors", ".npz"), "run": (".npz",)}
    try:
        if args.out.suffix not in endings[args.command]:
            raise ValueError(f"--out={args.out} must end in {' or '.join(endings[args.command])}")
        params, batch_stats, library = load_any(args.checkpoint, args.kind)
        if args.command == "import":
            origin = {"library": library} if library else {}
            save_params(args.out, params, batch_stats, {"kind": args.kind} | origin)
        elif args.command == "export":
            state = to_state_dict(params, batch_stats, args.kind, args.checkpoint)
            if args.kind == "vit":
                state = backbones.from_timm(state)
            _write_arrays(args.out, state)
        else:
            inputs = torch_files.read_npz(args.inputs)
            if "x" not in inputs:
                raise ValueError(f"{args.inputs} has no array x; it has: {', '.join(inputs)}")
            heads = args.heads, args.temporal_heads
            outputs = run(args.kind, params, batch_stats, inputs["x"], *heads, library=library)
            _write_arrays(args.out, outputs)
    except flax.errors.FlaxError as error:  # names the parameter and not the file
        tell("error", f"{args.checkpoint}: {error}")
        return 2
    except (ValueError, OSError) as error:
        for line in str(error).split("\n"):
            tell("error", line)
        return 2
    print(f"wrote {args.out}")
    return 0
