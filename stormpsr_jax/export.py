"""A trained model as ONNX, in a model folder that needs no flax.

    python -m stormpsr_jax.export --model=MODEL --format=onnx --out=DIR
    python -m stormpsr_jax.export --model=MODEL --format=onnx --int8 --out=DIR

MODEL is a model folder, a work folder that has one, or demo. DIR is made; it is a model folder for
`recognise` and `load_model`, which run it by onnxruntime (docs/recognise.md). What each output
differs from the model's by is printed, and stands in DIR/model.json. With --int8, products of
matrices are of 8-bit numbers: recognise recordings with both, and compare.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stormpsr_jax.psr.cli import OneLineParser, fail_for
from stormpsr_jax.serving.onnx_networks import PROGRAM


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or ends with status 2 after a line of what is wrong."""
    parser = OneLineParser(
        prog="python -m stormpsr_jax.export",
        description=__doc__,
    )
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help="a model folder, a work folder, or demo")
    what = "modules, by commas, of a temporal network of your own: loading the model executes them"
    add("--modules", type=lambda text: (*text.split(","),), default=(), metavar="NAME", help=what)
    add("--format", required=True, choices=(PROGRAM,), help="what to write")
    add("--int8", action="store_true", help="products of matrices of 8-bit numbers")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    args = parser.parse_args(argv)
    try:
        from stormpsr_jax.serving.exporting import export_model

        made = export_model(args.model, args.out, int8=args.int8, modules=args.modules)
    except (ValueError, OSError, MemoryError) as error:
        if os.environ.get("STORMPSR_TRACEBACK"):
            raise
        fail_for(error)
    for line in made:
        print(line)
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
