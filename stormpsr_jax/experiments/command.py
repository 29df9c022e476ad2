"""What the commands that make many runs have in common: flags, mistakes in a line, Ctrl-C."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from stormpsr_jax.base.errors import message_of, tell
from stormpsr_jax.base.interruption import EXIT_INTERRUPTED, EXIT_RESTART
from stormpsr_jax.main import add_remaking, folders
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.stages import config_flag


@dataclasses.dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        words: without the flags.
        config: of one run.
        root: folder of all runs and tables.
        seeds: that every row is trained with: that of the config and those after it.
        others: work folders whose finished stages are taken over where they are the very same.
        plan: show what is left to run, and no more.
        devices_per_run: of this machine, each run at a time has so many; 0: all of them.
        join: help another command that is at work in `root`.
        asd: prediction files of detections of the test split, from elsewhere; None without.
        flags: that every run is given too.
    """

    words: tuple[str, ...]
    config: ConfigDict
    root: Path
    seeds: range
    others: tuple[Path, ...] = ()
    plan: bool = False
    devices_per_run: int = 1
    join: bool = False
    asd: Path | None = None
    flags: tuple[str, ...] = ()


Make = Callable[[Request], None]


class RunsFailed(ValueError):
    """Runs have failed, each of which has said why; no mistake of the command."""


def _seeds(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


def run(make: Make, name: str, description: str, word: str, *, takes_asd: bool = False) -> None:
    """Runs the command `python -m stormpsr_jax.<name> WORD … --config=… …`; it may have --asd."""
    parser = OneLineParser(
        prog=f"python -m stormpsr_jax.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar=word, help="see above")
    config_flag.add_config(parser)
    add = parser.add_argument
    what = "folder of all runs and tables"
    add("--workdir", required=True, type=Path, metavar="DIR", help=what)
    what = "how many seeds every row is trained with (%(default)s)"
    add("--seeds", type=_seeds, default=3, metavar="N", help=what)
    what = "work folders whose stages are taken over, if the very same"
    add("--from", dest="others", type=folders, default=(), metavar="DIR,DIR", help=what)
    add_remaking(parser)
    add("--plan", action="store_true", help="show what is left to run, and end")
    what = "devices of each run; as many runs as have their own go on at once. 0: all (%(default)s)"
    add("--devices_per_run", type=_count, default=1, metavar="N", help=what)
    add("--join", action="store_true", help="help another command in DIR, with other devices")
    if takes_asd:
        what = "folder, or zip file, of detections of the test split from elsewhere: rows of it too"
        add("--asd", type=Path, metavar="DIR", help=what)
    args = config_flag.parse(parser, None)
    seed = args.config.seed
    request = Request(
        tuple(args.words),
        args.config,
        args.workdir.resolve(),
        range(seed, seed + args.seeds),
        tuple(folder.resolve() for folder in args.others),
        args.plan,
        args.devices_per_run,
        args.join,
        args.asd if takes_asd else None,
        tuple(f"--{name}={vars(args)[name]}" for name in ("remake", "keep") if vars(args)[name]),
    )
    signal.signal(signal.SIGTERM, _stopped)
    try:
        make(request)
    except (ValueError, OSError, MemoryError) as error:
        for line in message_of(error).splitlines():
            tell("error", line)
        sys.exit(1 if isinstance(error, RunsFailed | MemoryError) else 2)
    except KeyboardInterrupt as stop:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(EXIT_RESTART if stop.args else EXIT_INTERRUPTED)


def _stopped(*_: object) -> None:
    """After SIGTERM: ends like Ctrl-C, with the status by which a scheduler begins it again."""
    raise KeyboardInterrupt("SIGTERM")
