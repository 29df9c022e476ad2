"""Runs a config over values of some of its fields, and writes one table.

    python -m stormpsr_jax.sweep temporal.delta=40,80,160 temporal.sigma=15,45 --config=own
        --config.data.dir=DATA --workdir=runs/sweep [--seeds=3] [--plan] [--devices_per_run=1]

Every combination of the values is a run. The seeds are --config.seed and those after it. As many
runs go on at once as have devices of their own; --plan prints the commands that are missing, for
other machines (docs/scale.md). What is finished is not run again: the same command goes on where it
was, and one with further values adds theirs. The table is WORKDIR/sweep.md and sweep.json: of every
stream the figures of the validation split, by which to choose, and those of the test split, means
over seeds ± standard deviation. Runs are in WORKDIR/seed_N/FIELD=VALUE…, and what they print in a
.log beside.
"""

import argparse
from typing import Any

from stormpsr_jax.experiments import command


def plan(args: argparse.Namespace) -> command.Plan:
    """The runs of a sweep, and its table.

    Raises:
        ValueError: no such field, or a value that it cannot have.
    """
    # JAX takes a second to import: flags are read before.
    from stormpsr_jax.experiments import sweep_plan
    from stormpsr_jax.experiments.result_tables import markdown

    values = sweep_plan.parse(args.words, args.config)
    runs = sweep_plan.runs_of(values, args.config, args.root, args.seeds)

    def made(runs: command.Runs) -> list[tuple[str, Any, str]]:
        found = sweep_plan.content(runs, args.seeds)
        return [("sweep", found, markdown(found))]

    return runs, made


if __name__ == "__main__":
    command.run(plan, "stormpsr_jax.sweep", __doc__, "FIELD=VALUE,VALUE")
