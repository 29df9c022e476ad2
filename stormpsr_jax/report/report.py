"""The report of a run: one HTML file that needs nothing else, no network either.

NumPy only; matplotlib and jinja2 (``templates/report.html``) are imported when a report is made.
"""

from __future__ import annotations

import base64
import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.psr import advice, analysis, headline, streams, wrong_parts
from stormpsr_jax.psr.metrics import match_steps, scored_steps
from stormpsr_jax.psr.wrong_parts import WrongInstallation, false_alarms
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.report import pages
from stormpsr_jax.report.pages import (
    INK,
    MUTED,
    PALETTE,
    PAPER,
    STRIPE,
    WRONG,
    binned,
    clock,
    style,
    time_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_THUMBNAILS = 12


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
    detections: Mapping[str, Any] | None = None,
) -> None:
    """Writes the report.

    Events are shown as correct, early, wrong or missed by the matching of protocol `paper`, under
    either protocol: that of `released` pairs events of different steps. The page says so.

    Args:
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
        figures: (title, caption, SVG text); `pages.svg` makes one that suits light and dark mode.
        detections: of `detection_scores.score`, the content of detections.json.

    Raises:
        OSError: the file cannot be written.
    """
    entries = {s: metrics["streams"][s] for s in streams.names() if s in metrics["streams"]}
    names = sorted(set().union(*(entry["recordings"] for entry in entries.values())))
    fps = metrics.get("fps") or procedure.fps
    recordings = []
    for i, name in enumerate(names):
        scores = {s: entry["recordings"].get(name, {}) for s, entry in entries.items()}
        marks = {s: outcomes(truth[name], row, fps) for s, row in scores.items()}
        seen = (visible or {}).get(name)
        drawn = pages.svg(figure(scores, truth[name], procedure, fps, seen))
        is_known = seen is not None and np.isfinite(seen[1]).any()
        recordings.append(
            {
                "name": name,
                "scores": scores,
                "num_steps": len(truth[name]),
                "wrong": installations(scores),
                "alarms": [
                    (stream, mark)
                    for stream, of_stream in marks.items()
                    for mark in of_stream
                    if mark.kind == "alarm"
                ],
                "unsure": any(row.get("unsure") for row in scores.values()),
                "visible": float(np.nanmean(seen[1])) if seen and is_known else None,
                "timeline": pages.inline(drawn, f"Timeline of recording {name}", f"t{i}"),
                "cards": _cards(name, truth[name], marks, thumbnails, procedure),
                "num_frames": len({frame for frame, _ in truth[name]}),
            }
        )
    main = metrics.get("default_stream", [*entries][-1])
    own = entries[main]
    figures_of = own["f1"], own.get("seen", {}).get("f1"), own.get("settings", {})
    page = pages.template("report.html").render(
        title=title,
        headline=headline,
        metrics=metrics,
        procedure=procedure,
        fps=fps,
        clock=lambda frame: clock(frame / fps),
        streams=entries,
        main=main,
        nothing_right=advice.nothing_right("In these recordings", *figures_of),
        table=headline.streams({"streams": entries}),
        appearances={stream: streams.find(stream).appearance for stream in entries},
        baseline=streams.BASELINE,
        recordings=recordings,
        stages={
            stage: _panels(stage, rows, f"c{i}")
            for i, (stage, rows) in enumerate((curves or {}).items())
        },
        decoding=analysis.decoding(metrics),
        notes=[*notes, *analysis.notes(metrics)],
        untested=wrong_parts.untested(metrics),
        detections=detections,
        figures=[
            (name, caption, pages.inline(text, name, f"f{i}"))
            for i, (name, caption, text) in enumerate(figures)
        ],
    )
    files.write_text(path, page)


def _cards(
    recording: str,
    truth: Sequence[Step],
    marks: Mapping[str, Sequence[Outcome]],
    thumbnails: Callable[[str, int], bytes | None] | None,
    procedure: Procedure,
) -> list[dict[str, Any]]:
    """A picture of each completion, evenly thinned to `MAX_THUMBNAILS`, and who recognised it."""
    frames = sorted({frame for frame, _ in truth})
    kept = np.linspace(0, len(frames) - 1, min(len(frames), MAX_THUMBNAILS)).round().astype(int)
    outcome = {
        (mark.truth, mark.step_id, stream): mark
        for stream, of_stream in marks.items()
        for mark in of_stream
        if mark.kind != "unsure"
    }
    cards = []
    for frame in (frames[i] for i in kept):
        jpeg = thumbnails(recording, frame) if thumbnails else None
        steps = [step_id for at, step_id in sorted(set(truth)) if at == frame]
        cards.append(
            {
                "frame": frame,
                "jpeg": base64.b64encode(jpeg).decode() if jpeg else None,
                "steps": [
                    (procedure.step_name(s), {m: outcome[frame, s, m] for m in marks})
                    for s in steps
                ],
            }
        )
    return cards


