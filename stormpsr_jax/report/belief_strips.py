"""What the learned fusion believes of each component over time, as a strip per component.

Like the report's other figures: NumPy only, matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring.metrics import Step
from stormpsr_jax.psr.streams import learned_beliefs, streams
from stormpsr_jax.psr.streams.learned_beliefs import Weights
from stormpsr_jax.report import pages
from stormpsr_jax.report.pages import INK, PALETTE, WRONG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_COLUMNS = 400  # more of them cannot be told apart on a screen


def belief_strips(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    settings: Mapping[str, Any],
    weights: Weights | None,
) -> dict[str, str]:
    """Returns by recording an SVG document of the beliefs; none of a recording without frames.

    Args:
        recordings: with scores, if weights are given.
        settings: by stream; of those that are fitted beliefs are shown.
        weights: of fitted streams; without them there are no beliefs.
    """
    drawn = {}
    fitted = [streams.find(name) for name in settings if streams.find(name).fitted]
    for stream in fitted if weights is not None else ():
        for name, r in recordings.items():
            belief = stream.beliefs(procedure, r, settings[stream.name], weights)
            if belief is not None and r.scores is not None and len(belief.right):
                times, colour = r.scores.frames / procedure.fps, PALETTE[stream.colour]
                with pages.style():
                    figure = _figure(times, belief, colour, r.truth, procedure)
                drawn[name] = pages.svg(figure)
    return drawn


def columns(
    times: np.ndarray, belief: learned_beliefs.Belief, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns P(right) and P(wrong), each (K, count), at times that are equally far apart.

    Each column has the beliefs of the last frame before its middle.
    """
    middles = times[0] + (np.arange(count) + 0.5) / count * (times[-1] - times[0])
    rows = np.maximum(np.searchsorted(times, middles, "right") - 1, 0)
    right, wrong = (0.5 + 0.5 * np.tanh(x[rows].T / 2) for x in (belief.right, belief.wrong))
    return right, wrong


def _figure(
    times: np.ndarray,
    belief: learned_beliefs.Belief,
    colour: str,
    truth: Sequence[Step],
    procedure: Procedure,
) -> Figure:
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    right, wrong = columns(times, belief, min(MAX_COLUMNS, len(times)))
    share = (wrong / np.maximum(right + wrong, 1e-9))[..., None]
    picture = np.empty((*right.shape, 4))
    picture[..., :3] = (1 - share) * to_rgb(colour) + share * to_rgb(WRONG)
    picture[..., 3] = np.minimum(right + wrong, 1)  # transparent: absent

    width, left, below, K = 10.0, 2.15, 0.35, len(right)
    height = below + 0.2 * K + 0.08
    figure = Figure(figsize=(width, height))
    place = (left / width, below / height, 1 - (left + 0.1) / width, 0.2 * K / height)
    axes = figure.add_axes(place)
    fps = procedure.fps
    end = max(times[-1], times[0] + 1 / fps)
    extent = (times[0], end, K, 0)
    axes.imshow(picture, extent=extent, aspect="auto", interpolation="nearest", zorder=1)
    for k, component in enumerate(procedure.components):
        name = textwrap.shorten(component, 27, placeholder="…")
        at = axes.get_yaxis_transform()
        axes.text(-0.026, k + 0.5, name, transform=at, ha="right", va="center")
    rows = [step_id // 3 for _, step_id in truth]
    ends = [k + 1 for k in rows]
    axes.vlines([f / fps for f, _ in truth], rows, ends, color=INK, linewidth=1.6, zorder=2)
    axes.set(ylim=(K, 0), yticks=np.arange(1, K), yticklabels=[])
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    pages.time_ticks(axes, times[0], end)
    return figure
