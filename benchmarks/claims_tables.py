"""The tables of `benchmarks.claims`, from the results of its runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import compared_runs
from benchmarks.claims_plan import CLAIMS, RECIPE
from stormpsr_jax.psr.streams import streams as all_streams

Rows = list[dict[str, Any]]
Key = tuple[str, str, str]  # variant, occlusion, seed

# Figure of `compare`: heading, format, and the sign of a difference that is better.
METRICS = {
    "f1": ("F1", ".3f", 1),
    "pos": ("POS", ".3f", 1),
    "delay_s": ("delay, s", ".1f", -1),
    "wrong.accepted": ("wrong parts accepted", ".0%", -1),
}


def content(
    world: str,
    claims: Sequence[str],
    done: Mapping[Key, Mapping[str, Any]],
    seeds: Sequence[str],
    levels: Sequence[str],
) -> dict[str, Any]:
    """All that is known, as claims.json has it.

    Args:
        world: in which recordings were made.
        claims: their names.
        done: the metrics.json of the runs that went to their end.
        seeds, levels: of the runs.
    """
    return {
        "world": world,
        "seeds": list(seeds),
        "occlusion": list(levels),
        "claims": [_claim(name, level, done, seeds) for level in levels for name in claims],
        "results": [row for level in levels for row in _results(level, done, seeds)],
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


def _results(level: str, done: Mapping, seeds: Sequence[str]) -> Rows:
    """The figures of every stream of the recipe, by seed."""
    rows = []
    for seed in seeds:
        for stream, s in done.get((RECIPE, level, seed), {"streams": {}})["streams"].items():
            figures = {key: s[key] for key in ("f1", "pos", "delay_s")}
            wrong = {key: s["wrong"][key] for key in ("accepted", "shown")} if s["wrong"] else {}
            rows.append({"occlusion": level, "seed": seed, "stream": stream, **figures, **wrong})
    return rows


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
        lines += _results_table([r for r in content["results"] if r["occlusion"] == level])
        others = [_stream_line(row, s) for row in rows for s in row["streams"]]
        if others:
            lines += ["", "Every stream of the variants:", "", *_table("claim", "stream")]
            lines += others
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
    accepted, shown = (sum(row.get(key, 0) for row in rows) for key in ("accepted", "shown"))
    return " / ".join([*cells, f"{accepted / shown:.0%}" if shown else "–"])
