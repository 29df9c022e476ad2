"""The tables of `benchmarks.claims`, from the results of its runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import compared_runs
from benchmarks.claims_plan import CLAIMS, RECIPE
from stormpsr_jax.data import sampling
from stormpsr_jax.experiments.runs import Run
from stormpsr_jax.psr.streams import streams as all_streams
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.stages import pretrain

Rows = list[dict[str, Any]]
Key = tuple[str, str, str]  # variant, occlusion, seed

# Figure of `compare`: heading, format, and the sign of a difference that is better.
METRICS = {
    "f1": ("F1", ".3f", 1),
    "pos": ("POS", ".3f", 1),
    "delay_s": ("delay, s", ".1f", -1),
    "wrong.accepted": ("wrong parts accepted", ".0%", -1),
}
# Of stream `learned`: heading, format, what must hold, the aim, and whether more is better.
TARGETS = {
    "f1": ("F1", ".3f", 0.92, 0.95, True),
    "pos": ("POS", ".3f", 0.87, 0.92, True),
    "delay": ("delay / delay of ASD alone", ".2f", 0.55, 0.40, False),
    "accepted": ("wrong parts accepted", ".0%", 0.35, 0.15, False),
    "called_wrong": ("right parts called wrong", ".0%", 0.08, 0.08, False),
    "ece": ("ECE", ".3f", 0.05, 0.03, False),
}


def content(
    world: str,
    claims: Sequence[str],
    runs: Mapping[Key, Run],
    done: Mapping[Key, Mapping[str, Any]],
    seeds: Sequence[str],
    levels: Sequence[str],
) -> dict[str, Any]:
    """All that is known, as claims.json has it.

    Args:
        world: in which recordings were made.
        claims: their names.
        runs: all that they take.
        done: the metrics.json of those that went to their end.
        seeds, levels: of the runs.
    """
    return {
        "world": world,
        "seeds": list(seeds),
        "occlusion": list(levels),
        "claims": [_claim(name, level, done, seeds) for level in levels for name in claims],
        "targets": [row for level in levels for row in _targets(level, done, seeds)],
        "results": [row for level in levels for row in _results(level, done, seeds)],
        "densities": [row for level in levels for row in _densities(level, runs, done)],
    }


def _claim(name: str, level: str, done: Mapping, seeds: Sequence[str]) -> dict[str, Any]:
    """One claim at one occlusion level: its own streams, and every stream of both variants."""
    claim = CLAIMS[name]
    (before, stream_before), (after, stream) = claim.baseline, claim.claimed
    with_both = [s for s in seeds if (before, level, s) in done and (after, level, s) in done]
    pairs = [(done[before, level, seed], done[after, level, seed]) for seed in with_both]
    streams = {}
    if pairs and before != after:
        common = [
            s for s in all_streams.names() if all(s in r["streams"] for pair in pairs for r in pair)
        ]
        streams = {s: _by_metric(pairs, (s, s)) for s in common}
    return {
        "claim": name,
        "text": claim.text,
        "occlusion": level,
        "baseline": list(claim.baseline),
        "claimed": list(claim.claimed),
        "seeds": with_both,
        "differences": _by_metric(pairs, (stream_before, stream)) if pairs else {},
        "streams": streams,
    }


def _by_metric(pairs: Sequence[tuple], streams: tuple[str, str]) -> dict[str, dict]:
    rows = compared_runs.compare_runs(pairs, streams)
    return {
        row["metric"]: {key: value for key, value in row.items() if key not in ("stream", "metric")}
        for row in rows
    }


def _of_recipe(level: str, done: Mapping, seeds: Sequence[str]) -> list[Mapping[str, Any]]:
    return [done[RECIPE, level, seed] for seed in seeds if (RECIPE, level, seed) in done]


def _targets(level: str, done: Mapping, seeds: Sequence[str]) -> Rows:
    """The figures of stream `learned` beside what must hold of them."""
    results = [r["streams"] for r in _of_recipe(level, done, seeds)]
    if not results or not all(LEARNED.name in streams for streams in results):
        return []
    of_learned = [streams[LEARNED.name] for streams in results]
    delays = [
        _ratio(streams[LEARNED.name]["delay_s"], streams["asd"]["delay_s"]) for streams in results
    ]
    wrong = [s["wrong"] for s in of_learned if s["wrong"]]
    found = {
        "f1": _mean(s["f1"] for s in of_learned),
        "pos": _mean(s["pos"] for s in of_learned),
        "delay": _mean(delays),
        "accepted": _share(wrong, "accepted", "shown"),
        "called_wrong": _share(wrong, "right_called_wrong", "right_installations"),
        "ece": _mean(s["reliability"]["ece"] for s in of_learned),
    }
    rows = []
    for key, (_, _, target, aim, more) in TARGETS.items():
        value = found[key]
        met = None if value is None else (value >= target if more else value <= target)
        rows.append(
            {"occlusion": level, "figure": key, "value": value, "target": target, "aim": aim}
            | {"met": met, "seeds": len(results)}
        )
    return rows


def _results(level: str, done: Mapping, seeds: Sequence[str]) -> Rows:
    """The figures of every stream of the recipe, by seed."""
    rows = []
    for seed in seeds:
        for stream, s in done.get((RECIPE, level, seed), {"streams": {}})["streams"].items():
            figures = {key: s[key] for key in ("f1", "pos", "delay_s")}
            wrong = {key: s["wrong"][key] for key in ("accepted", "shown")} if s["wrong"] else {}
            rows.append({"occlusion": level, "seed": seed, "stream": stream, **figures, **wrong})
    return rows


def _densities(level: str, runs: Mapping[Key, Run], done: Mapping) -> Rows:
    """How far KCAS and KFS draw other frames of the training split than their controls would.

    `kcas` are quantiles of the density of KCAS divided by that of uniform sampling, and the share
    of clips that it draws elsewhere: half the mean of |ratio − 1|. `kfs_share` is the share of the
    frames of catalogued states that KFS draws from.
    """
    rows = []
    for pace in sorted({runs[key].config.data.synthetic.pace for key in done}):
        ratios: list[np.ndarray] = []
        near = whole = 0
        one_of_a_seed = {
            seed: runs[variant, occlusion, seed]
            for variant, occlusion, seed in done
            if occlusion == level
            and runs[variant, occlusion, seed].config.data.synthetic.pace == pace
        }
        for run in one_of_a_seed.values():
            context, train = run.context, run.context.source("train")
            config, window = context.config.temporal, pretrain.key_frame_window(context, train)
            for r in train.recordings.values():
                events = sampling.change_frames(r.states, config.state_loss > 0)
                density = sampling.clip_density(
                    r.num_frames,
                    events,
                    delta=config.delta,
                    sigma=config.sigma,
                    floor=config.floor,
                )
                ratios.append(density * r.num_frames)
                for reach in (window, r.num_frames):
                    found = sampling.key_frames(r, context.procedure, reach).values()
                    count = sum(map(len, found))
                    near, whole = (
                        (near + count, whole) if reach == window else (near, whole + count)
                    )
        if ratios:
            ratio = np.concatenate(ratios)
            low, middle, high = np.quantile(ratio, [0.05, 0.5, 0.95]).tolist()
            rows.append(
                {"occlusion": level, "pace": pace, "kcas": [low, middle, high]}
                | {"kcas_elsewhere": float(np.abs(ratio - 1).mean() / 2)}
                | {"kfs_share": near / whole if whole else None}
            )
    return rows


def _mean(values) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _ratio(value: float | None, whole: float | None) -> float | None:
    return value / whole if value is not None and whole else None


def _share(rows: Sequence[Mapping], part: str, whole: str) -> float | None:
    return _ratio(sum(row[part] for row in rows), sum(row[whole] for row in rows))


# --- Markdown -------------------------------------------------------------------------------------


def markdown(content: Mapping[str, Any]) -> str:
    """The tables for people."""
    lines = [
        "# Claims",
        "",
        f"Synthetic job, world {content['world']}, test recordings, seeds "
        f"{', '.join(content['seeds'])}. A cell has the figure before → after, and the difference "
        "with its 95 % interval (paired bootstrap over "
        "recordings within seeds and over seeds; with one seed, over recordings alone). ✓: the "
        "interval lies on the side that the claim says. ✗: on the other one. Neither: not shown "
        "either way. Shares of wrong parts are of all recordings together.",
    ]
    for level in content["occlusion"]:
        rows = [row for row in content["claims"] if row["occlusion"] == level]
        lines += ["", f"## Occlusion {level}", "", *_claims_table(rows)]
        lines += _targets_table([r for r in content["targets"] if r["occlusion"] == level])
        lines += _results_table([r for r in content["results"] if r["occlusion"] == level])
        others = [_stream_line(row, s) for row in rows for s in row["streams"]]
        if others:
            lines += ["", "Every stream of the variants:", "", *_table("claim", "stream")]
            lines += others
        lines += _densities_table([r for r in content["densities"] if r["occlusion"] == level])
    return "\n".join(lines) + "\n"


def _table(*first: str) -> list[str]:
    """The head of a table of differences."""
    columns = [*first, *(heading for heading, _, _ in METRICS.values())]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _claims_table(rows: Rows) -> list[str]:
    lines = _table("claim", "stream", "seeds")
    for row in rows:
        stream = _streams_of(row)
        found = cells(row["differences"])
        lines.append(f"| {row['text']} | {stream} | {len(row['seeds'])} | {found} |")
    return lines


def _streams_of(row: Mapping[str, Any]) -> str:
    """The stream that a claim is about; two, if it compares them."""
    before, after = row["baseline"][1], row["claimed"][1]
    return after if before == after else f"{before} → {after}"


def _stream_line(row: Mapping[str, Any], stream: str) -> str:
    return f"| {row['text']} | {stream} | {cells(row['streams'][stream])} |"


def cells(differences: Mapping[str, Mapping]) -> str:
    """The cells of METRICS: before → after, the difference and its interval."""
    return " | ".join(
        _cell(differences.get(key), form, better) for key, (_, form, better) in METRICS.items()
    )


def _cell(row: Mapping[str, Any] | None, form: str, better: int) -> str:
    if row is None or row["difference"] is None:
        return "–"
    signed = [f"{row[key]:+{form}}" for key in ("difference", "low", "high")]
    cell = f"{row['a']:{form}} → {row['b']:{form}}, {signed[0]} [{signed[1]}, {signed[2]}]"
    return f"{cell} {mark}" if (mark := _mark(row, better)) else cell


def _mark(row: Mapping[str, Any] | None, better: int) -> str:
    """On which side of 0 the interval of a difference lies: ✓ of the claim's, ✗, or neither."""
    if row is None or row["difference"] is None or row["low"] <= 0 <= row["high"]:
        return ""
    return "✓" if row["difference"] * better > 0 else "✗"


