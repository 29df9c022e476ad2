"""Weights in and out: timm ViTs, the released PyTorch checkpoints, and our own files.

    python -m stormpsr_jax.weights import --kind=spatial --checkpoint=best.pth --out=f.safetensors
    python -m stormpsr_jax.weights export --kind=spatial --checkpoint=f.safetensors --out=f.npz
    python -m stormpsr_jax.weights run --kind=vit --checkpoint=vit.pth --inputs=x.npz --out=y.npz

Kinds: `vit` (timm names), `spatial` (ViT and projection head), `temporal` (the transformer), and
`storm`, both together: its parameters are {"spatial": …, "temporal": …}. Foreign checkpoints are
`.pth`, `.safetensors` or `.npz` with a state dict; nothing in them is ever executed. Our format is
`.safetensors` with the flax collections flattened to names such as `params/block_0/fc1/kernel` and
`batch_stats/first_head/norm/mean`.
"""

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from stormpsr_jax import files, torch_files
from stormpsr_jax.models import spatial, temporal, vit
from stormpsr_jax.torch_layout import check_names, check_ours, from_state_dict, to_state_dict

KINDS = ("vit", "spatial", "temporal", "storm")
FORMAT = "stormpsr_jax"
# A module that the parameters of each kind have at their top, and no other kind has.
LANDMARKS = {
    "vit": "patch_embed",
    "spatial": "encoder",
    "temporal": "pos_embedding",  # of all the back-ends only the transformer has it
    "storm": "temporal",
}


# --- Our files ------------------------------------------------------------------------------------


def save_params(
    path: str | Path,
    params: Mapping,
    batch_stats: Mapping | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes parameters (nested dicts of arrays) to a `.safetensors` file in our format, whole.

    `metadata` values are stored as JSON text.

    Raises:
      OSError: it cannot be written; names the file.
    """
    tree = {"params": params, "batch_stats": batch_stats or {}}
    flat = traverse_util.flatten_dict(tree, sep="/")
    arrays = {k: np.ascontiguousarray(jax.device_get(v)) for k, v in sorted(flat.items())}
    text = {k: json.dumps(v) for k, v in (metadata or {}).items()}
    text |= {"format": FORMAT, "sha256": _checksum(arrays)}
    write_safetensors(path, arrays, text)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_safetensors(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a `.safetensors` file, whole and with the permissions of any new file.

    The same arrays and metadata give the same bytes. (The library's own writer leaves the file
    unreadable for everybody but its owner, and puts metadata into it in any order.)

    Raises:
      OSError: it cannot be written; names the file.
    """
    content = safetensors.numpy.save(dict(arrays), metadata=dict(metadata or {}) or None)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # as the format wants the data aligned
    with files.replacing(path) as part:
        part.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, content[end:]]))


def load_params(path: str | Path) -> tuple[dict, dict]:
    """Reads (params, batch_stats), nested dicts of NumPy arrays, from a file of `save_params`.

    Raises:
      ValueError: the file is absent, damaged, or not in our format.
    """
    arrays, metadata = torch_files.read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not in this package's format; make such a file with "
            "`python -m stormpsr_jax.weights import --kind=… --checkpoint=… --out=…`"
        )
    found = _checksum(arrays)
    if metadata.get("sha256", found) != found:
        raise ValueError(f"{path} is damaged: its arrays differ from their checksum; make it again")
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    return tree.get("params", {}), tree.get("batch_stats", {})


