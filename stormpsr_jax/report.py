"""The report of a run: one HTML file that needs nothing else, no network either.

NumPy only; matplotlib and jinja2 (``templates/report.html``) are imported when a report is made.
Colours of the figures become CSS variables, which follow the reader's light or dark mode.
"""

import base64
import contextlib
import functools
import io
import math
import os
import pathlib
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax import files, wrong_marks
from stormpsr_jax.psr import analysis, headline
from stormpsr_jax.psr.metrics import match_steps, scored
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.wrong_marks import WRONG, clock

MAX_THUMBNAILS = 12
INK, MUTED, GRID, STRIPE, PAPER = "#000000", "#6b6b6b", "#d4d4d4", "#f0f0f0", "#fefefe"
# Hues of Okabe and Ito, which people with the common colour vision deficiencies tell apart.
STREAM_NAMES = {
    "asd": "ASD only",
    "temporal": "Temporal only",
    "storm": "STORM-PSR",
    "learned": "Learned fusion",
}
STREAM_COLOURS = {
    "asd": "#0072b2",
    "temporal": "#d55e00",
    "storm": "#009e73",
    "learned": "#aa4499",
}
_VARIABLES = {
    **{INK: "ink", MUTED: "muted", GRID: "grid", STRIPE: "stripe", PAPER: "card", WRONG: "bad"},
    **{colour: stream for stream, colour in STREAM_COLOURS.items()},
}
_MARKERS = {"correct": "o", "early": "<", "wrong": "X", "missed": "D", "uncertain": "o"}
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_MAX_POINTS = 400  # of a curve; more of them cannot be told apart on a screen

Step = tuple[int, int]
Visible = tuple[np.ndarray, np.ndarray]


class _Mark(NamedTuple):
    """The outcome of a truth, of an event, or of the two together."""

    kind: str  # a key of _MARKERS or wrong_marks.MARKERS
    step_id: int
    truth: int | None  # frame
    event: int | None  # frame
    text: str  # the delay, or the kind in words


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    metrics: Mapping[str, Any],
    procedure: Procedure,
    truth: Mapping[str, Sequence[Step]],
    visible: Mapping[str, Visible] | None = None,
    thumbnails: Callable[[str, int], bytes | None] | None = None,
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    notes: Sequence[str] = (),
    figures: Sequence[tuple[str, str, str]] = (),
    strips: Mapping[str, str] | None = None,
) -> None:
    """Writes the report.

    Events are shown as correct, early, wrong or missed by the matching of protocol `paper`, under
    either protocol: that of `released` pairs events of different steps. The page says so.

    Args:
        path: the HTML file to write.
        title: of the page.
        metrics: the content of metrics.json. A stream's "settings", where given, hold "threshold",
            "confidence" (the floor) and "weight". The page shows its `analysis.notes` too.
        procedure: for the names of steps, and the frames per second if `metrics` has no "fps".
        truth: (frame, step id) by recording.
        visible: by recording, frames (M,) ascending and visible fractions (M,), NaN where unknown.
        thumbnails: returns the JPEG of a recording's frame, or None. Pictures go in as they are, so
            they should be small.
        curves: the rows of metrics.jsonl by stage: "step" and scalars, those of validation as
            "val/NAME".
        notes: paragraphs of plain text below the results.
        figures: (title, caption, SVG text); `svg` makes one that suits light and dark mode.
        strips: by recording, SVG text of what the learned fusion believes.

    Raises:
        ValueError: no stream in `metrics`, or one of its recordings is not in `truth`.
        OSError: the file cannot be written.
    """
    streams = {s: metrics["streams"][s] for s in STREAM_COLOURS if s in metrics["streams"]}
    if not streams:
        raise ValueError(f"metrics hold none of the streams {', '.join(STREAM_COLOURS)}")
    names = sorted(set().union(*(stream["recordings"] for stream in streams.values())))
    for name in names:
        if name not in truth:
            raise ValueError(f"no ground truth for recording {name!r}; check --labels")
    fps = metrics.get("fps") or procedure.fps
    recordings = []
    for i, name in enumerate(names):
        scores = {s: stream["recordings"].get(name, {}) for s, stream in streams.items()}
        marks = {s: _marks(truth[name], row, fps) for s, row in scores.items()}
        installations = wrong_marks.installations(scores)
        seen = (visible or {}).get(name)
        with style():
            timeline = _timeline(truth[name], marks, installations, seen, procedure, fps)
        recordings.append(
            {
                "name": name,
                "scores": scores,
                "num_steps": len(truth[name]),
                "wrong": wrong_marks.rows(installations, procedure, fps),
                "alarms": wrong_marks.alarms(marks, procedure, fps),
                "uncertain": [
                    (stream, procedure.step_name(step), clock(frame / fps), confidence)
                    for stream, row in scores.items()
                    for frame, step, confidence in row.get("uncertain", ())
                ],
                "visible": None if seen is None else _mean(seen[1]),
                "beliefs": inline(strips[name], f"Beliefs in recording {name}", f"b{i}")
                if strips and name in strips
                else None,
                "timeline": inline(svg(timeline), f"Timeline of recording {name}", f"t{i}"),
                "cards": _cards(name, truth[name], marks, thumbnails, procedure, fps),
                "num_frames": len({frame for frame, _ in truth[name]}),
            }
        )
    page = template("report.html").render(
        title=title,
        headline=headline,
        metrics=metrics,
        procedure=procedure,
        fps=fps,
        streams=streams,
        stream_names=STREAM_NAMES,
        recordings=recordings,
        stages={
            stage: _panels(stage, rows, f"c{i}")
            for i, (stage, rows) in enumerate((curves or {}).items())
        },
        notes=[*notes, *analysis.notes(metrics)],
        figures=[
            (name, caption, inline(text, name, f"f{i}"))
            for i, (name, caption, text) in enumerate(figures)
        ],
    )
    files.write_text(path, page)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of the report's figures, whatever matplotlibrc the user has."""
    import matplotlib.style

    look = {
        "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
        "svg.hashsalt": "stormpsr",
        "text.parse_math": False,  # a name with two dollar signs is no formula
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 8.5,
        "axes.edgecolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
    }
    with matplotlib.style.context(["default", look]):
        yield


