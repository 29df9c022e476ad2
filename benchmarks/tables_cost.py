"""What all tables of the paper cost: hours and dollars of stormpsr_jax.paper, by its own plan.

    python benchmarks/tables_cost.py [--config=meccano] [--seeds=3] [--utilisation=0.3] …

The stages that the runs of the tables train are those of the command's own plan. FLOPs are the
compiler's count of a step of each, with its window and networks, as in training_cost.py, which has
the assumptions and their flags. Nothing is trained. Only of an LSTM they are counted by hand: 8 a
weight and frame. Runs go one after the other, as in the command.
"""

import dataclasses
import fnmatch
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from training_cost import (
    FRAMES,
    TRAINED,
    Counter,
    Stage,
    assumptions,
    config_of,
    hours,
    platforms_of,
)

from stormpsr_jax.experiments import paper_plan
from stormpsr_jax.experiments.runs import Run, expected_stages
from stormpsr_jax.stages import order, provenance

PLATFORMS = ("1 A100", "1 H100", "8 H100")
# What says how many steps there are and which rows are drawn, and not what a step computes.
SAME_STEP = ("seed", "*.steps", "pretrain.t_f", "temporal.sampling")


class Costs:
    """The stages of runs; a step that computes the same is counted once."""

    def __init__(self, counter: Counter):
        self._counter, self._known = counter, {}

    def stage(self, run: Run, name: str) -> Stage | None:
        """What a stage of a run takes; None if it takes no time worth the name."""
        config = run.config
        if name in TRAINED:
            return self._trained(config, name) if config[name].steps else None
        if name == "embed":
            return self._counter.embed(config)
        if name == "predict":
            used = [stage for stage in ("temporal", "detector") if stage in config.stages]
            return self._counter.predict(config, [self._trained(config, stage) for stage in used])
        return None

    def _trained(self, config, name: str) -> Stage:
        fields = tuple(
            (field, repr(value))
            for field, value in provenance.flat_config(config).items()
            if field.startswith(order.STAGES[order.names().index(name)].fields)
            and not any(fnmatch.fnmatchcase(field, same) for same in SAME_STEP)
        )
        if (name, fields) not in self._known:
            self._known[name, fields] = self._counter.trained(config, name)
        return dataclasses.replace(self._known[name, fields], steps=config[name].steps)


def hours_of(left: Mapping[Run, Iterable[str]], costs: Costs, args) -> dict[str, float]:
    """By platform the hours of what is left of some runs."""
    platforms = platforms_of(args)
    found = [costs.stage(run, name) for run, names in left.items() for name in names]
    stages = [stage for stage in found if stage]
    stages += [stage.evaluations for stage in stages if stage.evaluations]
    return {
        name: sum(hours(stage, platforms[name], args) for stage in stages) for name in PLATFORMS
    }


def main() -> None:
    parser = assumptions(__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="That every row is trained with.")
    args = parser.parse_args()
    config, platforms = config_of(args), platforms_of(args)
    config.data.dir = "data"
    with tempfile.TemporaryDirectory() as folder:
        costs = Costs(Counter(config, FRAMES[args.config], Path(folder)))
        root = Path(folder, "runs")

        def left_of(tables: Iterable[str]) -> dict[Run, list[str]]:
            runs = paper_plan.runs_of(list(tables), config, root, range(args.seeds))
            return expected_stages(list(dict.fromkeys(runs.values())))

        everything = left_of(paper_plan.TABLES)
        head = " | ".join(f"{name}, hours" for name in PLATFORMS)
        print(f"| run, of one seed | makes | {head} |\n|---|---|{'---|' * len(PLATFORMS)}")
        for run, stages in everything.items():
            if run.config.seed == config.seed:
                cells = hours_of({run: stages}, costs, args).values()
                print(f"| {run.folder.name} | {', '.join(stages)} | {_row(cells)} |", flush=True)
        print(f"\n| with {args.seeds} seeds | runs | {head} |\n|---|---|{'---|' * len(PLATFORMS)}")
        for table in paper_plan.TABLES:
            left = left_of([table])
            print(f"| {table} alone | {len(left)} | {_row(hours_of(left, costs, args).values())} |")
        total = hours_of(everything, costs, args)
        print(f"| all | {len(everything)} | {_row(total.values())} |")
        dollars = [h * platforms[n].devices * platforms[n].dollars for n, h in total.items()]
        print(f"| all, dollars | | {' | '.join(f'{d:,.0f}' for d in dollars)} |")
        first, stages = next(iter(everything.items()))
        single = hours_of({first: stages}, costs, args)
        rest = [total[name] - single[name] for name in PLATFORMS]
        print(f"| all, with --from a single run | {len(everything)} | {_row(rest)} |")


def _row(found: Iterable[float]) -> str:
    return " | ".join(f"{value:.1f}" for value in found)


if __name__ == "__main__":
    main()
