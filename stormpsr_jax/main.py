"""Trains both streams, recognises, scores: the stages named in config.stages, in order.

    python -m stormpsr_jax.main --config=synthetic --workdir=runs/synthetic

A finished stage is skipped, an interrupted one resumes, and one that depends on a change is made
again, so running the same command again is always right.
"""

from stormpsr_jax.base import interruption

if __name__ == "__main__":  # before the imports below, which take a second
    interruption.install()

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.base.errors import message_of, tell
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.stages import config_flag


def run(config: ConfigDict, workdir: Path, **options: Any) -> None:
    """Runs the stages of a config, as its file gives it, in a folder; see `stages.run.run`."""
    # JAX takes seconds to import: flags are read, and Ctrl-C is handled, before.
    from stormpsr_jax.stages.run import run

    run(config_flag.typed(config), workdir, **options)


def _steps(text: str) -> tuple[int, int]:
    try:
        first, last = map(int, text.split(","))
        if 1 <= first <= last:
            return first, last
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text} is not two step numbers, first,last from 1 on")


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m stormpsr_jax.main",
        description=__doc__,
    )
    config_flag.add_config(parser)
    add = parser.add_argument
    text = "folder of this run: checkpoints, predictions, report, model"
    add("--workdir", required=True, type=Path, metavar="DIR", help=text)
    add_remaking(parser)
    text = "several processes, which Slurm, Open MPI, GKE or a TPU pod started"
    add("--distributed", action="store_true", help=text)
    text = "host:port of process 0, for several processes started by hand"
    add("--coordinator", metavar="HOST:PORT", help=text)
    add("--num_processes", type=int, metavar="N", help="number of processes")
    add("--process_id", type=int, metavar="N", help="number of this process")
    text = "record a profile of these steps of every trained stage"
    add("--profile_steps", type=_steps, metavar="FIRST,LAST", help=text)
    return parser


def add_remaking(parser: OneLineParser) -> None:
    """Adds the flag that says what becomes of results that depend on a change."""
    what = "make again what depends on a change, and what other code has made: weights are lost"
    parser.add_argument("--remake", action="store_true", help=what)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; docs/start.md has the exit statuses."""
    args = config_flag.parse(_parser(), argv)
    with interruption.handled():
        _run_command(args)


def _run_command(args: argparse.Namespace) -> None:
    import jax

    from stormpsr_jax.training import hosts

    status = 1
    computing = []
    by_hand = (args.coordinator, args.num_processes, args.process_id)
    try:
        if args.distributed or any(value is not None for value in by_hand):
            hosts.connect(*by_hand)
            interruption.connected(jax.process_count())
        status = 2  # what is found before anything is computed is an error of config or data
        run(
            args.config,
            args.workdir,
            profile_steps=args.profile_steps,
            remake=args.remake,
            on_start=lambda: computing.append(True),
        )
    except SystemExit:
        raise
    except BaseException as error:
        expected = isinstance(error, ValueError | OSError | MemoryError | FloatingPointError)
        if computing or not isinstance(error, ValueError | OSError):
            status = 1
        with_traceback = not expected or bool(os.environ.get("STORMPSR_TRACEBACK"))
        if jax.distributed.is_initialized() and jax.process_count() > 1:
            hosts.fail(error, with_traceback, status)
        if with_traceback:
            raise
        for line in message_of(error).split("\n"):
            tell("error", line)
        sys.exit(status)


if __name__ == "__main__":
    main()
