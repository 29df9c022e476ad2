"""What the project claims, measured: runs over seeds and occlusion, one table with intervals.

    python -m benchmarks.claims --workdir=runs/claims --quick
    python -m benchmarks.claims --workdir=runs/claims [--seeds=612,613,614,615]
        [--occlusion=default,heavy] [--claims=fused,window,…] [--plan] [--config.FIELD=value …]

Every claim compares two streams of the synthetic job, on the same test recordings: of one run, or
of the recipe and a variant of it (`claims_plan.CLAIMS` and `VARIANTS`). Runs of a seed and an
occlusion level share their rendered recordings, and a variant takes over finished stages that it
would make the very same. The learned fusion is fitted in each run anew. --plan shows the runs, what
each makes, and how long that takes.

The window's control is a temporal network of the same size, trained by the same recipe for the same
labels, to which every window is its last frame, repeated. KCAS is compared where pauses between
steps are five times as long, so that their mean is that of MECCANO in windows; at the usual pace it
draws nearly what uniform sampling draws, as the table of densities shows.

--quick takes one seed, default occlusion and the claims that fit into 25 minutes on 2 idle cores;
all of it takes a night. What is finished is not run again: the same command goes on where it was.
What runs print is in WORKDIR/<occlusion>_<seed>/<variant>.log, results in WORKDIR/claims.md and
claims.json. A run that fails does not stop the others.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from flag_of_config import Config

from benchmarks import claims_plan, claims_tables
from benchmarks.claims_plan import CLAIMS
from stormpsr_jax.base import files
from stormpsr_jax.experiments.execute import Progress, execute_all, show_plan
from stormpsr_jax.experiments.runs import expected_stages
from stormpsr_jax.psr.evaluation import analysis
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.stages import fields

_CONFIG = Config("synthetic")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.", required=True)
_SEEDS = flags.DEFINE_list("seeds", None, f"Seeds ({','.join(claims_plan.SEEDS)}).")
_OCCLUSION = flags.DEFINE_list("occlusion", None, "Levels (default,heavy).")
_CLAIMS = flags.DEFINE_list("claims", None, f"Of {', '.join(CLAIMS)}; otherwise all.")
_QUICK = flags.DEFINE_bool("quick", False, "What fits into 25 minutes, where flags do not say.")
_PLAN = flags.DEFINE_bool("plan", False, "Show the runs and how long they take, and end.")


def chosen_claims(named: Sequence[str]) -> list[str]:
    """Those of the named claims that the config can show; says which it cannot.

    Raises:
        ValueError: a claim is unknown, or none is left.
    """
    for name in named:
        if name not in CLAIMS:
            raise ValueError(f"--claims={name}: known are {', '.join(CLAIMS)}")
    config, found = _CONFIG.value, []
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


def _chosen() -> tuple[list[str], list[str], list[str]]:
    """Claims, seeds and occlusion levels that the flags ask for."""
    quick = _QUICK.value
    claims = _CLAIMS.value or (claims_plan.QUICK if quick else list(CLAIMS))
    seeds = _SEEDS.value or claims_plan.SEEDS[: 1 if quick else None]
    levels = _OCCLUSION.value or claims_plan.OCCLUSIONS[: 1 if quick else None]
    for seed in seeds:
        if not seed.isdecimal():
            raise ValueError(f"--seeds={seed} is not a whole number from 0 up")
    for level in levels:
        for what in fields.wrong_with("data.synthetic.occlusion", level):
            raise ValueError(f"--occlusion={level} {what}")
    return chosen_claims(claims), list(dict.fromkeys(seeds)), list(dict.fromkeys(levels))


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _measure(Path(_WORKDIR.value).resolve())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


def _measure(root: Path) -> None:
    try:
        claims, seeds, levels = _chosen()
        runs = claims_plan.runs_of(claims, _CONFIG.value, root, seeds, levels)
    except ValueError as error:
        sys.exit(f"error: {error}")
    in_order = list(dict.fromkeys(runs.values()))
    expected = expected_stages(in_order)
    progress = Progress(expected, claims_plan.weight, claims_plan.SECONDS)
    if _PLAN.value:
        show_plan(progress, expected)
        return
    failed = execute_all(in_order, progress)
    done = {
        key: analysis.load_result(run.folder / "metrics.json")
        for key, run in runs.items()
        if run not in failed
    }
    content = claims_tables.content(claims, runs, done, seeds, levels)
    files.write_json(root / "claims.json", content)
    text = claims_tables.markdown(content)
    files.write_text(root / "claims.md", text)
    print(f"\n{text}\n{root / 'claims.md'}")
    if failed:
        sys.exit(f"error: {len(failed)} runs failed, and are not in the table")


if __name__ == "__main__":
    app.run(main, flags_parser=_CONFIG.parse_flags)
