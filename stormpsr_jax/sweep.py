"""Runs a config over values of some of its fields, and writes one table.

    python -m stormpsr_jax.sweep temporal.delta=40,80,160 temporal.sigma=15,45 --config=own
        --config.data.dir=DATA --workdir=runs/sweep [--seeds=3] [--plan]

Every combination of the values is a run. A stage is trained once for all runs that share it. The
seeds are --config.seed and those after it. What is finished is not run again: the same command goes
on where it was, and one with further values adds theirs. The table is WORKDIR/sweep.md and
sweep.json: of every stream the figures of the validation split, by which to choose, and those of
the test split, means over seeds ± standard deviation. Runs are in WORKDIR/seed_N/FIELD=VALUE…, and
what they print in a .log beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from stormpsr_jax import files
from stormpsr_jax.experiments import command


def make_sweep(
    named: Sequence[str], config: ConfigDict, root: Path, seeds: Sequence[int], plan: bool
) -> None:
    """Runs what is missing of a sweep and writes its table.

    Args:
      named: FIELD=VALUE,VALUE… each.
      config: whose other fields stay as they are.
      root: folder of all runs and of the table.
      seeds: that every combination is trained with.
      plan: show what is left to run, and no more.

    Raises:
      ValueError: no such field, or a value that it cannot have; runs that failed.
    """
    # JAX takes a second to import: flags are read before.
    from stormpsr_jax.experiments import execute, sweep_plan
    from stormpsr_jax.experiments.result_tables import markdown

    runs = sweep_plan.runs_of(sweep_plan.parse(named, config), config, root, seeds)
    with execute.executed(list(dict.fromkeys(runs.values())), root, plan) as done:
        content = sweep_plan.content({key: run for key, run in runs.items() if run in done}, seeds)
        text = markdown(content)
        files.write_json(root / "sweep.json", content)
        files.write_text(root / "sweep.md", text)
        print(f"\n{text}\n{root / 'sweep.md'}", flush=True)


if __name__ == "__main__":
    command.define_flags()
    command.run(make_sweep)
