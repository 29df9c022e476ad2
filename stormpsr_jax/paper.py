"""Makes the tables of the STORM-PSR paper, over seeds, beside the published figures.

    python -m stormpsr_jax.paper TABLE [TABLE …] --config=industreal --config.data.dir=DATA …
        --workdir=runs/paper [--seeds=3]

TABLE is all, or one of main (both streams, B1 to B3, recordings with and without errors), sampling
(KFS and KCAS switched off), clips (uniform, Gaussian, KCAS), t_f, window, backbones, finetune and
detector (AP@50 on test).

The config is that of a single run, which is the row of the whole method; the other rows differ from
it as the paper's do. Rows and tables that come to the same config share its run. The seeds are
--config.seed and those after it. The commands of the runs that are missing are printed, in order of
need, for xargs, job arrays or Ray jobs (docs/scale.md); once they have run, the same command prints
the tables. Results are in WORKDIR/tables/TABLE.md and .json, runs in WORKDIR/seed_N/VARIANT.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import message_of, tell
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.stages import config_flag

if TYPE_CHECKING:
    from stormpsr_jax.experiments.runs import Runs

# The runs of a command, and what gives the tables of those that are finished: each one's path
# below --workdir, without an ending, its content, and its text for people.
Plan = tuple["Runs", Callable[["Runs"], Iterable[tuple[str, Any, str]]]]


def plan(args: argparse.Namespace) -> Plan:
    """The runs and the tables that a command line names.

    Raises:
        ValueError: an unknown table, or one that the config cannot give.
    """
    # JAX takes a second to import: flags are read before.
    from stormpsr_jax.experiments import paper_plan, paper_results

    names = list(paper_plan.TABLES)
    tables = names if args.words == ["all"] else list(dict.fromkeys(args.words))
    unknown = [table for table in tables if table not in names]
    if unknown or not tables:
        what = f"{unknown[0]!r} is no table" if unknown else "TABLE is missing"
        raise ValueError(f"{what}; known are all, {', '.join(names)}")
    for table in tables:
        if missing := paper_plan.missing_stages(paper_plan.TABLES[table], args.config):
            raise ValueError(
                f"table {table} needs {', '.join(missing)}, which --config.stages leaves out"
            )
    runs = paper_plan.runs_of(tables, args.config, args.root, args.seeds)

    def made(runs: Runs) -> Iterator[tuple[str, Any, str]]:
        for table in tables:
            if any(variant in paper_plan.TABLES[table].variants for variant, _ in runs):
                content = paper_results.content(table, runs, args.seeds)
                yield f"tables/{table}", content, paper_results.markdown(content)

    return runs, made


def run(
    plan: Callable[[argparse.Namespace], Plan],
    module: str,
    description: str,
    word: str,
    config: str | None = None,
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
    args = config_flag.parse(parser, None)
    from stormpsr_jax.experiments.runs import missing  # JAX takes a second to import

    args.config = config_flag.typed(args.config)

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
        if len(waves) > 1:
            counts = ", then ".join(str(len(wave)) for wave in waves)
            tell("note", f"give the first {counts}: later ones take what earlier ones have made")
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


if __name__ == "__main__":
    run(plan, "stormpsr_jax.paper", __doc__, "TABLE")
