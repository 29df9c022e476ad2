"""What the commands of data_prep have in common: flags, errors of one line, Ctrl-C."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import absl.logging

from stormpsr_jax.base import installed
from stormpsr_jax.base.interruption import end_with_parent
from stormpsr_jax.media import framing
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.psr.cli import OneLineParser, fail_for
from stormpsr_jax.recordings.procedure import load_procedure

MAX_SIZE = 4096
RENDERER = ("trimesh", "numba")


def command(
    module: str,
    text: str,
    add_flags: Callable[[argparse.ArgumentParser], None],
    act: Callable[..., Any],
    *,
    failed: Callable[[Any], bool] = lambda result: False,
    renders: bool = False,
    interrupted: str = "; run the same command again, finished recordings are kept",
) -> Callable[..., int]:
    """Makes main(argv) of `python -m data_prep.<module>`, which returns an exit code.

    What goes wrong is one line `error: …` and exit code 2; that of Ctrl-C is 130. `act` gets the
    flags by name, but for what `_arguments` says; where `failed` says so of its result, the code is
    1.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        if argv is None:  # not called by somebody with a logging of his own
            logging.basicConfig(format="%(levelname)s: %(message)s")
            absl.logging.set_verbosity(absl.logging.INFO)
        try:
            end_with_parent()
            parser = OneLineParser(prog=f"python -m data_prep.{module}", description=text)
            add_flags(parser)
            flags = parser.parse_args(argv)
            if renders:
                installed.check_extra("synthetic", RENDERER, f"data_prep.{module}")
            return int(failed(act(**_arguments(flags))))
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if os.environ.get("STORMPSR_TRACEBACK"):
                raise
            fail_for(error)
        except KeyboardInterrupt:
            print(f"interrupted{interrupted}", file=sys.stderr)
            return 130

    return main


def _arguments(flags: argparse.Namespace) -> dict[str, Any]:
    """The flags by name: `workers` may be the cluster of --ray, `procedure` has been read."""
    given = vars(flags)
    if cluster := given.pop("ray", None):
        given["workers"] = cluster
    if given.get("procedure") is not None:
        given["procedure"] = load_procedure(given["procedure"])
    if "aspect" in given:
        given["pad_if_mixed"] = not given["aspect"]
        given["framing"] = framing_of(*map(given.pop, ("size", "aspect", "crop")))
    return given


def at_least(low: int) -> Callable[[str], int]:
    """Returns a type for a flag: whole numbers from `low` on."""

    def parse(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    parse.__name__ = "whole number"  # in "invalid whole number value: 'x'"
    return parse


def add_shard_flags(parser: argparse.ArgumentParser, ray: bool = False) -> None:
    """Adds the flags of every command that makes clip shards."""
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="folder for the clip shards")
    group = parser.add_mutually_exclusive_group()
    what = "processes (%(default)s)"
    group.add_argument("--workers", type=at_least(1), default=2, metavar="N", help=what)
    if ray:
        group.add_argument("--ray", metavar="HOST:PORT", help="make them on a Ray cluster")
    add("--recordings", default="*", metavar="GLOB", help="make only these")


def picture_size(text: str) -> int:
    """The type of --size: pixels that the patches of an encoder, of 8, 14 or 16, divide."""
    value = int(text)
    if not 8 <= value <= MAX_SIZE:
        raise argparse.ArgumentTypeError(f"{value} is not in 8…{MAX_SIZE}")
    if not _fits(value):
        near = " or ".join(str(size) for size in range(value - 7, value + 8) if _fits(size))
        raise argparse.ArgumentTypeError(
            f"{value} is a multiple neither of 8 nor of 14, the patches of an encoder would not "
            f"fill the picture; take {near}"
        )
    return value


picture_size.__name__ = "whole number"  # in "invalid whole number value: 'x'"


def _fits(size: int) -> bool:
    return size % 8 == 0 or size % 14 == 0


def add_size_flag(parser: argparse.ArgumentParser, default: int) -> None:
    """Adds --size, of all commands that make clip shards."""
    parser.add_argument(
        "--size",
        type=picture_size,
        default=default,
        metavar="N",
        help="height and width in pixels, a multiple of 8 or 14 (%(default)s)",
    )


def add_recording_flags(parser: argparse.ArgumentParser, ray: bool = False) -> None:
    """Adds the flags of every command whose recordings are pictures, labels and boxes in files."""
    add_shard_flags(parser, ray)
    add_size_flag(parser, 224)
    add = parser.add_argument
    text = "how it becomes a square: pad where pictures differ in shape, else stretch"
    add("--aspect", choices=framing.ASPECTS, help=text)
    add("--crop", metavar="x0,y0,x1,y1", help="in 0..1: use this part of the picture")
    text = "make recordings again whose labels, boxes or pictures have changed"
    add("--remake", action="store_true", help=text)


def framing_of(size: int, aspect: str | None, crop: str | None) -> Framing:
    """Returns what the flags of a picture ask for; ValueError names the one that is wrong."""
    try:
        x0, y0, x1, y1 = map(float, crop.split(",")) if crop else framing.WHOLE
    except ValueError as error:
        raise ValueError(f"--crop={crop} is not four numbers x0,y0,x1,y1") from error
    return Framing((size, size), aspect or framing.ASPECTS[0], (x0, y0, x1, y1))
