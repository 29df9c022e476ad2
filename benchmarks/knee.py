"""Accuracy against seconds: how many steps of training the synthetic recipe needs.

    python -m benchmarks.knee --workdir=runs/knee [--seeds=711,712,713,714]
        [--recipes=present,every_frame,half …] [--record=NAME] [--plan] [--config.FIELD=value …]

Each recipe (`RECIPES`) is run on the same recordings, by itself: it takes over no stage of another,
so that its seconds are its own. They are of the stages after `data`. Seconds count only on a
machine that does nothing else. The tables have the means over the seeds, of stream `learned`, the
differences from the first recipe with their 95 % intervals, as in `benchmarks.claims`, and each
run. What is finished is not run again. --record keeps the tables in benchmarks/results.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import compared_runs, record
from stormpsr_jax.experiments.execute import Progress, execute_all, show_plan, took
from stormpsr_jax.experiments.runs import Run, changed, expected_stages
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.psr.evaluation import analysis, tables
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.stages import config_flag

SEEDS = ("711", "712", "713", "714")
METRICS = ("f1", "pos", "delay_s", "wrong.accepted")  # of `compare_runs`


def _steps(pretrain: int, temporal: int, detector: int, every: int) -> dict[str, Any]:
    """Fewer steps by the same schedule: a cosine to the end, and evaluations at the same shares."""
    return {
        **{"pretrain.steps": pretrain, "pretrain.eval_every": -(-pretrain // 4)},
        **{"temporal.steps": temporal, "temporal.eval_every": -(-temporal // 12)},
        **{"detector.steps": detector, "detector.eval_every": detector},
        "embed.every": every,
    }


RECIPES: dict[str, dict[str, Any]] = {
    "config": {},  # what --config says
    "present": _steps(240, 900, 2_000, 4),
    "every_frame": _steps(240, 900, 2_000, 1),  # embedded
    "three_quarters": _steps(180, 675, 1_500, 4),
    "half": _steps(120, 450, 1_000, 4),
    "third": _steps(80, 300, 700, 4),
}


def runs_of(args: argparse.Namespace, root: Path) -> dict[tuple[str, str], Run]:
    """The runs by (recipe, seed), those of a seed one after the other.

    Raises:
        ValueError: an unknown recipe, or a seed that is no number.
    """
    for name in args.recipes:
        if name not in RECIPES:
            raise ValueError(f"--recipes={name}: known are {', '.join(RECIPES)}")
    for seed in args.seeds:
        if not seed.isdecimal():
            raise ValueError(f"--seeds={seed} is not a whole number from 0 up")
    found = {}
    for seed in args.seeds:
        shared = {"seed": int(seed), "data.synthetic.seed": int(seed)}
        shared["data.dir"] = str(root / seed / "data")
        for name in args.recipes:
            config = changed(args.config, shared | RECIPES[name])
            found[name, seed] = Run(f"{name}, seed {seed}", config, root / seed / name)
    return found


def after_data(seconds: Mapping[str, float]) -> float:
    """Of the stages of a run, without `data`."""
    return sum(value for stage, value in seconds.items() if stage != "data")


def measured(
    recipes: Sequence[str],
    seeds: Sequence[str],
    seconds: Mapping[str, Sequence[Mapping[str, int]]],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, list[dict[str, Any]]]:
    """The tables, by title.

    Args:
        recipes: their names; the others are compared with the first.
        seeds: of the runs.
        seconds: by recipe and seed, of the stages.
        results: by recipe and seed, the metrics.json.
    """
    stages = list(seconds[recipes[0]][0])
    means, differences, runs = [], [], []
    for name in recipes:
        pairs = list(zip(results[recipes[0]], results[name], strict=True))
        rows = compared_runs.compare_runs(pairs, (LEARNED.name, LEARNED.name))
        figures = {row["metric"]: row for row in rows if row["metric"] in METRICS}
        took = {
            stage: statistics.mean(of.get(stage, 0) for of in seconds[name]) for stage in stages
        }
        mean = {metric: row["b"] for metric, row in figures.items()}
        means.append({"recipe": name, "seconds": after_data(took)} | mean | took)
        for metric, row in figures.items() if name != recipes[0] else ():
            of = {"recipe and figure": f"{name}, {metric}", "recordings": row["recordings"]}
            differences.append(of | {key: row[key] for key in ("difference", "low", "high")})
        for seed, of, result in zip(seeds, seconds[name], results[name], strict=True):
            found = result["streams"][LEARNED.name]
            row = {"recipe and seed": f"{name}, {seed}", "seconds": after_data(of)}
            row |= {key: found[key] for key in ("f1", "pos", "delay_s")}
            runs.append(row | {key: found["wrong"][key] for key in ("accepted", "shown")})
    return {"means": means, "differences": differences, "runs": runs}


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    config_flag.add_config(parser, "synthetic_full")
    add, names = parser.add_argument, lambda text: text.split(",")
    add("--workdir", type=Path, required=True, help="folder of all runs")
    add("--seeds", type=names, default=SEEDS, help=f"seeds ({','.join(SEEDS)})")
    add("--recipes", type=names, default=tuple(RECIPES)[1:], help=f"of {', '.join(RECIPES)}")
    add("--record", metavar="NAME", help="keep the tables in benchmarks/results")
    add("--plan", action="store_true", help="show the runs and how long they take, and end")
    args = config_flag.parse(parser, None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _measure(args)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


def _measure(args: argparse.Namespace) -> None:
    root = args.workdir.resolve()
    runs = runs_of(args, root)
    # One by one, as nothing is taken over but the recordings.
    expected = {run: expected_stages([run])[run] for run in runs.values()}
    progress = Progress(expected)
    if args.plan:
        show_plan(progress, expected)
        return
    failed = [run for run in runs.values() if execute_all([run], progress)]
    if failed:
        sys.exit(f"error: {len(failed)} runs failed; the same command makes them again")
    seconds, results = ({name: [] for name in args.recipes} for _ in range(2))
    for (name, _), run in runs.items():
        seconds[name].append(dict(took(run.log)))
        results[name].append(analysis.load_result(run.folder / "metrics.json"))
    found = measured(args.recipes, args.seeds, seconds, results)
    for title, rows in found.items():
        print(f"\n{title}\n{tables.format_rows(rows)}")
    if args.record:
        record.save(args.record, found, "seconds are of the stages after data; stream learned")


if __name__ == "__main__":
    main()
