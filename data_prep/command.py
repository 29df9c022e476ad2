"""What the commands of data_prep have in common: flags, errors of one line, Ctrl-C."""

import argparse
import contextlib
import functools
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import absl.logging

from stormpsr_jax.base import cluster, memory
from stormpsr_jax.base.mistakes import lines_of, raise_all
from stormpsr_jax.media import framing, trees
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.trees import Tree
from stormpsr_jax.psr.cli import OneLineParser, fail_for

MAX_SIZE = 4096

Main = Callable[[Sequence[str] | None], int | None]


def command(interrupted: str = "; run the same command again, finished recordings are kept"):
    """Makes main(argv) a command: what goes wrong is one line `error: …` and exit code 2.

    Args:
        interrupted: what to say after Ctrl-C, whose exit code is 130.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            if argv is None:  # not called by somebody with a logging of his own
                logging.basicConfig(format="%(levelname)s: %(message)s")
                absl.logging.set_verbosity(absl.logging.INFO)
            try:
                memory.check_start()
                return main(argv) or 0
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                if os.environ.get("STORMPSR_TRACEBACK"):
                    raise
                fail_for(error)
            except KeyboardInterrupt:
                print(f"interrupted{interrupted}", file=sys.stderr)
                return 130

        return run

    return decorate


def new_parser(module: str, description: str) -> OneLineParser:
    """Returns a parser for `python -m data_prep.<module>`."""
    return OneLineParser(
        prog=f"python -m data_prep.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def at_least(low: int) -> Callable[[str], int]:
    """Returns a type for a flag: whole numbers from `low` on."""

    def parse(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    parse.__name__ = "whole number"  # in "invalid whole number value: 'x'"
    return parse


def add_shard_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of every command that makes clip shards."""
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="folder for the clip shards")
    add_workers_flags(parser, 2)
    add("--recordings", default="*", metavar="GLOB", help="make only these")


def add_workers_flags(parser: argparse.ArgumentParser, default: int) -> None:
    """Adds --workers and --ray, of which one may be given."""
    group = parser.add_mutually_exclusive_group()
    what = "processes (%(default)s)"
    group.add_argument("--workers", type=at_least(1), default=default, metavar="N", help=what)
    cluster.add_flag(group)


def add_remake_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --remake, of the commands whose recordings have labels and boxes in files."""
    parser.add_argument(
        "--remake",
        action="store_true",
        help="make recordings again whose labels, boxes or pictures have changed",
    )


def picture_size(text: str) -> int:
    """The type of --size: pixels that the patches of an encoder divide.

    There are encoders with patches of 8, 14 and 16 pixels.
    """
    value = int(text)
    if value < 8 or value > MAX_SIZE:
        raise argparse.ArgumentTypeError(f"{value} is not in 8…{MAX_SIZE}")
    if not _fits(value):
        low = next(size for size in range(value, 0, -1) if _fits(size))
        high = next(size for size in itertools.count(value) if _fits(size))
        raise argparse.ArgumentTypeError(
            f"{value} is a multiple neither of 8 nor of 14, the patches of an encoder would not "
            f"fill the picture; take {low} or {high}"
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


def add_picture_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say what becomes of a picture; see framing_of."""
    add = parser.add_argument
    add_size_flag(parser, 224)
    add("--aspect", choices=framing.ASPECTS, default="stretch", help="how it becomes a square")
    add("--crop", metavar="x0,y0,x1,y1", help="in 0..1: use this part of the picture")
    add("--quality", type=int, default=92, metavar="N", help="of the JPEG files (%(default)s)")


def framing_of(flags: argparse.Namespace) -> Framing:
    """Returns the framing that the flags ask for; ValueError if it is impossible."""
    try:
        x0, y0, x1, y1 = map(float, flags.crop.split(",")) if flags.crop else framing.WHOLE
    except ValueError as error:
        raise ValueError(f"--crop={flags.crop} is not four numbers x0,y0,x1,y1") from error
    return Framing((flags.size, flags.size), flags.aspect, (x0, y0, x1, y1), flags.quality)


def open_flag(flag: str, path: str) -> list[Tree]:
    """Returns the trees of a flag's folder or zip file; ValueError names the flag."""
    with open_downloads(flag, path) as found:
        return found


@contextlib.contextmanager
def open_downloads(
    flag: str,
    path: str,
    left_out: Iterable[str] = (),
    spare: Callable[[str], bool] = lambda name: False,
) -> Iterator[list[Tree]]:
    """Gives the trees of a flag's folder or zip file to a block that looks for its files there.

    What is wrong with zip files that are `spare` is in the log if the block does without them, and
    otherwise in its ValueError.

    Args:
        flag: its name.
        path: its value.
        left_out: names of folders that are not looked into.
        spare: says by its name of which zip file in the folder it is no error if it cannot be read.

    Raises:
        ValueError: names the flag; see trees.open_trees.
    """
    try:
        found, unread = trees.open_downloads(path, left_out, spare)
    except ValueError as error:
        raise ValueError(f"--{flag}: {error}") from error
    unread = [f"--{flag}: {line}" for line in unread]
    try:
        yield found
    except ValueError as error:
        raise_all([*lines_of(error), *unread])
    for line in unread:
        absl.logging.warning("left out: %s", line)
