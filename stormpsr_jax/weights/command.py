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

from collections.abc import Sequence
from pathlib import Path

import flax
import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import tell
from stormpsr_jax.networks import vit_published
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.weights import torch_files
from stormpsr_jax.weights.forward import run
from stormpsr_jax.weights.parameters import KINDS, load_any, save_params, write_safetensors
from stormpsr_jax.weights.torch_layout import to_state_dict


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
                state = vit_published.from_timm(state)
            _write_arrays(args.out, state)
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
