"""What a results table needs beyond the headline figures; all from the content of metrics.json.

Matching is that of protocol `paper`, whatever protocol the events come from: the released matching
does not say which truth an event belongs to.
"""

import collections
import csv
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import one_line, visible
from stormpsr_jax.psr import calibration, headline, metrics, streams, wrong_parts
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.procedure import step_name

FORMATS = ("text", "csv", "markdown")


def format_rows(rows: Sequence[Mapping[str, Any]], form: str = "text") -> str:
    """Returns a table with a column per key of the first row.

    Args:
        rows: one mapping per row, all with the same keys; None is shown as a dash, in CSV as an
            empty field; fractions with three decimals, in CSV in full.
            Texts of outside cannot become formulas or escape sequences.
        form: "text", "csv" (for programs) or "markdown".
    """
    if not rows:
        return ""
    header = list(rows[0])
    numeric = [all(isinstance(row[key], int | float | None) for row in rows) for key in header]
    if form == "csv":
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_field(row[key]) for key in header] for row in rows)
        return file.getvalue().rstrip("\n")
    cells = [[_cell(row[key]) for key in header] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    aligned = [
        [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        for row in [header, *cells]
    ]
    if form == "text":
        return "\n".join("  ".join(row).rstrip() for row in aligned)
    rule = ["-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numeric, strict=True)]
    aligned = [[c.replace("|", r"\|") for c in row] for row in aligned]
    return "\n".join(f"| {' | '.join(row)} |" for row in [aligned[0], rule, *aligned[1:]])


def _field(value: Any) -> Any:
    """Of CSV: a name that would be a formula in a spreadsheet is a text there too."""
    if value is None:
        return ""
    return visible(csvfile.plain(value)) if isinstance(value, str) else value


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else visible(str(value))


Rows = list[dict[str, Any]]
# Visible fraction at a completion: hidden, mostly hidden, mostly visible, visible.
OCCLUSION_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)


def load_result(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a metrics.json.

    Raises:
        ValueError: not JSON, or not what ``evaluate`` writes, so that no table can be made of it.
    """
    result = files.read_json(path)
    try:
        for table in TABLES.values():
            table(result)
        notes(result)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = one_line(f"{type(error).__name__}: {error}", 200)
        raise ValueError(
            f"{path}: is no result of this version's evaluate ({what}); run that again"
        ) from error
    return result


def matching(recording: Mapping[str, Any]) -> metrics.Matching:
    """Returns what became of each step of a recording's entry in metrics.json."""
    events = metrics.scored_steps(recording["events"], recording.get("with_errors", False))
    return metrics.match_steps([tuple(step) for step in recording["truth"]], events)


def notes(result: Mapping[str, Any]) -> list[str]:
    """Returns the sentences that belong below the table of a result: warnings, and comparisons."""
    sentences = [f"Warning: {warning}" for warning in result.get("warnings", ())]
    if text := result.get("recognises_by"):
        sentences.append(f"The model recognises by {text}.")
    sentences += result.get("risk_notes", ())
    if fixed := result.get("paper_settings"):
        of_streams = []
        for stream, s in fixed.items():
            pos, f1 = ("–" if s[key] is None else f"{s[key]:.3f}" for key in ("pos", "f1"))
            delay = "–" if s["delay_s"] is None else f"{s['delay_s']:.1f} s"
            text = f"{stream} POS {pos}, F1 {f1}, delay {delay}"
            if wrong := s.get("wrong"):
                text += (
                    f", {wrong['accepted']} of {wrong['shown']} incorrect installations accepted"
                )
            of_streams.append(text)
        sentences.append(f"With the settings of the papers: {'; '.join(of_streams)}.")
    return sentences


def summary_table(result: Mapping[str, Any]) -> Rows:
    """A row per stream: the headline figures; one more where a stream also says what was seen."""
    return [{"stream": name, **headline.values(s)} for name, s in headline.streams(result).items()]


def overview(result: Mapping[str, Any]) -> str:
    """Returns the tables that evaluate and a run end with, as text.

    They have the figures of all procedures; `summary_table` has those of this one.
    """

    def table(rows: Rows, figures: Iterable[headline.Figure]) -> str:
        keys = ["stream", *(figure.key for figure in figures)]
        return format_rows([{key: row[key] for key in keys} for row in rows])

    wrong = wrong_parts.summary_table(result)
    incorrect = table(wrong, headline.OF_INCORRECT), wrong_parts.untested(result)
    parts = {
        "incorrect installations": "\n".join(filter(None, incorrect)),
        "correct installations": table(wrong, headline.OF_CORRECT),
    }
    sections = [table(summary_table(result), headline.figures_of(()))]
    sections += [f"{title}\n{text}" for title, text in parts.items() if text]
    return "\n\n".join(filter(None, [*sections, "\n".join(decoding(result))]))


def decoding(result: Mapping[str, Any]) -> list[str]:
    """Returns a sentence per stream on how it was decoded, where the result says that."""
    return [
        f"{stream.name}: {stream.appearance.describe(stream.settings(**entry['settings']))}"
        for stream in map(streams.find, result["streams"])
        if "settings" in (entry := result["streams"][stream.name])
    ]


def recordings_table(result: Mapping[str, Any]) -> Rows:
    """A row per stream and recording."""
    return [
        {
            "stream": stream,
            "recording": name,
            **headline.values(r),
            "contains_errors": r.get("contains_errors"),
        }
        for stream, s in headline.streams(result).items()
        for name, r in s["recordings"].items()
    ]


def _outcomes(recording: Mapping[str, Any], fps: float) -> Iterator[tuple[str, int, int, float]]:
    """What became of each step: "tp", "early", "wrong" or "fn", id, frame and delay in seconds."""
    matched = matching(recording)
    yield from (("tp", step, t, (p - t) / fps) for step, t, p in matched.correct)
    yield from (("early", step, t, 0.0) for step, t, _ in matched.early)
    yield from (("wrong", step, p, 0.0) for p, step in matched.wrong)
    yield from (("fn", step, t, 0.0) for t, step in matched.missed)


def steps_table(result: Mapping[str, Any]) -> Rows:
    """A row per stream and step that occurs: its outcomes over all recordings pooled."""
    rows = []
    for stream, s in headline.streams(result).items():
        by_step: dict[int, tuple[list[float], collections.Counter]] = {}
        for r in s["recordings"].values():
            for kind, step, _, delay in _outcomes(r, result["fps"]):
                delays, counts = by_step.setdefault(step, ([], collections.Counter()))
                counts[kind] += 1
                if kind == "tp":
                    delays.append(delay)
        for step, (delays, n) in sorted(by_step.items()):
            tp, fp, fn = n["tp"], n["early"] + n["wrong"], n["fn"]
            truths = tp + fn + n["early"]
            rows.append(
                {
                    "stream": stream,
                    "step": step,
                    "name": step_name(result["components"], step),
                    "truths": truths,
                    "tp": tp,
                    "fp": fp,
                    "fn": fn,
                    "f1": metrics.f1_score(tp, fp, fn) if truths else None,
                    "delay_s": float(np.mean(delays)) if delays else None,
                }
            )
    return rows


def delays(result: Mapping[str, Any], stream: str) -> np.ndarray:
    """Returns the delays of all true positives of a stream in seconds, ascending.

    Value i of n is the (i + 1) / n quantile: plotted against that it is the CDF.
    """
    recordings = headline.streams(result)[stream]["recordings"].values()
    frames = [d for r in recordings for d in matching(r).delays()]
    return np.sort(np.array(frames, np.float64)) / result["fps"]


def delays_table(result: Mapping[str, Any]) -> Rows:
    """A row per stream: the distribution of its delays, all recordings pooled."""
    rows = []
    for stream in headline.streams(result):
        seconds = delays(result, stream)
        figures = dict.fromkeys(("mean_s", "median_s", "p90_s", "max_s"))
        if len(seconds):
            quantiles = np.quantile(seconds, [0.5, 0.9, 1.0]).tolist()
            values = [float(seconds.mean()), *quantiles]
            figures = dict(zip(figures, values, strict=True))
        rows.append({"stream": stream, "tp": len(seconds), **figures})
    return rows


def occlusion_table(result: Mapping[str, Any]) -> Rows:
    """A row per stream and interval of the visible fraction at a step's completion.

    Only true steps whose visible fraction is known; so there is a recall, and no precision:
    what is recognised without being true has no completion. The last interval includes its upper
    edge.
    """
    rows = []
    for stream, s in headline.streams(result).items():
        judged: list[tuple[float, str, float]] = []
        for r in s["recordings"].values():
            visible = r.get("visible") or [None] * len(r["truth"])
            pairs = zip(r["truth"], visible, strict=True)
            known = {tuple(step): v for step, v in pairs if v is not None}
            for kind, step, t, delay in _outcomes(r, result["fps"]):
                if kind != "wrong" and (t, step) in known:
                    judged.append((known[t, step], kind, delay))
        for low, high in itertools.pairwise(OCCLUSION_EDGES):
            part = [f for f in judged if low <= f[0] < high or f[0] == high == 1]
            tp = [delay for _, kind, delay in part if kind == "tp"]
            rows.append(
                {
                    "stream": stream,
                    "visible": f"{low:g}–{high:g}",
                    "truths": len(part),
                    "tp": len(tp),
                    "early": sum(kind == "early" for _, kind, _ in part),
                    "fn": sum(kind == "fn" for _, kind, _ in part),
                    "recall": len(tp) / len(part) if part else None,
                    "delay_s": float(np.mean(tp)) if tp else None,
                }
            )
    return rows


TABLES: dict[str, Callable[[Mapping[str, Any]], Rows]] = {
    "summary": summary_table,
    "recordings": recordings_table,
    "steps": steps_table,
    "delays": delays_table,
    "occlusion": occlusion_table,
    "wrong": wrong_parts.summary_table,
    "installations": wrong_parts.installations_table,
    "reliability": calibration.table,
}


SAMPLES = 10000


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    streams: tuple[str, str] | None = None,
) -> Rows:
    """Compares two results, recording by recording.

    The recordings are drawn with replacement, the same for both systems; the interval holds the
    central 95 % of the differences of the means so found (percentile bootstrap, seed 0).

    Args:
        a, b: contents of two metrics.json of the same recordings.
        streams: of a and of b; None compares every stream that both have with itself.

    Returns:
        A row per stream and metric: means of a and b over the recordings where both are defined,
        their difference b − a with its interval, and the number of those recordings. The metrics
        are the headline figures that are means, common_delay_s, the delay on the steps that both
        recognised, and of wrong parts (`headline.WRONG`) what a stream makes better or worse.

    Raises:
        ValueError: other recordings, labels or protocols in a than in b, or an absent stream.
    """
    of_b = headline.streams(b)
    pairs = [(stream, stream) for stream in headline.streams(a) if stream in of_b]
    if streams is not None:
        pairs = [streams]
    elif not pairs:
        raise ValueError("there is no stream that both have; --streams=asd,storm names two")
    return [
        {
            "stream": pair[0] if pair[0] == pair[1] else f"{pair[1]} − {pair[0]}",
            "metric": metric,
            **_row(*of_both),
        }
        for pair in pairs
        for metric, of_both in values(a, b, pair).items()
    ]


def values(
    a: Mapping[str, Any], b: Mapping[str, Any], streams: tuple[str, str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns by metric the values (R,) of both systems, NaN where undefined; as `compare`."""
    for key in ("protocol", "fps"):
        if a[key] != b[key]:
            raise ValueError(f"{key} differs: {a[key]} and {b[key]}; compare like with like")
    entries = []
    for stream, by_stream in zip(streams, map(headline.streams, (a, b)), strict=True):
        if stream not in by_stream:
            have = ", ".join(by_stream)
            raise ValueError(f"stream {stream!r} is not in the results, which have {have}")
        entries.append(by_stream[stream]["recordings"])
    fps, (a, b) = a["fps"], entries
    if set(a) != set(b):
        lone = ", ".join(sorted(set(a) ^ set(b)))
        raise ValueError(f"the results do not have the same recordings; only one has {lone}")
    names = sorted(a)
    for name in names:
        if a[name]["truth"] != b[name]["truth"]:
            raise ValueError(f"the labels of recording {name} differ between the results")
    pairs = {}
    for figure in headline.means([*a.values(), *b.values()]):
        x, y = (np.array([r[name][figure.key] for name in names], np.float64) for r in (a, b))
        pairs[figure.key] = x, y
    common = np.full((len(names), 2), np.nan)
    for row, name in zip(common, names, strict=True):
        of_a, of_b = (
            {(step, t): (p - t) / fps for step, t, p in matching(r[name]).correct} for r in (a, b)
        )
        if both := sorted(of_a.keys() & of_b):
            row[:] = np.mean([(of_a[key], of_b[key]) for key in both], axis=0)
    pairs["common_delay_s"] = common[:, 0], common[:, 1]
    for figure in headline.WRONG:
        if figure.better:
            wrong = ([r[name].get("wrong") or {} for name in names] for r in (a, b))
            x, y = (np.array([one.get(figure.key) for one in r], np.float64) for r in wrong)
            pairs[f"wrong.{figure.key}"] = x, y
    return pairs


def _row(a: np.ndarray, b: np.ndarray) -> dict[str, float | int | None]:
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined], b[defined]
    if not len(a):
        return dict.fromkeys(("a", "b", "difference", "low", "high")) | {"recordings": 0}
    drawn = np.random.default_rng(0).integers(0, len(a), (SAMPLES, len(a)))
    means = (b - a)[drawn].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return {
        "a": float(a.mean()),
        "b": float(b.mean()),
        "difference": float((b - a).mean()),
        "low": low,
        "high": high,
        "recordings": len(a),
    }
