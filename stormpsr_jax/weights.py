"""Weights in and out: published ViTs, released PyTorch checkpoints, and our own files.

    python -m stormpsr_jax.weights import --kind=spatial --checkpoint=best.pth --out=f.safetensors
    python -m stormpsr_jax.weights export --kind=spatial --checkpoint=f.safetensors --out=f.npz
    python -m stormpsr_jax.weights run --kind=vit --checkpoint=vit.pth --inputs=x.npz --out=y.npz

Kinds: `vit` (also DINOv2 and DINOv3, in the names of timm or of transformers; docs/model.md),
`spatial` (ViT and projection head), `temporal` (the transformer), and `storm`, both together: its
parameters are {"spatial": …, "temporal": …}. Foreign checkpoints are `.pth`, `.safetensors` or
`.npz` with a state dict; nothing in them is ever executed. Our format is `.safetensors` with the
flax collections flattened to names such as `params/block_0/fc1/kernel` and
`batch_stats/first_head/norm/mean`.
"""

import argparse
import hashlib
import json
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

from stormpsr_jax import files, published, torch_files
from stormpsr_jax.mistakes import tell
from stormpsr_jax.models import backbones, positions, spatial, temporal, vit
from stormpsr_jax.models.positions import resize_position_embedding as resize_position_embedding
from stormpsr_jax.psr.cli import OneLineParser
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
      path: a file of `save_params`, or a ViT as timm or transformers publish it.
      params: freshly initialised parameters.
      batch_stats: their running statistics ({} if the model has none).
      grid: (h, w) of the patches of `params`, to which a position embedding of another length is
        resized; None is a square.

    Returns:
      (params, batch_stats, report): new dicts, and a line per value taken.

    Raises:
      ValueError: lists missing and unexpected names, or names a shape that differs, and says in
        what the ViTs differ.
    """
    loaded_params, loaded_stats, library = _load_start(Path(path))
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
    why = backbones.differences(loaded_params.get("encoder", {}), params.get("encoder", {}))
    check_names(f"{path}{why}", missing, [name for name in loaded if name not in wanted])

    report = []
    for name, value in loaded.items():
        shape, note = wanted[name].shape, ""
        if name.endswith("/pos_embed"):
            rows = value.shape[1]
            vit_params = loaded_params["encoder"] if "encoder" in loaded_params else loaded_params
            new = positions.fit(
                vit_params, grid or positions.square(shape[1] - 1, name), library, name
            )
            if new is not value:
                value = new
                note = f" (position embedding resized from {rows} to {shape[1]} rows)"
        if value.shape != shape:
            raise ValueError(
                f"{path}{why}: {name} has shape {value.shape}, the model needs {shape}"
            )
        wanted[name] = value.astype(wanted[name].dtype)
        report.append(f"{name} {value.shape}{note}")
    tree = traverse_util.unflatten_dict(wanted, sep="/")
    return tree.get("params", {}), tree.get("batch_stats", {}), report


def _load_start(path: Path) -> tuple[dict, dict, str | None]:
    """(params, batch_stats, library) of a file of ours, or of a ViT that a library published."""
    if path.suffix == ".safetensors":
        _, metadata = torch_files.read_safetensors(path)
        if metadata.get("format") == FORMAT:
            return *load_params(path), _library(metadata)
    state, library = published.to_timm(torch_files.read_state_dict(path), path)
    if "cls_token" not in state:
        raise ValueError(
            f"{path} is neither in this package's format nor a ViT as timm or transformers publish "
            "it; make a file with `python -m stormpsr_jax.weights import --kind=… --checkpoint=… "
            "--out=…`"
        )
    return *from_state_dict(state, "vit", path), library


def _library(metadata: Mapping[str, str]) -> str | None:
    """The library that the ViT of a file of ours was imported from, None if it was trained here."""
    known = {json.dumps(name): name for name in (published.TIMM, published.TRANSFORMERS)}
    return known.get(metadata.get("library", ""))


# --- Models that fit given parameters -------------------------------------------------------------


def build_spatial(params: Mapping, num_heads: int | None = None) -> spatial.SpatialEncoder:
    """The SpatialEncoder that `params` belong to."""
    return spatial.SpatialEncoder(
        **backbones.fields_of(params["encoder"], num_heads),
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

    Args:
      kind: vit, spatial, temporal or storm.
      params: parameters, for their shapes.
      heads: of the ViT; None as in `backbones.fields_of`.
      temporal_heads: None is 8.
      library: of kind vit, that published the parameters.

    Returns:
      A function of x, normalised: images (N, H, W, 3) -> {"features"} (vit) or {"embedding",
      "projection"} (spatial); embeddings (N, T, D) -> {"logits"} (temporal); clips (N, T, H, W, 3)
      -> {"logits"} (storm).
    """
    if kind == "vit":
        model = vit.ViT(**backbones.fields_of(params, heads, library))
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


