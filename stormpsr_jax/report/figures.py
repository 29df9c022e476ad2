"""Figures of a result: delays, occlusion, steps, recordings, reliability and more.

Drawn from the content of metrics.json by what `psr.analysis` computes. NumPy only; matplotlib is
imported when a figure is drawn.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stormpsr_jax.psr import analysis, calibration, headline, streams
from stormpsr_jax.report import pages
from stormpsr_jax.report.pages import INK, MUTED, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.2  # inches; the report shows two figures beside each other

Result = Mapping[str, Any]
Drawn = tuple[str, str, "Figure"] | None  # title, caption, figure; None with nothing to show


def analysis_figures(result: Result) -> list[tuple[str, str, str]]:
    """Draws what can be drawn of a result, for `report.write_report(figures=…)`.

    Args:
        result: the content of metrics.json: "protocol", "fps", "components" and, by stream and
            recording, "pos", "f1", "delay_s", "truth" and "events". The figure of occlusion needs
            the recordings' "visible" too, that of reliability the streams' "reliability".

    Returns:
        (title, caption, SVG) of each figure. One without any data is left out.
    """
    draw = _delays, _occlusion, _steps, _recordings, _reliability
    matching = "" if result["protocol"] == "paper" else " Matched as in protocol “paper”."
    figures = []
    for one in draw:
        with pages.style():
            drawn = one(result)
        if drawn is not None:
            title, caption, figure = drawn
            figures.append((title, caption + matching, pages.svg(figure)))
    return figures


def _axes(height: float, num: int = 1, sharey: bool = False) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, num, squeeze=False, sharey=sharey)[0]
    for one in axes:
        one.tick_params(length=0)
    return figure, axes


def _legend(figure: Figure, axes: Axes, num_columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=num_columns)


def _streams(result: Result) -> list[str]:
    return [stream for stream in streams.names() if stream in result["streams"]]


def _title(stream: str) -> str:
    return streams.find(stream).appearance.title


def _colour(stream: str) -> str:
    return PALETTE[streams.find(stream).appearance.colour]


def _delays(result: Result) -> Drawn:
    table = {row["stream"]: row for row in analysis.delays_table(result) if row["tp"]}
    if not table:
        return None
    figure, (axes,) = _axes(3.0)
    for stream in _streams(result):
        if stream not in table:
            continue
        row, colour = table[stream], _colour(stream)
        delays = analysis.delays(result, stream)
        part = np.arange(len(delays) + 1) / len(delays)
        label = f"{_title(stream)}: median {row['median_s']:.1f} s, p90 {row['p90_s']:.1f} s"
        label += f" ({row['tp']} steps)"
        axes.step([0.0, *delays], part, where="post", color=colour, label=label)
        axes.plot([row["median_s"], row["p90_s"]], [0.5, 0.9], "o", color=colour, ms=4.5)
    axes.set(xlabel="Delay in seconds", ylabel="Part of the correct steps", ylim=(0, 1.03))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 1])
    _legend(figure, axes, 1)
    caption = "Distribution of the delay of all correct steps, with the median and the p90 as dots."
    return "Delay", caption, figure


def _occlusion(result: Result) -> Drawn:
    rows = analysis.occlusion_table(result)
    if not any(row["truths"] for row in rows):
        return None
    streams = _streams(result)
    parts = list(dict.fromkeys(row["visible"] for row in rows))
    figure, panels = _axes(2.8, 2)
    width = 0.8 / len(streams)
    for axes, key, label in zip(
        panels, ("recall", "delay_s"), ("Recall", "Mean delay in seconds"), strict=True
    ):
        for i, stream in enumerate(streams):
            values = {row["visible"]: row[key] for row in rows if row["stream"] == stream}
            known = [j for j, part in enumerate(parts) if values[part] is not None]
            axes.bar(
                [j + (i - (len(streams) - 1) / 2) * width for j in known],
                [values[parts[j]] for j in known],
                0.92 * width,
                color=_colour(stream),
                label=_title(stream),
            )
        counts = {row["visible"]: row["truths"] for row in rows}
        ticks = [f"{part}\n{counts[part]} steps" for part in parts]
        axes.set_xticks(range(len(parts)), ticks, fontsize=6.5)
        axes.set(xlabel="Visible part of the object", ylabel=label)
        axes.grid(False, axis="x")
    panels[0].set_ylim(0, 1.03)
    _legend(figure, panels[0], 3)
    caption = (
        "By the visible fraction of the object at the frame of completion, over the true steps "
        "where it is known."
    )
    return "Occlusion", caption, figure


def _steps(result: Result) -> Drawn:
    from matplotlib.patches import Patch

    table: dict[int, dict[str, dict[str, Any]]] = {}
    for row in analysis.steps_table(result):
        table.setdefault(row["step"], {})[row["stream"]] = row
    if not table:
        return None
    steps = sorted(table)
    streams = _streams(result)
    figure, (axes,) = _axes(0.9 + 0.14 * len(steps) * (len(streams) + 0.6))
    height = 0.84 / len(streams)
    for y, step in enumerate(steps):
        for i, stream in enumerate(streams):
            if stream not in table[step]:
                continue
            row = table[step][stream]
            early = row["truths"] - row["tp"] - row["fn"]
            at = y + (i - (len(streams) - 1) / 2) * height
            colour = _colour(stream)
            look: dict[str, Any] = {"height": 0.85 * height, "ec": colour, "lw": 0.8}
            axes.barh(at, early - row["fp"], **look, color=colour, alpha=0.4)  # wrong, to the left
            axes.barh(at, row["tp"], **look, color=colour)
            axes.barh(at, early, left=row["tp"], **look, fill=False, hatch="//////")
            axes.barh(at, row["fn"], left=row["tp"] + early, **look, fill=False)
            if row["delay_s"] is not None:
                axes.text(row["truths"], at, f" +{row['delay_s']:.1f} s", fontsize=6.5, va="center")
    names = [next(iter(table[step].values()))["name"] for step in steps]
    names = [textwrap.fill(name, 30, max_lines=2, placeholder="…") for name in names]
    axes.set_yticks(range(len(steps)), names, color=INK)
    axes.set(ylim=(len(steps) - 0.4, -0.6), xlabel="Wrong (left of 0) and true steps")
    axes.locator_params(axis="x", integer=True)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.grid(False, axis="y")
    key = [
        Patch(color=_colour(stream), label=_title(stream)) for stream in streams
    ] + [
        Patch(color=MUTED, label="correct"),
        Patch(ec=MUTED, fill=False, hatch="//////", label="early"),
        Patch(ec=MUTED, fill=False, label="missed"),
        Patch(color=MUTED, alpha=0.4, label="wrong"),
    ]  # fmt: skip
    figure.legend(handles=key, frameon=False, loc="outside upper center", ncols=4)
    caption = "Outcomes of each step over all recordings, with the mean delay of the correct ones."
    return "Outcome by step", caption, figure


def _recordings(result: Result) -> Drawn:
    streams = _streams(result)
    rows = {(r["recording"], r["stream"]): r for r in analysis.recordings_table(result)}
    names = sorted({name for name, _ in rows})
    if len(names) < 2:
        return None
    columns = headline.means(rows.values())
    figure, panels = _axes(1.1 + 0.2 * len(names), len(columns), sharey=True)
    for axes, figure_of in zip(panels, columns, strict=True):
        for stream in streams:
            points = [
                (rows[name, stream][figure_of.key], y)
                for y, name in enumerate(names)
                if (name, stream) in rows and rows[name, stream][figure_of.key] is not None
            ]
            if points:  # an empty line that is not clipped would spoil the layout
                look: dict[str, Any] = {"color": _colour(stream), "alpha": 0.8, "clip_on": False}
                axes.plot(*zip(*points, strict=True), "o", ms=5, label=_title(stream), **look)
        axes.set_xlabel(
            textwrap.fill(figure_of.heading, 9), fontsize=7
        )  # six panels have little room
        axes.locator_params(axis="x", nbins=2, min_n_ticks=1)
        if not figure_of.unit:
            axes.set(xlim=(0, 1), xticks=[0, 1])
    labels = [name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}" for name in names]
    panels[0].set_yticks(range(len(names)), labels, color=INK)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    _legend(figure, panels[0], 3)
    means = ", ".join(figure_of.label for figure_of in columns)
    caption = f"{means} of each recording; what is undefined has no dot."
    return "Recordings", caption, figure


def _reliability(result: Result) -> Drawn:
    rows = calibration.table(result)
    whole = {row["stream"]: row for row in rows if row["confidences"] == "all"}
    if not whole:
        return None
    figure, (axes,) = _axes(3.0)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=0.8)
    streams = [stream for stream in _streams(result) if stream in whole]
    for stream in streams:
        bins = [row for row in rows if row["stream"] == stream and row["confidences"] != "all"]
        points = zip(*[(row["confidence"], row["right"]) for row in bins], strict=True)
        label = f"{_title(stream)}: ECE {whole[stream]['error']:.3f}"
        axes.plot(*points, "o-", label=label, color=_colour(stream), ms=4.5, clip_on=False)
    axes.set(xlabel="Mean confidence", ylabel="Share of correct events", xlim=(0, 1), ylim=(0, 1))
    _legend(figure, axes, 1)
    values = "; ".join(
        f"{_title(s)}: {whole[s]['events']} events, "
        f"mean confidence {whole[s]['confidence']:.2f}, "
        f"{whole[s]['right']:.0%} correct, ECE {whole[s]['error']:.3f}"
        for s in streams
    )
    caption = (
        "How often events are correct, by their confidence, in bins of equally many events. On the "
        "dashed line the two are equal. The expected calibration error (ECE) is the mean distance "
        f"from it. {values}."
    )
    return "Reliability of confidences", caption, figure
