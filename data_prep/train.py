"""Trains a model of your product, from its CAD files, from labelled videos, or from both.

    stormpsr train --procedure=pump.json --meshes=MESHES --videos=DIR --labels=DIR --workdir=RUN
    stormpsr train --procedure=pump.json --meshes=MESHES --workdir=RUN
    stormpsr train --procedure=pump.json --videos=DIR --labels=DIR --workdir=RUN

With both a model knows most of right and wrong; CAD files alone are for before there is a video,
and videos alone for where there is no CAD (docs/own-product.md). Boxes of the product in some
frames (--boxes) help in either case. It prints the one or two commands that it stands for, and
gives them: the first makes data of the videos, and the second trains, recognises the test
recordings, reports and writes RUN/model. The same command goes on after an interruption. After a
change of labels, videos or boxes give --remake too.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import own
from stormpsr_jax.base import folders, installed
from stormpsr_jax.psr.cli import OneLineParser, fail_for
from stormpsr_jax.recordings.procedure import load_procedure

SIZE = 64  # pixels of the pictures that the configs `own` and `cad` are made for
OF_VIDEOS = ("splits", "aspect", "crop", "words", "labels_fps")  # flags of data_prep.own


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="stormpsr train", description=__doc__)
    add = parser.add_argument
    add("--procedure", required=True, metavar="FILE", help="of the product")
    add("--workdir", required=True, type=Path, metavar="DIR", help="folder of the run")
    add("--meshes", metavar="DIR", help="a CAD file for each part")
    add("--videos", metavar="DIR", help="of its assembly; a handful, better ten or more")
    add("--labels", metavar="DIR", help="what stormpsr label, or another tool, says of them")
    add("--boxes", metavar="DIR", help="where the product is in some of their frames")
    add("--data", type=Path, metavar="DIR", help="folder for the data of videos (RUN/recordings)")
    for name in OF_VIDEOS:
        add(f"--{name}", help="as of data_prep.own")
    add("--remake", action="store_true", help="make again what depends on a change")
    add("--dry_run", action="store_true", help="print the commands, and leave it at that")
    return parser


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and --config.FIELD=VALUE of the training; a line and exit code 2 if others."""
    parser = _parser()
    args, fields = parser.parse_known_args(argv)
    if others := [word for word in fields if not word.startswith("--config.")]:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return args, fields


def commands(args: argparse.Namespace, fields: Sequence[str] = ()) -> list[list[str]]:
    """The modules to run, with their arguments, in order; ValueError: the flags do not fit.

    `fields` are --config.FIELD=VALUE of the training.
    """
    if args.videos is None and args.meshes is None:
        raise ValueError("give --meshes=DIR, or --videos=DIR with --labels=DIR, or best all three")
    if args.videos is not None and args.labels is None:
        page = f"stormpsr label {args.videos} --procedure={args.procedure} --labels=labels"
        raise ValueError(f"--videos without --labels=DIR; label them first: {page}")
    for name in ("labels", "boxes", "data", *OF_VIDEOS):
        if args.videos is None and getattr(args, name) is not None:
            raise ValueError(f"--{name} is of --videos=DIR: give these too")
    again = ["--remake"] * args.remake
    data, made = args.data or args.workdir / "recordings", []
    if args.videos is not None:
        flags = {name: getattr(args, name) for name in ("videos", "labels", "procedure", "boxes")}
        flags |= {"out": data, "size": SIZE, **{name: getattr(args, name) for name in OF_VIDEOS}}
        given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        made = [["data_prep.own", *given, *again]]
    config = {"config": "own" if args.boxes is None else "own:boxes", "config.data.dir": data}
    if args.meshes is not None:
        folders.require(Path(args.meshes), "--meshes", "")
        config = {"config": "cad", "config.procedure": args.procedure}
        config |= {"config.data.synthetic.meshes": args.meshes}
    if args.meshes is not None and made:
        fps = load_procedure(args.procedure).fps
        config |= {"config.data.synthetic.fps": f"{fps:g}", "config.data.extra": data}
    given = [f"--{name}={value}" for name, value in config.items()]
    return [*made, ["stormpsr_jax.main", *given, f"--workdir={args.workdir}", *again, *fields]]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    args, fields = parse(argv)
    try:
        load_procedure(args.procedure)
        given = commands(args, fields)
        if args.meshes is not None:
            installed.check_extra("synthetic", ("trimesh", "numba"), "--meshes")
    except (ValueError, OSError) as error:
        fail_for(error)
    for module, *words in given:
        print("$", shlex.join(["python", "-m", module, *words]), flush=True)
    if args.dry_run:
        return 0
    *prepare, (module, *words) = given
    for _, *of_own in prepare:
        if status := own.main(of_own):
            return status
    os.execv(sys.executable, [sys.executable, "-m", module, *words])


if __name__ == "__main__":
    sys.exit(main())