def load_any(path: Path, kind: str) -> tuple[dict, dict, str | None]:
    """(params, batch_stats, library) of a foreign checkpoint or of a file of ours.

    The library is None of all but a published ViT.
    """
    if path.suffix == ".safetensors":
        arrays, metadata = torch_files.read_safetensors(path)
        if metadata.get("format") == FORMAT:
            tops = sorted({n.split("/")[1] for n in arrays if n.startswith("params/")})
            if LANDMARKS[kind] not in tops:
                only = " (only the transformer is one)" if kind == "temporal" else ""
                raise ValueError(f"{path} is no --kind={kind}: it holds {', '.join(tops)}{only}")
            check_ours(arrays, kind, path)
            return *load_params(path), _library(metadata)
    state, library = torch_files.read_state_dict(path), None
    if kind == "vit":
        state, library = published.to_timm(state, path)
    return *from_state_dict(state, kind, path), library


def _check_shapes(kind: str, params: Mapping, batch_stats: Mapping) -> None:
    """Raises an error of flax that names an array whose shape does not fit the others."""
    if kind == "temporal":
        _, rows, D = params["pos_embedding"].shape
        shape = (1, rows - 1, D)
    else:
        part = params["spatial"] if kind == "storm" else params
        encoder = part if kind == "vit" else part["encoder"]
        # One row of patches, as many as have a position.
        patch = backbones.fields_of(encoder, 1)["patch_size"]
        patches = encoder["pos_embed"].shape[1] - 1 if "pos_embed" in encoder else 1
        image = (patch, patch * patches, 3)
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
    library: str | None = None,
) -> dict[str, np.ndarray]:
    """Applies a model in evaluation mode and float32, some images or clips at a time.

    Args and outputs as in `forward`. A ViT's position embedding is resized to the images of x, as
    its library does. `chunk`: images, or clips of embeddings, computed at once.

    Raises:
      ValueError: the shape of x, or the number of heads, does not fit.
    """
    axes = {"vit": 4, "spatial": 4, "temporal": 3, "storm": 5}[kind]
    if x.ndim != axes or (axes > 3 and x.shape[-1] != 3) or 0 in x.shape:
        form = {3: "(N, T, D)", 4: "(N, H, W, 3)", 5: "(N, T, H, W, 3)"}[axes]
        raise ValueError(f"x has shape {x.shape}; --kind={kind} takes {form}")
    x = np.asarray(x, np.float32)
    if kind == "vit":
        params = _fit_grid(params, x, library)
    elif kind == "spatial":
        params = dict(params) | {"encoder": _fit_grid(params["encoder"], x)}
    elif kind == "storm":
        encoder = params["spatial"]
        encoder = dict(encoder) | {"encoder": _fit_grid(encoder["encoder"], x)}
        params = dict(params) | {"spatial": encoder}
        chunk = max(1, chunk // x.shape[1])
    function = jax.jit(forward(kind, params, heads, temporal_heads, library))
    params, batch_stats = jax.device_put((params, batch_stats))
    # GPUs and TPUs round the factors of a product to fewer digits unless told otherwise.
    with jax.default_matmul_precision("highest"):
        parts = [
            jax.device_get(function(params, batch_stats, x[i : i + chunk]))
            for i in range(0, len(x), chunk)
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _fit_grid(params: Mapping, x: np.ndarray, library: str | None = None) -> dict:
    """ViT parameters with the position embedding resized to images x (…, H, W, 3)."""
    if "pos_embed" not in params:
        return dict(params)
    patch = backbones.fields_of(params, 1)["patch_size"]
    grid = (x.shape[-3] // patch, x.shape[-2] // patch)
    return dict(params) | {"pos_embed": positions.fit(params, grid, library, "pos_embed")}


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    if path.suffix == ".npz":
        with files.replacing(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)
    else:
        write_safetensors(path, arrays)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 after a one-line error."""
    parser = OneLineParser(
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
        _check_shapes(args.kind, params, batch_stats)
        if args.command == "import":
            origin = {"library": library} if library else {}
            save_params(args.out, params, batch_stats, {"kind": args.kind} | origin)
        elif args.command == "export":
            state = to_state_dict(params, batch_stats, args.kind, args.checkpoint)
            _write_arrays(args.out, published.from_timm(state) if args.kind == "vit" else state)
        else:
            inputs = torch_files.read_npz(args.inputs)
            if "x" not in inputs:
                raise ValueError(f"{args.inputs} has no array x; it has: {', '.join(inputs)}")
            outputs = run(
                args.kind,
                params,
                batch_stats,
                inputs["x"],
                args.heads,
                args.temporal_heads,
                library=library,
            )
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


if __name__ == "__main__":
    sys.exit(main())
