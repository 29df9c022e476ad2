"""Makes the tables of the STORM-PSR paper, over seeds, beside the published figures.

    python -m stormpsr_jax.paper TABLE [TABLE …] --config=industreal --config.data.dir=DATA …
        --workdir=runs/paper [--seeds=3] [--asd=DETECTIONS]

TABLE is all, or one of main (both streams, B1 to B3, recordings with and without errors), sampling
(KFS and KCAS switched off), clips (uniform, Gaussian, KCAS), t_f, window, backbones, finetune,
detector (AP@50 on test) and speed (frames a second on this machine).

With --asd, prediction files of a detector on the test split, such as IndustReal's authors publish,
each row that needs detections is there a second time with these, by the settings of the papers; the
config then needs no stage 'detector'.

The config is that of a single run, which is the row of the whole method; the other rows differ from
it as the paper's do. Rows and tables that come to the same config share its run. The seeds are
--config.seed and those after it. The commands of the runs that are missing are printed, in order of
need, for xargs, job arrays or Ray jobs (docs/scale.md); once they have run, the same command prints
the tables. Results are in WORKDIR/tables/TABLE.md and .json, runs in WORKDIR/seed_N/VARIANT.
"""

import argparse
from collections.abc import Iterator
from typing import Any

from stormpsr_jax.experiments import command


def plan(args: argparse.Namespace) -> command.Plan:
    """The runs and the tables that a command line names.

    Raises:
        ValueError: an unknown table, or one that the config cannot give.
    """
    # JAX takes a second to import: flags are read before.
    from stormpsr_jax.experiments import paper_plan, paper_results
    from stormpsr_jax.experiments.paper_results import markdown

    known = list(paper_plan.TABLES)
    tables = known if args.words == ["all"] else list(dict.fromkeys(args.words))
    unknown = [table for table in tables if table not in known]
    if unknown or not tables:
        what = f"{unknown[0]!r} is no table" if unknown else "TABLE is missing"
        raise ValueError(f"{what}; known are all, {', '.join(known)}")
    for table in tables:
        given = args.asd is not None
        if missing := paper_plan.missing_stages(paper_plan.TABLES[table], args.config, given):
            raise ValueError(
                f"table {table} needs {', '.join(missing)}, which --config.stages leaves out"
            )
    runs = paper_plan.runs_of(tables, args.config, args.root, args.seeds)
    if args.asd is not None:
        paper_results.check_given(args.asd, next(iter(runs.values())))

    def made(runs: command.Runs) -> Iterator[tuple[str, Any, str]]:
        for table in tables:
            if any(variant in paper_plan.TABLES[table].variants for variant, _ in runs):
                found = paper_results.content(table, runs, args.seeds, args.asd)
                yield f"tables/{table}", found, markdown(found)

    return runs, made


if __name__ == "__main__":
    command.run(plan, "stormpsr_jax.paper", __doc__, "TABLE", takes_asd=True)