def svg(figure) -> str:
    """Returns a matplotlib Figure as SVG text for `write_report`; draw it within `style()`."""
    text = io.StringIO()
    with style():
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def inline(text: str, label: str, prefix: str):
    """Makes an SVG document part of a page: no prolog, colours as variables, ids of its own."""
    import markupsafe

    root = re.search(r"<svg\b[^>]*>", text)
    view_box = re.search(r'viewBox="[^"]*"', root[0])[0]
    body = text[root.end() : text.rindex("</svg>")].replace("xlink:href", "href")
    # matplotlib's style sheet would hold for the whole page, which has a font of its own.
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r"\s*\n\s*", "\n", body)
    used = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', body))
    ids = {name: f"{prefix}-{i}" for i, name in enumerate(used)}
    changes = [
        (r' id="([^"]*)"', lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else ""),
        (r'(href="|url\()#([^")]+)', lambda m: f"{m[1]}#{ids[m[2]]}"),
        (f"(?<=: )({'|'.join(_VARIABLES)})", lambda m: f"var(--{_VARIABLES[m[0]]})"),
        (r' transform="rotate\(-0 [^"]*"|font-family: [^;"]*;? ?', ""),
        (r"\b([1-9]\d*\.\d\d)\d+", r"\1"),
    ]

    def change(tag: re.Match) -> str:
        return functools.reduce(lambda text, c: re.sub(*c, text), changes, tag[0])

    body = re.sub(r"<[^>]+>", change, body)
    body = re.sub(r"<g>\n(<(?:path|text)\b[^>]*>(?:[^<]*</text>)?)\n</g>", r"\1", body)
    label = markupsafe.escape(label)
    return markupsafe.Markup(f'<svg {view_box} role="img" aria-label="{label}">{body}</svg>')