def initialise_from(
    path: str | Path,
    params: Mapping,
    batch_stats: Mapping,
    grid: tuple[int, int] | None = None,
) -> tuple[dict, dict, list[str]]:
    """Replaces freshly initialised values by those of a file (a config's `init_from`).

    Every value in the file must have its place, and every parameter must be in the file, with one
    exception: a file that holds only a ViT initialises the `encoder` of a SpatialEncoder and
    leaves its heads as they are.

    Args:
      path: a file of `save_params`.
      params: freshly initialised parameters.
      batch_stats: their running statistics ({} if the model has none).
      grid: (h, w) of the patches of `params`, to which a position embedding of another length is
        resized; None is a square.

    Returns:
      (params, batch_stats, report): new dicts, and a line per value taken.

    Raises:
      ValueError: lists missing and unexpected names, or names a shape that differs.
    """
    loaded_params, loaded_stats = load_params(path)
    encoder_only = "cls_token" in loaded_params and "encoder" in params
    if encoder_only:
        loaded_params = {"encoder": loaded_params}

    wanted = traverse_util.flatten_dict(
        {"params": dict(params), "batch_stats": dict(batch_stats)}, sep="/"
    )
    loaded = traverse_util.flatten_dict(
        {"params": loaded_params, "batch_stats": loaded_stats}, sep="/"
    )
    inside = "params/encoder/" if encoder_only else ""
    missing = [name for name in wanted if name.startswith(inside) and name not in loaded]
    check_names(path, missing, [name for name in loaded if name not in wanted])

    report = []
    for name, value in loaded.items():
        shape, note = wanted[name].shape, ""
        if name.endswith("/pos_embed") and value.shape[1] != shape[1]:
            rows = value.shape[1]
            value = resize_position_embedding(value, grid or _square(shape[1] - 1, name))
            note = f" (position embedding resized from {rows} to {shape[1]} rows)"
        if value.shape != shape:
            raise ValueError(f"{path}: {name} has shape {value.shape}, the model needs {shape}")
        wanted[name] = value.astype(wanted[name].dtype)
        report.append(f"{name} {value.shape}{note}")
    tree = traverse_util.unflatten_dict(wanted, sep="/")
    return tree.get("params", {}), tree.get("batch_stats", {}), report


def resize_position_embedding(
    pos_embed: np.ndarray, grid: tuple[int, int], old_grid: tuple[int, int] | None = None
) -> np.ndarray:
    """Resizes a ViT's position embedding (1, 1 + h w, D) to another patch grid, bicubically.

    The kernel is Keys's with a = -0.5, widened where the grid shrinks (antialiasing), as in Pillow
    and in PyTorch with antialias=True, which timm uses. PyTorch without it has a = -0.75. The row
    of [CLS] is kept.

    Args:
      pos_embed: rows of [CLS] and of the patches, row by row.
      grid: (h, w) wanted.
      old_grid: (h, w) now; None is a square.

    Raises:
      ValueError: without `old_grid`, of patches that make no square.
    """
    h, w = old_grid or _square(pos_embed.shape[1] - 1, "pos_embed")
    D = pos_embed.shape[-1]
    patches = jnp.asarray(pos_embed[0, 1:], jnp.float32).reshape(h, w, D)
    resized = jax.image.resize(patches, (*grid, D), "bicubic", antialias=True)
    return np.concatenate([pos_embed[:, :1], np.asarray(resized).reshape(1, -1, D)], axis=1)


def _square(n: int, name: str) -> tuple[int, int]:
    side = round(n**0.5)
    if side * side != n:
        raise ValueError(
            f"{name}: {n} patches make no square grid; only that of square pictures can be resized"
        )
    return side, side


# --- Models that fit given parameters -------------------------------------------------------------


