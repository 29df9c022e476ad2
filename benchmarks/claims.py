"""What the project claims, measured over seeds: a table of differences with intervals.

    python -m benchmarks.claims CLAIM [CLAIM …] --workdir=runs/claims --config.seed=612 --seeds=4
        [--config.data.synthetic.world=bench] [--config.data.synthetic.occlusion=heavy]

CLAIM is all, or one of `CLAIMS`. It compares two streams of the synthetic job on the same test
recordings: of one run, or of the recipe and a variant of it. Each seed has recordings of its own,
which its runs share; a world and an occlusion level take a WORKDIR of their own. The learned fusion
is fitted in each run anew. No recipe, network or weight of this project was made with the seeds 612
to 615.

The window's control is a temporal network of the same size, trained by the same recipe for the same
labels, to which every window is its last frame, repeated. KCAS is to be compared in world bench,
where people are as slow as in real recordings; at the pace of the toy it draws nearly what uniform
sampling draws.

It prints the commands of the runs that are missing, for `sh` or `xargs`; once they have run, the
same command writes WORKDIR/claims.md and claims.json.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from stormpsr_jax import paper
from stormpsr_jax.experiments.runs import Changes, Runs, planned
from stormpsr_jax.psr import analysis, streams
from stormpsr_jax.psr.learned_stream import LEARNED
from stormpsr_jax.stages import order

RECIPE = "recipe"


def _finetuned(config: ConfigDict, is_so: bool) -> dict[str, Any]:
    chosen = set(config.stages) - {"finetune"} | ({"finetune"} if is_so else set())
    return {"stages": tuple(sorted(chosen, key=order.NAMES.index))}


def _without_cad(config: ConfigDict) -> dict[str, Any]:
    """As many pictures of a state, all from recordings."""
    c = config.pretrain
    return {"pretrain.n_per_state": c.n_per_state + c.cad_per_state, "pretrain.cad_per_state": 0}


_RANDOM = {"pretrain.key_frames": "random"}  # from all that a state lasts
# What the frames just before a completion show is no state yet (ISIL, arXiv 2408.11700).
_TRANSITIONS = {"pretrain.backgrounds": 12, "pretrain.background_frames": (2, 14)}
# What differs from the config.
VARIANTS: dict[str, Changes] = {
    RECIPE: {},
    "last_frame": {"temporal_model.context_frames": 1},
    "random_key_frames": _RANDOM,
    "finetuned": lambda c: _finetuned(c, True),
    "not_finetuned": lambda c: _finetuned(c, False),
    "without_cad": _without_cad,
    "transitions": _TRANSITIONS,
    "without_wrong": {"detector.cad_wrong": 0.0},
    "without_rehearsals": {"data.synthetic.error_recordings": 0},
    "scratch": {"init_from": ""},
    "uniform": {"temporal.sampling": "uniform"},
}


def _seeded(variant: str, config: ConfigDict) -> dict[str, Any]:
    """What differs in the config of a seed, with recordings of this seed."""
    changes = VARIANTS[variant]
    changes = changes(config) if callable(changes) else changes
    return {"data.synthetic.seed": config.seed, **changes}


class Claim(NamedTuple):
    """That a stream of a variant is better than one of another; the streams are (before, after)."""

    text: str
    before: str
    after: str
    streams: tuple[str, str]


_ASD, _STORM, _TEMPORAL, _LEARNED = "asd", "storm", ("temporal",) * 2, (LEARNED.name,) * 2
CLAIMS = {
    "fused": Claim("Eq. 9 against ASD alone", RECIPE, RECIPE, (_ASD, _STORM)),
    "learned": Claim("learned fusion against ASD alone", RECIPE, RECIPE, (_ASD, LEARNED.name)),
    "fusion": Claim("learned fusion against Eq. 9", RECIPE, RECIPE, (_STORM, LEARNED.name)),
    "window": Claim("window against its last frame", "last_frame", RECIPE, _TEMPORAL),
    "wrong": Claim("renders of wrong parts against none", "without_wrong", RECIPE, _LEARNED),
    "transitions": Claim("transitions as negatives", RECIPE, "transitions", _LEARNED),
    "rehearsals": Claim("rehearsals against none", "without_rehearsals", RECIPE, _LEARNED),
    "finetune": Claim("end-to-end fine-tuning", "not_finetuned", "finetuned", _TEMPORAL),
    "cad": Claim("CAD renders in pre-training", "without_cad", RECIPE, _TEMPORAL),
    "kfs": Claim("KFS against random key frames", "random_key_frames", RECIPE, _TEMPORAL),
    "start": Claim("general encoder against scratch", "scratch", RECIPE, _TEMPORAL),
    "kcas": Claim("KCAS against uniform", "uniform", RECIPE, _TEMPORAL),
}
# Figure of `compare`: heading, format, and the sign of a difference that is better.
METRICS = {
    "f1": ("F1", ".3f", 1),
    "pos": ("POS", ".3f", 1),
    "delay_s": ("delay, s", ".1f", -1),
    "wrong.accepted": ("wrong parts accepted", ".0%", -1),
}
_NOTE = (
    "A cell has the figure before → after, and the difference with its 95 % interval (paired "
    "bootstrap over recordings within seeds and over seeds; with one seed, over recordings alone). "
    "✓: the interval lies on the side that the claim says. ✗: on the other one. Shares of wrong "
    "parts are of all recordings together."
)


def plan(args: argparse.Namespace) -> paper.Plan:
    """The runs that claims take, and the table of their differences."""
    names = list(CLAIMS) if args.words == ["all"] else args.words
    for name in names:
        if name not in CLAIMS:
            raise ValueError(f"{name!r} is no claim; known are all, {', '.join(CLAIMS)}")
        if LEARNED.name in CLAIMS[name].streams and "fuse" not in args.config.stages:
            raise ValueError(f"claim {name} needs fuse, which --config.stages leaves out")
    wanted = {RECIPE, *(side for name in names for side in CLAIMS[name][1:3])}
    variants = {name: functools.partial(_seeded, name) for name in VARIANTS if name in wanted}
    runs = planned(args.config, variants, args.root, args.seeds)
    for name in names:
        _, before, after, (stream, other) = CLAIMS[name]
        if stream == other and runs[before, args.config.seed] is runs[after, args.config.seed]:
            raise ValueError(f"claim {name}: with this config both sides are the same")

    def made(runs: Runs) -> list[tuple[str, Any, str]]:
        rows = [row for name in names for row in differences(name, runs)]
        shown = analysis.format_rows([cells(row) for row in rows], "markdown")
        return [("claims", {"claims": rows}, f"# Claims\n\n{_NOTE}\n\n{shown}\n")]

    return runs, made


def differences(name: str, runs: Runs) -> list[dict[str, Any]]:
    """The rows of a claim: of its own streams, and of every other one that both variants have."""
    text, before, after, main_pair = CLAIMS[name]
    seeds = [seed for variant, seed in runs if variant == before and (after, seed) in runs]
    if not seeds:
        return []
    sides = [[runs[side, s].folder / "metrics.json" for side in (before, after)] for s in seeds]
    pairs = [(analysis.load_result(a), analysis.load_result(b)) for a, b in sides]
    common = [s for s in streams.names() if all(s in r["streams"] for pair in pairs for r in pair)]
    others = [(s, s) for s in common if before != after and (s, s) != main_pair]
    return [
        {
            "claim": name,
            "text": text,
            "streams": pair,
            "seeds": seeds,
            "differences": {row["metric"]: row for row in compare_runs(pairs, pair)},
        }
        for pair in (main_pair, *others)
    ]


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A row for people."""
    figures = {
        heading: _cell(row["differences"].get(key), form, better)
        for key, (heading, form, better) in METRICS.items()
    }
    stream = " → ".join(dict.fromkeys(row["streams"]))
    return {"claim": row["text"], "stream": stream, "seeds": str(len(row["seeds"])), **figures}


