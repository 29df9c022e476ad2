"""Commands that make many runs: their flags, their plan of runs, their tables, Ctrl-C."""

from __future__ import annotations

import argparse
import itertools
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import message_of, tell
from stormpsr_jax.base.interruption import EXIT_INTERRUPTED, EXIT_RESTART
from stormpsr_jax.main import add_remaking
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.stages import config_flag

if TYPE_CHECKING:
    from stormpsr_jax.experiments.runs import Run

Runs = Mapping[tuple[str, int], "Run"]  # by (variant, seed), as `runs.planned` has them
# The runs of a command, and what gives the tables of those that went to their end: each one's path
# below --workdir, without an ending, its content, and its text for people.
Plan = tuple[Runs, Callable[[Runs], Iterable[tuple[str, Any, str]]]]


def run(
    plan: Callable[[argparse.Namespace], Plan],
    module: str,
    description: str,
    word: str,
    config: str | None = None,
    *,
    takes_asd: bool = False,
) -> None:
    """Runs the command `python -m MODULE WORD … --config=… …`, which makes what is missing.

    `plan` takes what was parsed, with `words`, `config`, `seeds` as a range, and `root`.
    """
    parser = OneLineParser(prog=f"python -m {module}", description=description)
    parser.add_argument("words", nargs="*", metavar=word, help="see above")
    config_flag.add_config(parser, config)
    add = parser.add_argument
    what = "folder of all runs and tables"
    add("--workdir", dest="root", required=True, type=Path, metavar="DIR", help=what)
    what = "how many seeds every row is trained with (%(default)s)"
    add("--seeds", type=_whole(1), default=3, metavar="N", help=what)
    add_remaking(parser)
    add("--plan", action="store_true", help="print the commands that are missing, and end")
    what = "devices of each run; as many runs as have their own go on at once. 0: all (%(default)s)"
    add("--devices_per_run", type=_whole(0), default=1, metavar="N", help=what)
    if takes_asd:
        what = "folder of detections of the test split from elsewhere: rows of it too"
        add("--asd", type=Path, metavar="DIR", help=what)
    args = config_flag.parse(parser, None)
    from stormpsr_jax.experiments import execute  # JAX takes a second to import
    from stormpsr_jax.experiments.runs import missing

    args.seeds = range(args.config.seed, args.config.seed + args.seeds)
    args.root, flags = args.root.resolve(), ["--remake"] * args.remake
    signal.signal(signal.SIGTERM, _stopped)
    try:
        runs, tables = plan(args)
        waves = missing(runs.values())
        if args.plan:
            if shared := sum(map(len, waves[:-1])):
                tell("note", f"the first {shared} make what others share: later ones have it then")
            for made in itertools.chain(*waves):
                print(shlex.join(["python", *made.command, *flags]))
            return
        with files.only_writer(args.root / "lock", args.root, "--workdir"):
            failed = execute.make_all(waves, args.devices_per_run, flags)
            finished = {key: run for key, run in runs.items() if run not in failed}
            for name, content, text in tables(finished):
                path = args.root / f"{name}.md"
                path.parent.mkdir(exist_ok=True)
                files.write_json(path.with_suffix(".json"), content)
                files.write_text(path, text)
                print(f"\n{text}\n{path}", flush=True)
        if failed:
            count = f"{len(failed)} of {len({*runs.values()})}"
            raise execute.RunsFailed(f"{count} runs failed, and are in no table")
    except (ValueError, OSError, MemoryError) as error:
        for line in message_of(error).splitlines():
            tell("error", line)
        sys.exit(1 if isinstance(error, execute.RunsFailed | MemoryError) else 2)
    except KeyboardInterrupt as stop:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(EXIT_RESTART if stop.args else EXIT_INTERRUPTED)


def _whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def _stopped(*_: object) -> None:
    """After SIGTERM: ends like Ctrl-C, with the status by which a scheduler begins it again."""
    raise KeyboardInterrupt("SIGTERM")