def template(name: str):
    """Returns a jinja2 template of the folder ``templates``; what it is given is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = lambda x, digits: "–" if x is None else f"{x:.{digits}f}"
    return environment.get_template(name)


def _mean(values: np.ndarray) -> float | None:
    values = np.asarray(values, float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _marks(truth: Sequence[Step], row: Mapping[str, Any], fps: float) -> list[_Mark]:
    """The outcome of every truth and every event of one stream, `row` being its scores."""
    events = row.get("events", ())
    matching = match_steps(truth, scored(events, row.get("with_errors", False)))
    marks = [
        *(_Mark("correct", s, t, e, f"+{(e - t) / fps:.1f} s") for s, t, e in matching.correct),
        *(_Mark("early", s, t, e, f"early −{(t - e) / fps:.1f} s") for s, t, e in matching.early),
        *(_Mark("wrong", s, None, e, "wrong") for e, s in matching.wrong),
        *(_Mark("missed", s, t, None, "missed") for t, s in matching.missed),
    ]
    for frame, s, confidence in row.get("uncertain", ()):
        s -= s % 3 == 1  # reports of a wrong part stand in the row of its installation
        marks.append(_Mark("uncertain", s, None, frame, f"uncertain {confidence:.0%}"))
    wrong = wrong_marks.marks(row, fps)
    return marks + [_Mark(kind, step, None, frame, text) for kind, step, frame, text in wrong]


def _cards(
    recording: str,
    truth: Sequence[Step],
    marks: Mapping[str, Sequence[_Mark]],
    thumbnails: Callable[[str, int], bytes | None] | None,
    procedure: Procedure,
    fps: float,
) -> list[dict[str, Any]]:
    """A picture of each completion, evenly thinned to `MAX_THUMBNAILS`, and who recognised it."""
    frames = sorted({frame for frame, _ in truth})
    kept = np.linspace(0, len(frames) - 1, min(len(frames), MAX_THUMBNAILS)).round().astype(int)
    outcome = {
        (mark.truth, mark.step_id, stream): mark
        for stream, of_stream in marks.items()
        for mark in of_stream
    }
    cards = []
    for frame in (frames[i] for i in kept):
        jpeg = thumbnails(recording, frame) if thumbnails else None
        steps = [step_id for at, step_id in sorted(set(truth)) if at == frame]
        cards.append(
            {
                "frame": frame,
                "time": clock(frame / fps),
                "jpeg": base64.b64encode(jpeg).decode() if jpeg else None,
                "steps": [
                    (procedure.step_name(s), {m: outcome[frame, s, m] for m in marks})
                    for s in steps
                ],
            }
        )
    return cards


def _timeline(
    truth: Sequence[Step],
    marks: Mapping[str, Sequence[_Mark]],
    wrong: Collection[tuple[int, int, int | None]],
    visible: Visible | None,
    procedure: Procedure,
    fps: float,
):
    """A row per step with a lane per stream; below it the visible fraction at the same times."""
    from matplotlib.figure import Figure

    every = [mark for of_stream in marks.values() for mark in of_stream]
    first: dict[int, int] = {}  # step id: frame that places its row; steps never due come last
    for frame, step_id in sorted(truth):
        first.setdefault(step_id, frame)
    for start, k, _ in wrong:
        first.setdefault(3 * k, start)
    for mark in sorted(every, key=lambda mark: mark.event or 0):
        first.setdefault(mark.step_id, 2**62 + (mark.event or 0))
    rows = {s: row for row, s in enumerate(sorted(first, key=lambda s: (first[s], s)))}
    frames = [f for mark in every for f in (mark.truth, mark.event) if f is not None]
    frames += [frame for frame, _ in truth]
    frames += [f for start, _, end in wrong for f in (start, end) if f is not None]
    frames += [0] if visible is None else np.asarray(visible[0])[[0, -1]].tolist()
    start, end = min(frames) / fps, max(frames) / fps
    span = max(end - start, 1 / fps)

    width, left, right, below = 10.0, 2.15, 0.1, 0.35
    row_height = max(0.36, 0.12 * len(marks))
    strip, gap = (0.62, 0.16) if visible is not None else (0.0, 0.0)
    height = below + strip + gap + max(len(rows), 1) * row_height + 0.08
    figure = Figure(figsize=(width, height))
    box = (left / width, (width - left - right) / width)
    axes = figure.add_axes(
        (box[0], (below + strip + gap) / height, box[1], 1 - (below + strip + gap + 0.08) / height)
    )
    axes.set(ylim=(max(len(rows), 1), 0), yticks=[])
    axes.spines["left"].set_visible(False)
    lanes = {stream: (i + 0.5) / len(marks) * 0.86 + 0.07 for i, stream in enumerate(marks)}
    for step_id, row in rows.items():
        if row % 2 == 0:
            axes.axhspan(row, row + 1, color=STRIPE, lw=0, zorder=0)
        name = textwrap.fill(procedure.step_name(step_id), 27, max_lines=2, placeholder="…")
        at = axes.get_yaxis_transform()
        axes.text(-0.026, row + 0.5, name, transform=at, ha="right", va="center", linespacing=1.05)
        for stream, lane in lanes.items():
            letter = {"transform": at, "fontsize": 6.5, "ha": "right", "va": "center"}
            colour = STREAM_COLOURS[stream]
            axes.text(-0.008, row + lane, stream[0].upper(), color=colour, weight="bold", **letter)
    for since, k, until in wrong:
        length = (end if until is None else until / fps) - since / fps
        look = {"ec": WRONG, "lw": 0.8, "zorder": 1, "alpha": 0.8, "clip_on": False}
        axes.barh(rows[3 * k] + 0.5, length, 0.9, since / fps, fill=False, hatch="....", **look)
    axes.vlines(
        [frame / fps for frame, _ in truth],
        [rows[step_id] + 0.06 for _, step_id in truth],
        [rows[step_id] + 0.94 for _, step_id in truth],
        color=INK,
        linewidth=2.2,
        zorder=2,
    )
    for stream, of_stream in marks.items():
        _draw_lane(axes, of_stream, rows, lanes[stream], STREAM_COLOURS[stream], fps, span)
    if visible is not None:
        lower = figure.add_axes((box[0], below / height, box[1], strip / height), sharex=axes)
        times, values = _binned(np.asarray(visible[0]) / fps, np.asarray(visible[1], float))
        lower.fill_between(times, values, color=MUTED, alpha=0.45, linewidth=0)
        lower.set(ylim=(0, 1), yticks=[0, 0.5, 1], yticklabels=["0", "50", "100 %"])
        beside = {"transform": lower.transAxes, "ha": "right", "va": "center"}
        lower.text(-0.062, 0.5, "Visible part\nof the object", **beside)
        axes.tick_params(labelbottom=False, length=0)
    # Room for the text at the last marks.
    axes.set_xlim(start - 0.008 * span, end + 0.11 * span)
    time_ticks(axes, start, end)
    return figure


def time_ticks(axes, start: float, end: float) -> None:
    """Marks whole seconds or minutes on the time axis of a figure, at most about twelve."""
    span = end - start
    spacing = next((s for s in _TICK_SECONDS if span / s <= 12), math.ceil(span / 12))
    ticks = np.arange(math.ceil(start / spacing), math.floor(end / spacing) + 1) * spacing
    axes.set_xticks(ticks, [clock(tick) for tick in ticks])


def _draw_lane(axes, marks, rows, lane, colour, fps, span) -> None:
    """Markers, delays and texts of one stream; `lane` is its place within a row, 0…1."""
    look = {"clip_on": False, "zorder": 4}
    markers = _MARKERS | wrong_marks.MARKERS
    points: dict[str, list[tuple[float, float]]] = {kind: [] for kind in markers}
    spots = []  # (row, left end, right end, text)
    for mark in marks:
        row, y = rows[mark.step_id], rows[mark.step_id] + lane
        x = (mark.truth if mark.event is None else mark.event) / fps
        origin = (mark.event if mark.truth is None else mark.truth) / fps
        points[mark.kind].append((x, y))
        spots.append((row, min(x, origin), max(x, origin), mark.text))
        if mark.kind == "correct":
            axes.barh(y, x - origin, 0.15, origin, color=colour, alpha=0.4, lw=0, clip_on=False)
        elif mark.kind == "early":
            axes.barh(y, origin - x, 0.17, x, ec=colour, fill=False, hatch="/////", linewidth=0)
    for kind, of_kind in points.items():
        ink = WRONG if kind in wrong_marks.MARKERS else colour
        hollow = kind in ("missed", "alarm", "uncertain")
        face = PAPER if hollow else ink
        size, edge = (4.2, 1.3) if hollow else (5.5, 0.4)
        x, y = zip(*of_kind, strict=True) if of_kind else ((), ())
        axes.plot(x, y, markers[kind], ms=size, mew=edge, color=ink, markerfacecolor=face, **look)
    # A text is left out where another mark or bar of the lane is in its way.
    for spot in spots:
        row, _, left, text = spot
        right = left + span * (0.02 + 0.0066 * len(text))
        others = (other for other in spots if other is not spot and other[0] == row)
        if not any(other[1] < right and other[2] >= left for other in others):
            axes.text(left + 0.009 * span, row + lane, text, fontsize=6.5, va="center", zorder=5)


def _binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over neighbours, at most `_MAX_POINTS` of them; NaN where all are NaN."""
    size = -(-len(x) // _MAX_POINTS)
    starts = np.arange(0, len(x), max(size, 1))
    if not len(starts):
        return x, y
    known = np.isfinite(y)
    counts = np.add.reduceat(known.astype(float), starts)
    sums = np.add.reduceat(np.where(known, y, 0), starts)
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return np.add.reduceat(x, starts) / np.diff([*starts, len(x)]), means


def _panels(stage: str, rows: Sequence[Mapping[str, Any]], prefix: str) -> list[tuple[str, Any]]:
    """A small figure per scalar of a stage, training and validation in one: (name, SVG)."""
    from matplotlib.figure import Figure

    series: dict[str, dict[bool, list[tuple[float, float]]]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "step" and isinstance(value, int | float) and math.isfinite(value):
                name = key.removeprefix("val/")
                curve = series.setdefault(name, {}).setdefault(key != name, [])
                curve.append((row["step"], value))
    panels = []
    for name, curves in series.items():
        with style():
            figure = Figure(figsize=(3.5, 2.0))
            axes = figure.add_axes((0.13, 0.13, 0.85, 0.76))
            for validation, points in sorted(curves.items()):
                x, y = _binned(*np.array(points, float).T)
                colour = STREAM_COLOURS["temporal" if validation else "asd"]
                few = validation and len(x) <= 60
                axes.plot(x, y, "o-" if few else "-", color=colour, markersize=3.5, linewidth=1.4)
            axes.tick_params(length=0)
            axes.locator_params(nbins=5)
            axes.ticklabel_format(scilimits=(-2, 5))
            panels.append(
                (name, inline(svg(figure), f"{stage}: {name}", f"{prefix}-{len(panels)}"))
            )
    return panels