def vit_fields(params: Mapping, num_heads: int | None = None) -> dict[str, Any]:
    """Attributes of the vit.ViT that `params` belong to; heads default to width / 64."""
    width = params["cls_token"].shape[-1]
    num_heads = num_heads or width // 64
    if not num_heads or width % num_heads:
        raise ValueError(f"--heads={num_heads} does not divide the width {width}; give --heads")
    stems = sum(re.fullmatch(r"stem_\d+", name) is not None for name in params)
    stem = tuple(params[f"stem_{i}"]["kernel"].shape[-1] for i in range(stems))
    rows = params["patch_embed"]["kernel"].shape[0]
    channels = stem[-1] if stem else 3
    side = math.isqrt(rows // channels)
    if not side or rows != side * side * channels:
        raise ValueError(f"patch_embed has {rows} rows, which make no square patch")
    return {
        "patch_size": side * 2 ** len(stem),
        "width": width,
        "depth": sum(name.startswith("block_") for name in params),
        "num_heads": num_heads,
        "mlp_dim": params["block_0"]["fc1"]["kernel"].shape[1],
        "stem": stem,
    }


def build_spatial(params: Mapping, num_heads: int | None = None) -> spatial.SpatialEncoder:
    """The SpatialEncoder that `params` belong to."""
    return spatial.SpatialEncoder(
        **vit_fields(params["encoder"], num_heads),
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
    kind: str, params: Mapping, heads: int | None = None, temporal_heads: int | None = None
) -> Callable[[Mapping, Mapping, jax.Array], dict[str, jax.Array]]:
    """The evaluation-mode function (params, batch_stats, x) -> outputs of the model of `params`.

    Args:
      kind: vit, spatial, temporal or storm.
      params: parameters, for their shapes.
      heads: of the ViT; None is width / 64.
      temporal_heads: None is 8.

    Returns:
      A function of x, normalised: images (N, H, W, 3) -> {"features"} (vit) or {"embedding",
      "projection"} (spatial); embeddings (N, T, D) -> {"logits"} (temporal); clips (N, T, H, W, 3)
      -> {"logits"} (storm).
    """
    if kind == "vit":
        model = vit.ViT(**vit_fields(params, heads))
        return lambda p, _, x: {"features": model.apply({"params": p}, x)}
    if kind == "temporal":
        model = build_temporal(params, temporal_heads)
        return lambda p, _, x: {"logits": model.apply({"params": p}, x)}
    if kind == "spatial":
        model = build_spatial(params, heads)

        def spatial_outputs(p, stats, x):
            outputs = model.apply({"params": p, "batch_stats": stats}, x)
            return {name: outputs[name] for name in ("embedding", "projection")}

        return spatial_outputs
    encoder = build_spatial(params["spatial"], heads)
    transformer = build_temporal(params["temporal"], temporal_heads)

    def storm_outputs(p, stats, x):
        variables = {"params": p["spatial"], "batch_stats": stats["spatial"]}
        frames = encoder.apply(variables, x.reshape(-1, *x.shape[2:]), method="embed")
        embeddings = frames.reshape(*x.shape[:2], -1)
        return {"logits": transformer.apply({"params": p["temporal"]}, embeddings)}

    return storm_outputs


# --- Commands -------------------------------------------------------------------------------------


def _load_any(path: Path, kind: str) -> tuple[dict, dict]:
    """Parameters of a foreign checkpoint or of a file of ours."""
    if path.suffix == ".safetensors":
        arrays, metadata = torch_files.read_safetensors(path)
        if metadata.get("format") == FORMAT:
            tops = sorted({n.split("/")[1] for n in arrays if n.startswith("params/")})
            if LANDMARKS[kind] not in tops:
                only = " (only the transformer is one)" if kind == "temporal" else ""
                raise ValueError(f"{path} is no --kind={kind}: it holds {', '.join(tops)}{only}")
            check_ours(arrays, kind, path)
            return load_params(path)
    return from_state_dict(torch_files.read_state_dict(path), kind, path)


def _check_shapes(kind: str, params: Mapping, batch_stats: Mapping) -> None:
    """Raises an error of flax that names an array whose shape does not fit the others."""
    if kind == "temporal":
        _, rows, D = params["pos_embedding"].shape
        shape = (1, rows - 1, D)
    else:
        part = params["spatial"] if kind == "storm" else params
        encoder = part if kind == "vit" else part["encoder"]
        # One row of patches, as many as have a position.
        patch = vit_fields(encoder, 1)["patch_size"]
        image = (patch, patch * (encoder["pos_embed"].shape[1] - 1), 3)
        shape = (1, 1, *image) if kind == "storm" else (1, *image)
    # The number of heads changes no shape.
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    jax.eval_shape(forward(kind, params, 1, 1), params, batch_stats, x)


def run(
    kind: str,
    params: Mapping,
    batch_stats: Mapping,
    x: np.ndarray,
    heads: int | None = None,
    temporal_heads: int | None = None,
    chunk: int = 64,
) -> dict[str, np.ndarray]:
    """Applies a model in evaluation mode and float32, some images or clips at a time.

    Args and outputs as in `forward`. A ViT's position embedding is resized to the images of x.
    `chunk`: images, or clips of embeddings, computed at once.

    Raises:
      ValueError: the shape of x, or the number of heads, does not fit.
    """
    axes = {"vit": 4, "spatial": 4, "temporal": 3, "storm": 5}[kind]
    if x.ndim != axes or (axes > 3 and x.shape[-1] != 3) or 0 in x.shape:
        form = {3: "(N, T, D)", 4: "(N, H, W, 3)", 5: "(N, T, H, W, 3)"}[axes]
        raise ValueError(f"x has shape {x.shape}; --kind={kind} takes {form}")
    x = np.asarray(x, np.float32)
    if kind == "vit":
        params = _fit_grid(params, x)
    elif kind == "spatial":
        params = dict(params) | {"encoder": _fit_grid(params["encoder"], x)}
    elif kind == "storm":
        encoder = params["spatial"]
        encoder = dict(encoder) | {"encoder": _fit_grid(encoder["encoder"], x)}
        params = dict(params) | {"spatial": encoder}
        chunk = max(1, chunk // x.shape[1])
    function = jax.jit(forward(kind, params, heads, temporal_heads))
    params, batch_stats = jax.device_put((params, batch_stats))
    # GPUs and TPUs round the factors of a product to fewer digits unless told otherwise.
    with jax.default_matmul_precision("highest"):
        parts = [
            jax.device_get(function(params, batch_stats, x[i : i + chunk]))
            for i in range(0, len(x), chunk)
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _fit_grid(params: Mapping, x: np.ndarray) -> dict:
    """ViT parameters with the position embedding resized to images x (…, H, W, 3)."""
    patch = vit_fields(params, 1)["patch_size"]
    grid = (x.shape[-3] // patch, x.shape[-2] // patch)
    if params["pos_embed"].shape[1] == 1 + grid[0] * grid[1]:
        return dict(params)
    return dict(params) | {"pos_embed": resize_position_embedding(params["pos_embed"], grid)}


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    if path.suffix == ".npz":
        with files.replacing(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)
    else:
        write_safetensors(path, arrays)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 after a one-line error."""
    parser = argparse.ArgumentParser(
        prog="python -m stormpsr_jax.weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("import", "foreign checkpoint -> our format (.safetensors)"),
        ("export", "our format -> state dict of timm or the released code (.safetensors, .npz)"),
        ("run", "apply a checkpoint to the array x of a file (.npz)"),
    ):
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        command.add_argument("--kind", choices=KINDS, required=True)
        command.add_argument("--checkpoint", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
        if name == "run":
            command.add_argument("--inputs", type=Path, required=True, help=".npz holding x")
            command.add_argument("--heads", type=int, help="of the ViT; default: width / 64")
            command.add_argument("--temporal_heads", type=int, help="default: 8")
    args = parser.parse_args(argv)
    endings = {"import": (".safetensors",), "export": (".safetensors", ".npz"), "run": (".npz",)}
    try:
        if args.out.suffix not in endings[args.command]:
            raise ValueError(f"--out={args.out} must end in {' or '.join(endings[args.command])}")
        params, batch_stats = _load_any(args.checkpoint, args.kind)
        _check_shapes(args.kind, params, batch_stats)
        if args.command == "import":
            save_params(args.out, params, batch_stats, {"kind": args.kind})
        elif args.command == "export":
            _write_arrays(args.out, to_state_dict(params, batch_stats, args.kind, args.checkpoint))
        else:
            inputs = torch_files.read_npz(args.inputs)
            if "x" not in inputs:
                raise ValueError(f"{args.inputs} has no array x; it has: {', '.join(inputs)}")
            heads = (args.heads, args.temporal_heads)
            _write_arrays(args.out, run(args.kind, params, batch_stats, inputs["x"], *heads))
    except flax.errors.FlaxError as error:  # names the parameter and not the file
        print(f"error: {args.checkpoint}: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