def _cell(row: Mapping[str, Any] | None, form: str, better: int) -> str:
    if row is None or row["difference"] is None:
        return "–"
    signed = [f"{row[key]:+{form}}" for key in ("difference", "low", "high")]
    mark = "" if row["low"] <= 0 <= row["high"] else "✓" if row["low"] * better > 0 else "✗"
    cell = f"{row['a']:{form}} → {row['b']:{form}}, {signed[0]} [{signed[1]}, {signed[2]}] {mark}"
    return cell.rstrip()


# --- Two systems over several runs, with bootstrap intervals --------------------------------------

# Figures of wrong parts that are given as a share of another one.
SHARES = {"accepted": "shown", "found": "shown", "right_called_wrong": "right_installations"}


def compare_runs(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    streams: tuple[str, str],
    *,
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> analysis.Rows:
    """Compares two systems over several runs, such as seeds, recording by recording.

    Runs are drawn with replacement, then recordings of each drawn one, the same for both systems.
    All recordings weigh the same. So the interval holds what comes of other runs and of other
    recordings; that of few runs is somewhat too narrow, and that of one run leaves runs out.

    Args:
        pairs: by run, contents of two metrics.json of the same recordings.
        streams: of the first and of the second of each pair.
        samples, level, seed: as for `compare`.

    Returns:
        A row per metric as of `compare`, with the number of runs. Wrong parts accepted and found,
        and right ones called wrong, are shares of all such parts of all recordings.

    Raises:
        ValueError: as for `compare`, or there is no pair.
    """
    if not pairs:
        raise ValueError("there are no runs to compare")
    runs = []
    for a, b in pairs:
        values = analysis.values(a, b, streams)
        of_a = a["streams"][streams[0]]["recordings"]
        wholes = {}
        for key, of in SHARES.items():
            wholes[f"wrong.{key}"] = np.array(
                [(of_a[name].get("wrong") or {}).get(of) for name in sorted(of_a)], np.float64
            )
        runs.append({key: _sums(*pair, wholes.get(key)) for key, pair in values.items()})
    name = streams[0] if streams[0] == streams[1] else f"{streams[1]} − {streams[0]}"
    return [
        {"stream": name, "metric": metric}
        | _row_of_runs([run[metric] for run in runs], samples, level, seed)
        for metric in runs[0]
    ]


def _sums(a: np.ndarray, b: np.ndarray, wholes: np.ndarray | None) -> np.ndarray:
    """(3, R) of each recording: what it adds to the sums of a and of b, and what these are of."""
    wholes = np.ones(len(a)) if wholes is None else wholes
    defined = ~(np.isnan(a) | np.isnan(b) | np.isnan(wholes))
    return np.where(defined, np.stack([a, b, wholes]), 0.0)


def _row_of_runs(
    runs: Sequence[np.ndarray], samples: int, level: float, seed: int
) -> dict[str, float | int | None]:
    a, b, whole = sum(sums.sum(axis=1) for sums in runs).tolist()
    counts = {
        "recordings": sum(int((sums[2] > 0).sum()) for sums in runs),
        "runs": sum(bool(sums[2].any()) for sums in runs),
    }
    if not whole:
        return dict.fromkeys(("a", "b", "difference", "low", "high")) | counts
    rng = np.random.default_rng(seed)
    drawn = np.zeros((samples, 3))
    for _ in runs:
        chosen = rng.integers(0, len(runs), samples)
        for i, sums in enumerate(runs):
            here = np.flatnonzero(chosen == i)
            rows = rng.integers(0, sums.shape[1], (len(here), sums.shape[1]))
            drawn[here] += sums[:, rows].sum(axis=2).T
    drawn = drawn[drawn[:, 2] > 0]
    differences = (drawn[:, 1] - drawn[:, 0]) / drawn[:, 2]
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return {
        "a": a / whole,
        "b": b / whole,
        "difference": (b - a) / whole,
        "low": low,
        "high": high,
        **counts,
    }


if __name__ == "__main__":
    paper.run(plan, "benchmarks.claims", __doc__, "CLAIM", "synthetic_full")