def by_world(contents: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the claims that were measured in several worlds, and where they hold.

    Args:
        contents: by world, as `content` has it.
    """
    lines = [
        "# Claims by world",
        "",
        "By figure, in which worlds the interval of the difference lies on the side that the claim "
        "says (✓), or on the other one (✗). “Neither” is of both: not shown in any.",
        "",
        *_table("claim", "stream", "occlusion"),
    ]
    found: dict[tuple, dict[str, Mapping]] = {}
    for world, content in contents.items():
        for row in content["claims"]:
            found.setdefault((row["claim"], row["occlusion"]), {})[world] = row
    for (_, level), rows in found.items():
        if len(rows) < len(contents):
            continue
        any_row = next(iter(rows.values()))
        cells = [_worlds_of(rows, key, better) for key, (_, _, better) in METRICS.items()]
        text = f"| {any_row['text']} | {_streams_of(any_row)} | {level} |"
        lines.append(f"{text} {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _worlds_of(rows: Mapping[str, Mapping], key: str, better: int) -> str:
    marks = {world: _mark(row["differences"].get(key), better) for world, row in rows.items()}
    shown = [f"{mark} {world}" for world, mark in marks.items() if mark]
    if len(set(marks.values())) == 1 and shown:
        return f"{shown[0][0]} both"
    return ", ".join(f"{text} alone" if len(shown) == 1 else text for text in shown) or "neither"


def _targets_table(rows: Rows) -> list[str]:
    if not rows:
        return []
    lines = ["", f"Stream `learned`, mean over {rows[0]['seeds']} seeds:", ""]
    lines += ["| figure | measured | must hold | aim | holds |", "|---" * 5 + "|"]
    for row in rows:
        heading, form, target, aim, more = TARGETS[row["figure"]]
        value = "–" if row["value"] is None else f"{row['value']:{form}}"
        sign, holds = "≥" if more else "≤", {True: "yes", False: "no", None: "–"}[row["met"]]
        lines.append(f"| {heading} | {value} | {sign} {target:{form}} | {aim:{form}} | {holds} |")
    return lines


def _results_table(rows: Rows) -> list[str]:
    """F1 / POS / delay of each seed's recipe, with mean and standard deviation."""
    if not rows:
        return []
    streams, seeds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("stream", "seed"))
    lines = ["", "The recipe by seed, F1 / POS / delay in seconds / wrong parts accepted:", ""]
    lines += [f"| seed | {' | '.join(streams)} |", "|---" * (1 + len(streams)) + "|"]
    found = {(row["seed"], row["stream"]): row for row in rows}
    for seed in seeds:
        cells = [_figures(found.get((seed, stream))) for stream in streams]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    cells = [_spread([row for row in rows if row["stream"] == stream]) for stream in streams]
    return [*lines, f"| mean ± std | {' | '.join(cells)} |"]


