"""Accuracy against seconds: how many steps of training the synthetic recipe needs.

    python -m benchmarks.knee --workdir=runs/knee [--seeds=711,712,713,714]
        [--recipes=present,every_frame,half …] [--plan] [--config.FIELD=value …]

Each recipe (`RECIPES`) is run on the same recordings, by itself: it takes over no stage of another,
so that its seconds are its own. They are of the stages after `data`. Seconds count only on a
machine that does nothing else. The table has the mean over the seeds, of stream `learned`, and
below it the difference from the first recipe with its 95 % interval, as in `benchmarks.claims`.
What is finished is not run again; results are in WORKDIR/knee.md.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import claims_tables, compared_runs
from stormpsr_jax.base import files
from stormpsr_jax.experiments.execute import Progress, execute_all, show_plan, took
from stormpsr_jax.experiments.runs import Run, changed, expected_stages
from stormpsr_jax.psr.evaluation import analysis
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.stages import config_flag

SEEDS = ("711", "712", "713", "714")


def _steps(pretrain: int, temporal: int, detector: int, every: int) -> dict[str, Any]:
    """Fewer steps by the same schedule: a cosine to the end, and evaluations at the same shares."""
    return {
        **{"pretrain.steps": pretrain, "pretrain.eval_every": -(-pretrain // 4)},
        **{"temporal.steps": temporal, "temporal.eval_every": -(-temporal // 12)},
        **{"detector.steps": detector, "detector.eval_every": detector},
        "embed.every": every,
    }


RECIPES = {
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


def table(
    recipes: Sequence[str],
    seconds: Mapping[str, Sequence[Mapping[str, int]]],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
) -> str:
    """The tables as Markdown.

    Args:
        recipes: their names; the others are compared with the first.
        seconds: by recipe and seed, of the stages.
        results: by recipe and seed, the metrics.json.
    """
    stages = [stage for stage in seconds[recipes[0]][0] if stage != "data"]
    headings = [heading for heading, _, _ in claims_tables.METRICS.values()]
    lines = [f"| recipe | {' | '.join(stages)} | seconds | {' | '.join(headings)} |"]
    lines.append("|---" * (len(stages) + 2 + len(headings)) + "|")
    compared = {}
    for name in recipes:
        pairs = list(zip(results[recipes[0]], results[name], strict=True))
        rows = compared_runs.compare_runs(pairs, (LEARNED.name, LEARNED.name))
        compared[name] = {row["metric"]: row for row in rows}
        means = [statistics.mean(found.get(s, 0) for found in seconds[name]) for s in stages]
        cells = [f"{mean:.0f}" for mean in (*means, sum(means))]
        for key, (_, form, _) in claims_tables.METRICS.items():
            value = compared[name][key]["b"]
            cells.append("–" if value is None else f"{value:{form}}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"| against {recipes[0]} | {' | '.join(headings)} |"]
    lines.append("|---" * (1 + len(headings)) + "|")
    lines += [f"| {name} | {claims_tables.cells(compared[name])} |" for name in recipes[1:]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    config_flag.add_config(parser, "synthetic")
    add, names = parser.add_argument, lambda text: text.split(",")
    add("--workdir", type=Path, required=True, help="folder of all runs")
    add("--seeds", type=names, default=SEEDS, help=f"seeds ({','.join(SEEDS)})")
    add("--recipes", type=names, default=tuple(RECIPES), help=f"of {', '.join(RECIPES)}")
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
    text = table(args.recipes, seconds, results)
    files.write_text(root / "knee.md", text)
    print(f"\n{text}\n{root / 'knee.md'}")


if __name__ == "__main__":
    main()
