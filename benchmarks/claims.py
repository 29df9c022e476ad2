"""What the project claims, measured: runs over seeds and occlusion, one table with intervals.

    python -m benchmarks.claims --workdir=runs/claims --quick
    python -m benchmarks.claims --workdir=runs/claims [--seeds=612,613,614,615]
        [--world=bench] [--occlusion=default,heavy] [--claims=fused,window,…] [--plan]
        [--config.FIELD=value …]

Every claim compares two streams of the synthetic job, on the same test recordings: of one run, or
of the recipe and a variant of it (`claims_plan.CLAIMS` and `VARIANTS`). Runs of a seed and an
occlusion level share their rendered recordings, and a variant takes over finished stages that it
would make the very same. The learned fusion is fitted in each run anew. --plan shows the runs, what
each makes, and how long that takes.

The window's control is a temporal network of the same size, trained by the same recipe for the same
labels, to which every window is its last frame, repeated. KCAS is compared where pauses between
steps are five times as long, so that their mean is that of MECCANO in windows; at the usual pace it
draws nearly what uniform sampling draws. In world bench people are that slow by themselves.

--world=bench makes all of it in world bench, whose recordings are like real ones
(benchmarks/results/noise.md) and five times as long. Its runs and results are in WORKDIR/bench.

--quick takes one seed, default occlusion and the claims that fit into 25 minutes on 2 idle cores;
all of it takes a night. What is finished is not run again: the same command goes on where it was.
What runs print is in WORKDIR/<occlusion>_<seed>/<variant>.log, results in WORKDIR/claims.md and
claims.json. A run that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from benchmarks import claims_plan, claims_tables
from benchmarks.claims_plan import CLAIMS
from stormpsr_jax.base import files
from stormpsr_jax.experiments.execute import Progress, execute_all, show_plan
from stormpsr_jax.experiments.runs import changed, expected_stages
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.psr.evaluation import analysis
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.stages import checks, config_flag


def chosen_claims(named: Sequence[str], config: ConfigDict) -> list[str]:
    """Those of the named claims that the config can show; says which it cannot.

    Raises:
        ValueError: a claim is unknown, or none is left.
    """
    for name in named:
        if name not in CLAIMS:
            raise ValueError(f"--claims={name}: known are {', '.join(CLAIMS)}")
    found = []
    for name in named:
        claim = CLAIMS[name]
        streams = {claim.baseline[1], claim.claimed[1]}
        if LEARNED.name in streams and "fuse" not in config.stages:
            print(f"claim {name} is left out: the config has no stage 'fuse', which fits it")
        elif claims_plan.same_sides(claim, config):
            print(f"claim {name} is left out: with this config both sides are the same")
        else:
            found.append(name)
    if not found:
        raise ValueError("no claim is left; --claims and --config choose them")
    return found


def _chosen(args: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """Claims, seeds and occlusion levels that the flags ask for."""
    claims = args.claims or (claims_plan.QUICK if args.quick else list(CLAIMS))
    seeds = args.seeds or claims_plan.SEEDS[: 1 if args.quick else None]
    levels = args.occlusion or claims_plan.OCCLUSIONS[: 1 if args.quick else None]
    for seed in seeds:
        if not seed.isdecimal():
            raise ValueError(f"--seeds={seed} is not a whole number from 0 up")
    for level in levels:
        for what in checks.wrong_with("data.synthetic.occlusion", level):
            raise ValueError(f"--occlusion={level} {what}")
    return (
        chosen_claims(claims, args.config),
        list(dict.fromkeys(seeds)),
        list(dict.fromkeys(levels)),
    )


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    config_flag.add_config(parser, "synthetic_full")
    add, names = parser.add_argument, lambda text: text.split(",")
    add("--workdir", type=Path, required=True, help="folder of all runs")
    add("--seeds", type=names, help=f"seeds ({','.join(claims_plan.SEEDS)})")
    add("--occlusion", type=names, help="levels (default,heavy)")
    add("--world", help="toy or bench; default: that of the config, toy")
    add("--claims", type=names, help=f"of {', '.join(CLAIMS)}; otherwise all")
    what = "what fits into 25 minutes, where flags do not say"
    add("--quick", action="store_true", help=what)
    add("--plan", action="store_true", help="show the runs and how long they take, and end")
    args = config_flag.parse(parser, None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _measure(args)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


def _in_world(args: argparse.Namespace) -> Path:
    """Puts the world into the config; returns the folder of its runs."""
    world = args.world or args.config.data.synthetic.world
    for what in checks.wrong_with("data.synthetic.world", world):
        raise ValueError(f"--world={world} {what}")
    args.config = changed(args.config, {"data.synthetic.world": world})
    root = args.workdir.resolve()
    return root if world == claims_plan.TOY else root / world


def _measure(args: argparse.Namespace) -> None:
    try:
        root = _in_world(args)
        claims, seeds, levels = _chosen(args)
        runs = claims_plan.runs_of(claims, args.config, root, seeds, levels)
    except ValueError as error:
        sys.exit(f"error: {error}")
    in_order = list(dict.fromkeys(runs.values()))
    expected = expected_stages(in_order)
    progress = Progress(expected)
    if args.plan:
        show_plan(progress, expected)
        print(f"about {claims_plan.seconds(expected) / 60:.0f} min on two idle cores")
        return
    failed = execute_all(in_order, progress)
    done = {
        key: analysis.load_result(run.folder / "metrics.json")
        for key, run in runs.items()
        if run not in failed
    }
    world = args.config.data.synthetic.world
    content = claims_tables.content(world, claims, done, seeds, levels)
    files.write_json(root / "claims.json", content)
    text = claims_tables.markdown(content)
    files.write_text(root / "claims.md", text)
    print(f"\n{text}\n{root / 'claims.md'}")
    if failed:
        sys.exit(f"error: {len(failed)} runs failed, and are not in the table")


if __name__ == "__main__":
    main()
