"""What all tables of the paper cost: hours and dollars of stormpsr_jax.paper, by its own plan.

    python benchmarks/tables_cost.py [--config=meccano] [--seeds=3] [--utilisation=0.3] …

The stages that the runs of the tables train are those of the command's own plan. FLOPs are the
compiler's count of a step of each, with its window and networks, as in training_cost.py, which has
the assumptions and their flags. Nothing is trained. Only of an LSTM they are counted by hand: 8 a
weight and frame. Runs go side by side, each on a device of its own, as in the command: a run whose
next stages others are making gives its device to the next one.
"""

import dataclasses
import fnmatch
import tempfile
from collections.abc import Iterable
from pathlib import Path

import training_cost
from training_cost import (
    FRAMES,
    TRAINED,
    Counter,
    Platform,
    assumptions,
    config_of,
    hours,
    platforms_of,
)

from stormpsr_jax.experiments import paper_plan
from stormpsr_jax.experiments.runs import Run, identities
from stormpsr_jax.stages import order, provenance
from stormpsr_jax.stages.stage import Stage

DEVICES = ("1 A100", "1 H100", "1 v5e")
SIDE_BY_SIDE = (("1 A100", 1), ("1 A100", 8), ("1 H100", 1), ("1 H100", 8), ("1 v5e", 16))
PARTS = ("pretrain", "embed", "temporal", "finetune", "detector", "detections", "predict")
ALL = list(paper_plan.TABLES)
# What says how many steps there are and which rows are drawn, and not what a step computes.
SAME_STEP = ("seed", "*.steps", "pretrain.t_f", "temporal.sampling")


class Costs:
    """The stages of runs; a step that computes the same is counted once."""

    def __init__(self, counter: Counter):
        self._counter, self._known = counter, {}

    def stage(self, run: Run, name: str) -> training_cost.Stage | None:
        """What a stage of a run takes; None if it takes no time worth the name."""
        config = run.config
        if name in TRAINED:
            return self._trained(config, name) if config[name].steps else None
        if name == "embed":
            return self._counter.embed(config)
        if name == "detections":
            return self._counter.detections(self._trained(config, "detector"))
        if name == "predict":
            return self._counter.predict(config, self._trained(config, "temporal"))
        return None

    def _trained(self, config, name: str) -> training_cost.Stage:
        fields = tuple(
            (field, repr(value))
            for field, value in provenance.flat_config(config).items()
            if field.startswith(order.STAGES[order.names().index(name)].fields)
            and not any(fnmatch.fnmatchcase(field, same) for same in SAME_STEP)
        )
        if (name, fields) not in self._known:
            self._known[name, fields] = self._counter.trained(config, name)
        return dataclasses.replace(self._known[name, fields], steps=config[name].steps)


