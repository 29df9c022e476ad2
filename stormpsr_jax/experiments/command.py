"""Commands about many runs: they print what is missing, and make the tables of what is finished."""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import message_of, tell
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.stages import config_flag

if TYPE_CHECKING:
    from stormpsr_jax.experiments.runs import Run

Runs = Mapping[tuple[str, int], "Run"]  # by (variant, seed), as `runs.planned` has them
# The runs of a command, and what gives the tables of those that are finished: each one's path
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
    """Runs the command `python -m MODULE WORD … --config=… …`.

    `plan` takes what was parsed, with `words`, `config`, `seeds` as a range, and `root`.
    """
    parser = OneLineParser(prog=f"python -m {module}", description=description)
    parser.add_argument("words", nargs="*", metavar=word, help="see above")
    config_flag.add_config(parser, config)
    add = parser.add_argument
    text = "folder of all runs and tables"
    add("--workdir", dest="root", required=True, type=Path, metavar="DIR", help=text)
    text = "how many seeds every row is trained with (%(default)s)"
    add("--seeds", type=_count, default=3, metavar="N", help=text)
    if takes_asd:
        text = "folder of detections of the test split from elsewhere: rows of it too"
        add("--asd", type=Path, metavar="DIR", help=text)
    args = config_flag.parse(parser, None)
    from stormpsr_jax.experiments.runs import missing  # JAX takes a second to import

    args.seeds = range(args.config.seed, args.config.seed + args.seeds)
    args.root = args.root.resolve()
    try:
        runs, tables = plan(args)
        waves = missing(runs.values())
        left = {made.folder for made in itertools.chain(*waves)}
        finished = {key: run for key, run in runs.items() if run.folder not in left}
        for name, content, text in tables(finished) if finished else ():
            path = args.root / f"{name}.md"
            path.parent.mkdir(exist_ok=True)
            files.write_json(path.with_suffix(".json"), content)
            files.write_text(path, text)
            print(f"\n{text}\n{path}", flush=True, file=sys.stderr if left else sys.stdout)
        if shared := sum(map(len, waves[:-1])):
            tell("note", f"the first {shared} make what others share: later ones have it then")
        for made in itertools.chain(*waves):
            print(shlex.join(["python", *made.command]))
    except (ValueError, OSError) as error:
        for line in message_of(error).splitlines():
            tell("error", line)
        sys.exit(2)


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value