@style()
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
    panels: list[tuple[str, Any]] = []
    for name, curves in series.items():
        figure = Figure(figsize=(3.5, 2.0))
        axes = figure.add_axes((0.13, 0.13, 0.85, 0.76))
        for validation, points in sorted(curves.items()):
            x, y = pages.binned(*np.array(points, float).T)
            colour = PALETTE["orange" if validation else "blue"]
            few = validation and len(x) <= 60
            axes.plot(x, y, "o-" if few else "-", color=colour, markersize=3.5, linewidth=1.4)
        axes.tick_params(length=0)
        axes.locator_params(nbins=5)
        axes.ticklabel_format(scilimits=(-2, 5))
        drawn = pages.inline(pages.svg(figure), f"{stage}: {name}", f"{prefix}-{len(panels)}")
        panels.append((name, drawn))
    return panels


_MARKERS = {"correct": "o", "early": "<", "wrong": "X", "missed": "D"}
# Reported as installed while it is incorrect, as wrong, as wrong without being so.
_WRONG_MARKERS = {"accepted": "s", "found": "v", "alarm": "v"}

Step = tuple[int, int]
Visible = tuple[np.ndarray, np.ndarray]
Interval = tuple[int, int, int | None]  # start, component, end


class Outcome(NamedTuple):
    """The outcome of a truth, of an event, or of the two together."""

    kind: str  # a key of _MARKERS or _WRONG_MARKERS; "unsure" from `truth` until `event`
    step_id: int
    truth: int | None  # frame
    event: int | None  # frame
    text: str  # the delay, or the kind in words


