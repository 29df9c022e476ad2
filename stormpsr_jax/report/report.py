"""The report of a run: one HTML file that needs nothing else, no network either.

NumPy only; matplotlib and jinja2 (``templates/report.html``) are imported when a report is made.
"""

import base64
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.psr import advice, analysis, headline, wrong_parts
from stormpsr_jax.psr import streams as all_streams
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.report import pages, timeline
from stormpsr_jax.report.pages import PALETTE, clock
from stormpsr_jax.report.timeline import Outcome, Step, Visible

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
    of_streams = metrics["streams"]
    streams = {s: of_streams[s] for s in all_streams.names() if s in of_streams}
    names = sorted(set().union(*(stream["recordings"] for stream in streams.values())))
    fps = metrics.get("fps") or procedure.fps
    recordings = []
    for i, name in enumerate(names):
        scores = {s: stream["recordings"].get(name, {}) for s, stream in streams.items()}
        marks = {s: timeline.outcomes(truth[name], row, fps) for s, row in scores.items()}
        installations = timeline.installations(scores)
        seen = (visible or {}).get(name)
        drawn = pages.svg(timeline.figure(scores, truth[name], procedure, fps, seen))
        recordings.append(
            {
                "name": name,
                "scores": scores,
                "num_steps": len(truth[name]),
                "wrong": timeline.wrong_rows(installations, procedure, fps),
                "alarms": [
                    (stream, procedure.components[mark.step_id // 3], clock(mark.event / fps))
                    for stream, of_stream in marks.items()
                    for mark in of_stream
                    if mark.kind == "alarm" and mark.event is not None
                ],
                "unsure": any(row.get("unsure") for row in scores.values()),
                "visible": None
                if seen is None or not np.isfinite(seen[1]).any()
                else float(np.nanmean(seen[1])),
                "timeline": pages.inline(drawn, f"Timeline of recording {name}", f"t{i}"),
                "cards": _cards(name, truth[name], marks, thumbnails, procedure, fps),
                "num_frames": len({frame for frame, _ in truth[name]}),
            }
        )
    main = metrics.get("default_stream", [*streams][-1])
    own = streams[main]
    figures_of = own["f1"], own.get("seen", {}).get("f1"), own.get("settings", {})
    page = pages.template("report.html").render(
        title=title,
        headline=headline,
        metrics=metrics,
        procedure=procedure,
        fps=fps,
        streams=streams,
        main=main,
        nothing_right=advice.nothing_right("In these recordings", *figures_of),
        table=_table(streams),
        looks={stream: all_streams.find(stream).look for stream in streams},
        baseline=all_streams.BASELINE,
        recordings=recordings,
        stages={
            stage: _panels(stage, rows, f"c{i}")
            for i, (stage, rows) in enumerate((curves or {}).items())
        },
        notes=[*notes, *analysis.notes(metrics)],
        untested=wrong_parts.untested(metrics),
        detections=detections,
        figures=[
            (name, caption, pages.inline(text, name, f"f{i}"))
            for i, (name, caption, text) in enumerate(figures)
        ],
    )
    files.write_text(path, page)


def _table(streams: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any], list[Any]]]:
    """(stream, what is behind its title, figures, those of its recordings), a row each."""
    rows = []
    for name, entry in headline.streams({"streams": streams}).items():
        stream = name.removesuffix(" (seen)")
        of_recordings = list(entry["recordings"].values())
        rows.append((stream, name.removeprefix(stream), entry, of_recordings))
    return rows


def _cards(
    recording: str,
    truth: Sequence[Step],
    marks: Mapping[str, Sequence[Outcome]],
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
        if mark.kind != "unsure"
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
        with pages.style():
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