class Plan:
    """Hours of runs, as `paper` makes them: each stage once, by whichever run comes to it first."""

    def __init__(self, runs: Iterable[Run], costs: Costs, args):
        """Takes the runs in the order of the command."""
        self._runs, self._costs, self._args = list(runs), costs, args
        self._identities = {run: identities(run) for run in self._runs}

    def _hours(self, run: Run, name: str, platform: Platform) -> tuple[float, float]:
        """Of a stage, and of its evaluations."""
        stage = self._costs.stage(run, name)
        if stage is None:
            return 0.0, 0.0
        judged = hours(stage.evaluations, platform, self._args) if stage.evaluations else 0.0
        return hours(stage, platform, self._args), judged

    def parts(self, platform: Platform) -> dict[str, float]:
        """Hours by stage, all runs one after the other; 0 of what takes none worth the name."""
        found, made = dict.fromkeys((*PARTS, "evaluations"), 0.0), set()
        for run in self._runs:
            for stage in order.chosen(run.context):
                if self._identities[run][stage.name] not in made and stage.name in PARTS:
                    made.add(self._identities[run][stage.name])
                    own, judged = self._hours(run, stage.name, platform)
                    found[stage.name] += own
                    found["evaluations"] += judged
        return found

    def side_by_side(self, platform: Platform, places: int) -> float:
        """Hours until all runs are made in so many places, each on a whole platform."""
        left = {run: list(order.chosen(run.context)) for run in self._runs}
        after = {(run, s): s.after(run.context) for run in left for s in left[run]}
        made: set[str] = set()
        at_work: dict[int, tuple[float, Run, Stage]] = {}  # place: when it ends what
        kept: dict[int, Run] = {}  # the run that a place had last
        now = 0.0
        while any(left.values()) or at_work:
            for place in [place for place in range(places) if place not in at_work]:
                busy = {run for _, run, _ in at_work.values()}
                locked = {self._identities[run][stage.name] for _, run, stage in at_work.values()}
                own = [kept[place]] if place in kept else []
                for run in [run for run in [*own, *self._runs] if run not in busy]:
                    of = self._identities[run]
                    left[run] = [s for s in left[run] if of[s.name] not in made]
                    ready = [s for s in left[run] if not {*left[run]}.intersection(after[run, s])]
                    free = [s for s in ready if of[s.name] not in locked]
                    if free:
                        needed = sum(self._hours(run, free[0].name, platform))
                        at_work[place], kept[place] = (now + needed, run, free[0]), run
                        break
            now = min(end for end, _, _ in at_work.values())
            for place in [place for place, (end, _, _) in at_work.items() if end == now]:
                _, run, stage = at_work.pop(place)
                left[run].remove(stage)
                made.add(self._identities[run][stage.name])
        return now


def main() -> None:
    parser = assumptions(__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="That every row is trained with.")
    args = parser.parse_args()
    config, platforms = config_of(args), platforms_of(args)
    config.data.dir = "data"
    with tempfile.TemporaryDirectory() as folder:
        costs = Costs(Counter(config, FRAMES[args.config], Path(folder)))
        root = Path(folder, "runs")

        def plan_of(tables: Iterable[str]) -> tuple[int, Plan]:
            runs = paper_plan.runs_of(list(tables), config, root, range(args.seeds))
            distinct = list(dict.fromkeys(runs.values()))
            return len(distinct), Plan(distinct, costs, args)

        number, everything = plan_of(paper_plan.TABLES)
        print(f"{args.config}: all tables, {args.seeds} seeds, {number} runs\n")
        print(f"| device hours | {' | '.join(DEVICES)} |\n|---|{'---|' * len(DEVICES)}")
        parts = {name: everything.parts(platforms[name]) for name in DEVICES}
        for part in (*PARTS, "evaluations"):
            print(f"| {part} | {_row(parts[name][part] for name in DEVICES)} |")
        print(f"| all | {_row(sum(parts[name].values()) for name in DEVICES)} |", flush=True)
        head = " | ".join(f"{places} × {name[2:]}" for name, places in SIDE_BY_SIDE)
        print(f"\n| hours, a run a device | runs | {head} |\n|---|---|{'---|' * len(SIDE_BY_SIDE)}")
        for title, tables in [*((name, [name]) for name in paper_plan.TABLES), ("all", ALL)]:
            runs, plan = plan_of(tables)
            found = [plan.side_by_side(platforms[name], places) for name, places in SIDE_BY_SIDE]
            print(f"| {title} | {runs} | {_row(found)} |", flush=True)
        devices = [(platforms[name].dollars, places) for name, places in SIDE_BY_SIDE]
        dollars = [h * price * places for h, (price, places) in zip(found, devices, strict=True)]
        print(f"| all, dollars | | {' | '.join(f'{d:,.0f}' for d in dollars)} |")
        one = sum(everything.parts(platforms["8 H100"]).values())
        print(f"\nOne run after the other, each over 8 H100: {one:.1f} hours")


def _row(found: Iterable[float]) -> str:
    return " | ".join(f"{value:.1f}" for value in found)


if __name__ == "__main__":
    main()