def outcomes(truth: Sequence[Step], row: Mapping[str, Any], fps: float) -> list[Outcome]:
    """Returns the outcome of every truth and event of one stream, `row` being its scores."""
    events = row.get("events", ())
    matching = match_steps(truth, scored_steps(events, row.get("with_errors", False)))
    marks = [
        *(Outcome("correct", s, t, e, f"+{(e - t) / fps:.1f} s") for s, t, e in matching.correct),
        *(Outcome("early", s, t, e, f"early −{(t - e) / fps:.1f} s") for s, t, e in matching.early),
        *(Outcome("wrong", s, None, e, "wrong") for e, s in matching.wrong),
        *(Outcome("missed", s, t, None, "missed") for t, s in matching.missed),
    ]
    for frame, s, _, since in row.get("unsure", ()):
        later = (e[0] for e in events if e[1] // 3 == s // 3 and e[0] >= frame)
        marks.append(Outcome("unsure", s, since, min(later, default=None), ""))
    if row.get("wrong") is None:
        return marks
    wrong = [WrongInstallation(*values) for values in row["wrong"]["installations"]]
    for k, start, _, accepted, called in wrong:
        if accepted is not None:
            marks.append(Outcome("accepted", 3 * k, None, accepted, "as installed"))
        if called is not None:
            text = f"as incorrect +{(called - start) / fps:.1f} s"
            marks.append(Outcome("found", 3 * k, None, called, text))
    for frame, s in false_alarms(wrong, scored_steps(events, with_errors=True)):
        marks.append(Outcome("alarm", s - 1, None, frame, "false alarm"))
    return marks


def installations(
    scores: Mapping[str, Mapping[str, Any]],
) -> dict[Interval, dict[str, WrongInstallation]]:
    """Returns by wrong installation, in time order, what each stream made of it."""
    by_interval: dict[Interval, dict[str, WrongInstallation]] = {}
    for stream, row in scores.items():
        for values in (row.get("wrong") or {"installations": ()})["installations"]:
            one = WrongInstallation(*values)
            by_interval.setdefault((one.start, one.component, one.end), {})[stream] = one
    return dict(sorted(by_interval.items(), key=lambda item: item[0][:2]))


@style()
def figure(
    scores: Mapping[str, Mapping[str, Any]],
    truth: Sequence[Step],
    procedure: Procedure,
    fps: float,
    visible: Visible | None = None,
) -> Figure:
    """Draws a row per step with a lane per stream; below it the visible fraction at the same times.

    Args:
        scores: the recording's entries in metrics.json, by stream.
        truth: (frame, step id); metrics.json has it as "truth" of each entry.
        visible: frames (M,) ascending and visible fractions (M,), NaN where unknown.
    """
    from matplotlib.figure import Figure

    marks = {stream: outcomes(truth, row, fps) for stream, row in scores.items()}
    wrong = installations(scores)
    every = [mark for of_stream in marks.values() for mark in of_stream]
    first: dict[int, int] = {}  # step id: frame that places its row; steps never due come last
    for frame, step_id in sorted(truth):
        first.setdefault(step_id, frame)
    for since, k, _ in wrong:
        first.setdefault(3 * k, since)
    for mark in sorted(every, key=lambda mark: mark.event or 0):
        first.setdefault(mark.step_id, 2**62 + (mark.event or 0))
    rows = {s: row for row, s in enumerate(sorted(first, key=lambda s: (first[s], s)))}
    frames = [f for mark in every for f in (mark.truth, mark.event) if f is not None]
    frames += [frame for frame, _ in truth]
    frames += [f for since, _, until in wrong for f in (since, until) if f is not None]
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
        letter: dict[str, Any] = {"transform": at, "fontsize": 6.5, "ha": "right", "va": "center"}
        for stream, lane in lanes.items():
            colour = PALETTE[streams.find(stream).appearance.colour]
            axes.text(-0.008, row + lane, stream[0].upper(), color=colour, weight="bold", **letter)
    look: dict[str, Any] = {"ec": WRONG, "lw": 0.8, "zorder": 1, "alpha": 0.8, "clip_on": False}
    for since, k, until in wrong:
        length = (end if until is None else until / fps) - since / fps
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
        colour = PALETTE[streams.find(stream).appearance.colour]
        for mark in of_stream:
            if mark.kind == "unsure" and mark.truth is not None:
                begin, over = mark.truth / fps, end if mark.event is None else mark.event / fps
                bar: dict[str, Any] = {"ec": PALETTE["amber"], "fill": False, "hatch": "////"}
                y = rows[mark.step_id] + lanes[stream]
                axes.barh(y, over - begin, 0.17, begin, lw=0.8, zorder=3, **bar)
        known = [mark for mark in of_stream if mark.kind != "unsure"]
        _draw_lane(axes, known, rows, lanes[stream], colour, fps, span)
    if visible is not None:
        lower = figure.add_axes((box[0], below / height, box[1], strip / height), sharex=axes)
        times, values = binned(np.asarray(visible[0]) / fps, np.asarray(visible[1], float))
        lower.fill_between(times, values, color=MUTED, alpha=0.45, linewidth=0)
        lower.set(ylim=(0, 1), yticks=[0, 0.5, 1], yticklabels=["0", "50", "100 %"])
        text = "Visible part\nof the object"
        lower.text(-0.062, 0.5, text, transform=lower.transAxes, ha="right", va="center")
        axes.tick_params(labelbottom=False, length=0)
    # Room for the text at the last marks.
    axes.set_xlim(start - 0.008 * span, end + 0.11 * span)
    time_ticks(axes, start, end)
    return figure


def _draw_lane(
    axes: Axes,
    marks: Sequence[Outcome],
    rows: Mapping[int, int],
    lane: float,
    colour: str,
    fps: float,
    span: float,
) -> None:
    """Markers, delays and texts of one stream; `lane` is its place within a row, 0…1."""
    look: dict[str, Any]
    markers = _MARKERS | _WRONG_MARKERS
    points: dict[str, list[tuple[float, float]]] = {kind: [] for kind in markers}
    spots = []  # (row, left end, right end, text)
    for mark in marks:
        row, y = rows[mark.step_id], rows[mark.step_id] + lane
        ends = [frame for frame in (mark.truth, mark.event) if frame is not None]
        origin, x = ends[0] / fps, ends[-1] / fps
        points[mark.kind].append((x, y))
        spots.append((row, min(x, origin), max(x, origin), mark.text))
        if mark.kind == "correct":
            axes.barh(y, x - origin, 0.15, origin, color=colour, alpha=0.4, lw=0, clip_on=False)
        elif mark.kind == "early":
            axes.barh(y, origin - x, 0.17, x, ec=colour, fill=False, hatch="/////", linewidth=0)
    for kind, of_kind in points.items():
        ink = WRONG if kind in _WRONG_MARKERS else colour
        hollow = kind in ("missed", "alarm")
        face = PAPER if hollow else ink
        size, edge = (4.2, 1.3) if hollow else (5.5, 0.4)
        look = {"ms": size, "mew": edge, "color": ink, "mfc": face, "clip_on": False, "zorder": 4}
        axes.plot([x for x, _ in of_kind], [y for _, y in of_kind], markers[kind], **look)
    # A text is left out where another mark or bar of the lane is in its way.
    for spot in spots:
        row, _, left, text = spot
        right = left + span * (0.02 + 0.0066 * len(text))
        others = (other for other in spots if other is not spot and other[0] == row)
        if not any(other[1] < right and other[2] >= left for other in others):
            axes.text(left + 0.009 * span, row + lane, text, fontsize=6.5, va="center", zorder=5)