def _figures(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    numbers = [(row["f1"], ".3f"), (row["pos"], ".3f"), (row["delay_s"], ".1f")]
    cells = ["–" if value is None else f"{value:{form}}" for value, form in numbers]
    wrong = f"{row['accepted']} of {row['shown']}" if "shown" in row else "–"
    return " / ".join([*cells, wrong])


def _spread(rows: Rows) -> str:
    cells = []
    for key, form in (("f1", ".3f"), ("pos", ".3f"), ("delay_s", ".1f")):
        known = [row[key] for row in rows if row[key] is not None]
        std = statistics.stdev(known) if len(known) > 1 else 0.0
        cells.append(f"{statistics.mean(known):{form}} ± {std:{form}}" if known else "–")
    share = _share([row for row in rows if "shown" in row], "accepted", "shown")
    return " / ".join([*cells, "–" if share is None else f"{share:.0%}"])


def _densities_table(rows: Rows) -> list[str]:
    if not rows:
        return []
    lines = ["", "What KCAS and KFS can change, on the training split:", ""]
    lines += [
        "| pauses × | density of KCAS / uniform: 5 %, median, 95 % | clips drawn elsewhere "
        "| frames of known states that KFS draws from |",
        "|---|---|---|---|",
    ]
    for row in rows:
        low, middle, high = row["kcas"]
        share = "–" if row["kfs_share"] is None else f"{row['kfs_share']:.0%}"
        lines.append(
            f"| {row['pace']:g} | {low:.2f}, {middle:.2f}, {high:.2f} "
            f"| {row['kcas_elsewhere']:.0%} | {share} |"
        )
    return lines
