"""Runs a config over values of some of its fields, and writes one table.

    python -m stormpsr_jax.sweep temporal.delta=40,80,160 temporal.sigma=15,45 --config=own
        --config.data.dir=DATA --workdir=runs/sweep [--seeds=3] [--from=WORKDIR] [--plan]
        [--devices_per_run=1] [--join]

Every combination of the values is a run. A stage is trained once for all runs that share it. The
seeds are --config.seed and those after it. As many runs go on at once as have devices of their own;
--join helps from another machine (docs/scale.md). What is finished is not run again: the same
command goes on where it was, and one with further values adds theirs. The table is WORKDIR/sweep.md
and sweep.json: of every stream the figures of the validation split, by which to choose, and those
of the test split, means over seeds ± standard deviation. Runs are in WORKDIR/seed_N/FIELD=VALUE…,
and what they print in a .log beside.
"""

from __future__ import annotations

from stormpsr_jax.base import files
from stormpsr_jax.experiments import command


def make_sweep(request: command.Request) -> None:
    """Runs what is missing of a sweep, and writes its table.

    Raises:
        ValueError: no such field, or a value that it cannot have; runs that failed.
    """
    # JAX takes a second to import: flags are read before.
    from stormpsr_jax.experiments import execute, sweep_plan
    from stormpsr_jax.experiments.result_tables import markdown

    values = sweep_plan.parse(request.words, request.config)
    runs = sweep_plan.runs_of(values, request.config, request.root, request.seeds)
    with execute.executed(list(dict.fromkeys(runs.values())), request) as done:
        made = {key: run for key, run in runs.items() if run in done}
        content = sweep_plan.content(made, request.seeds)
        text, path = markdown(content), request.root / "sweep.md"
        files.write_json(path.with_suffix(".json"), content)
        files.write_text(path, text)
        print(f"\n{text}\n{path}", flush=True)


if __name__ == "__main__":
    command.run(make_sweep, "sweep", __doc__, "FIELD=VALUE,VALUE")
