"""Recordings of detections that are drawn at random, as wrong as those of real videos.

No picture is rendered: a procedure is carried out in a random order that its catalogue knows, at a
random pace, with incorrect parts; a detector looks at it now and then, and says what it sees.
The figures below are chosen so that the result is wrong as the published detections of IndustReal
are (benchmarks/results/noise.md has how both were measured): the object is seen a tenth of the
time, what is shown wrongly is shown for long, and surely, and is mostly a state that comes later; a
incorrect part is shown as right half of the time, and hardly ever as an error.

All of this is ours; the weights of the learned fusion for detections alone are fitted to it
(`tools/fusion_weights.py`).

Dimension letters: N frames, K components, S catalogued states.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.procedure import Procedure, Variant

MAX_TRIES = 1000  # a look that shows nothing, or a recording that is too long, is drawn again


@dataclasses.dataclass(frozen=True)
class Noise:
    """How people work and how the detector is wrong.

    Times are in seconds. A pair (m, s) is of a log-normal distribution: its median and the standard
    deviation of the logarithm.

    Attributes:
        pace: median time between steps, drawn once a recording.
        step: of each time between steps, relative to the pace.
        together: share of the steps between two catalogued states that are done with the one
            before, as parts are that hold each other.
        wrong: share of installations that are first done wrong; `mended` of them are put right.
        unfinished: share of recordings that end before the last catalogued state.
        gap, look: of times in which the object is not seen, and is.
        after_step: share of gaps in which a step is done that end after it, as people look at what
            they have done; `after_step_s` is the mean of how soon.
        density: parameters of the Beta distribution of the share of a look's frames in which the
            object is found.
        level: mean and standard deviation of a look's confidence, as a logit; `spread` is the
            standard deviation of a frame's; `wrong_level` is added where another state is shown.
        confused: share of states that are often taken for another, in how many looks they are, and
            in how many any other state is.
        later: share of these others that have parts too many.
        flicker: share of frames that show something else for themselves; half of them the error
            state.
        wrong_right, wrong_error: share of states with a wrong part that are shown as if it were
            right, and as an error; else it is shown as absent.
        floor: confidence below which the detector lists nothing.
    """

    pace: tuple[float, float] = (13.0, 0.4)
    step: tuple[float, float] = (1.0, 0.9)
    together: float = 0.9
    wrong: float = 0.1
    mended: float = 0.7
    unfinished: float = 0.2
    gap: tuple[float, float] = (6.0, 1.7)
    look: tuple[float, float] = (1.1, 1.15)
    after_step: float = 0.25
    after_step_s: float = 1.5
    density: tuple[float, float] = (20.0, 1.0)
    level: tuple[float, float] = (0.75, 0.8)
    spread: float = 0.5
    wrong_level: float = -0.25
    confused: tuple[float, float, float] = (0.2, 0.3, 0.02)
    later: float = 0.97
    flicker: float = 0.008
    wrong_right: float = 0.45
    wrong_error: float = 0.06
    floor: float = 0.25


class _Shown(NamedTuple):
    """What a state is shown as: a class mostly, another in a share of the looks."""

    mostly: int
    other: int
    share: float


def draw(
    procedure: Procedure,
    variant: Variant,
    rng: np.random.Generator,
    *,
    noise: Noise = Noise(),
    fps: float | None = None,
    name: str = "drawn",
    max_rows: int | None = None,
) -> LabelledPredictions:
    """Draws a recording.

    Args:
        procedure: the product.
        variant: which is carried out.
        rng: decides everything.
        noise: how.
        fps: frames per second, None for the procedure's.
        name: of the recording.
        max_rows: of detections, more are drawn again; None is any number.

    Returns:
        Detections, true states and true steps; incorrect installations are in the states alone.

    Raises:
        ValueError: in `MAX_TRIES` attempts no recording had a detection, and few enough.
    """
    fps = procedure.at(fps).fps
    for _ in range(MAX_TRIES):
        frames, states, length = _work(procedure, variant, noise, fps, rng)
        seen = _look(procedure, noise, fps, frames, states, length, rng)
        if len(seen.frames) and (max_rows is None or len(seen.frames) <= max_rows):
            break
    else:
        raise ValueError(f"procedure {procedure.name!r}: nothing that fits was drawn")
    truth = [
        (int(frame), 3 * int(k) + (0 if after[k] == 1 else 2))
        for frame, before, after in zip(frames[1:], states, states[1:], strict=False)
        for k in np.flatnonzero(before != after)
        if after[k] != -1 and not (before[k] == -1 and after[k] == 0)
    ]
    return LabelledPredictions(name, variant, truth, states, seen, frames=frames)


# --- The work -------------------------------------------------------------------------------------


def _work(
    procedure: Procedure, variant: Variant, noise: Noise, fps: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames (M,) from which states (M, K) hold, and the number of frames."""
    changes = _changes(procedure, variant, noise, rng)
    pace = _log_normal(noise.pace, rng)
    time, frames = pace * rng.random() + 1.0, [0]
    states = [np.array(variant.initial_state, np.int8)]
    for component, value, joined in changes:
        if not joined or rng.random() >= noise.together:
            time += pace * _log_normal(noise.step, rng)
        state = states[-1].copy()
        state[component] = value
        if (frame := int(time * fps)) == frames[-1]:
            states[-1] = state
        else:
            frames.append(frame)
            states.append(state)
    length = frames[-1] + int(fps * (1 + pace * rng.random())) + 1
    return np.array(frames), np.array(states), length


def _changes(
    procedure: Procedure, variant: Variant, noise: Noise, rng: np.random.Generator
) -> list[tuple[int, int, bool]]:
    """(component, its new value, whether it is of the same way as the one before) in order.

    From catalogued state to catalogued state, by the expected steps that are left; the nearest
    first, but for one in five.
    """
    state, left = np.array(variant.initial_state), set(variant.expected)
    changes: list[tuple[int, int, bool]] = []
    while left:
        ways = [
            needed
            for needed in (_steps_between(state, other) for other in procedure.states)
            if needed and left.issuperset(needed)
        ]
        if not ways:
            ways = [[step] for step in sorted(left)]
        nearest = min(map(len, ways)) + (rng.random() < 0.2)
        ways = [way for way in ways if len(way) <= nearest]
        way = rng.permutation(ways[rng.integers(len(ways))]).tolist()
        left -= set(way)
        if not left and rng.random() < noise.unfinished:
            break
        for n, step in enumerate(way):
            component, value, joined = step // 3, int(step % 3 == 0), n > 0
            state[component] = value  # what comes next goes on as if it were right
            if value and rng.random() < noise.wrong:
                changes.append((component, -1, joined))
                if rng.random() >= noise.mended:
                    continue
                joined = False
                if rng.random() < 0.5:
                    changes.append((component, 0, joined))
            changes.append((component, value, joined))
    return changes


def _steps_between(state: np.ndarray, other: np.ndarray) -> list[int]:
    return [
        3 * k if other[k] else 3 * k + 2
        for k in np.flatnonzero(np.asarray(state) != other).tolist()
    ]


# --- The detector ---------------------------------------------------------------------------------


def _look(
    procedure: Procedure,
    noise: Noise,
    fps: float,
    frames: np.ndarray,
    states: np.ndarray,
    length: int,
    rng: np.random.Generator,
) -> Detections:
    """What the detector says in the looks at the object."""
    views = [_shown_as(procedure, state, noise, rng) for state in states]
    rows: list[tuple[int, int, float]] = []
    frame = 0
    while True:
        gap = _log_normal(noise.gap, rng) * fps
        following = frames[np.searchsorted(frames, frame, "right") :]
        if len(following) and rng.random() < noise.after_step and following[0] < frame + 1.5 * gap:
            gap = following[0] - frame + rng.exponential(noise.after_step_s) * fps
        frame += max(1, round(gap))
        if frame >= length:
            break
        end = min(length, frame + max(1, round(_log_normal(noise.look, rng) * fps)))
        level, density = rng.normal(*noise.level), rng.beta(*noise.density)
        before, other = -1, False
        for now in range(frame, end):
            at = int(np.searchsorted(frames, now, "right")) - 1
            if at != before:
                before, other = at, rng.random() < views[at].share
            if rng.random() >= density:
                continue
            detected = views[at].other if other else views[at].mostly
            logit = level + rng.normal(0, noise.spread) + noise.wrong_level * other
            if rng.random() < noise.flicker:
                detected = _flicker(procedure, states[at], rng)
            confidence = 1 / (1 + math.exp(-logit))
            if confidence >= noise.floor:
                rows.append((now, detected, confidence))
        frame = end
    columns = np.array(rows, float).reshape(-1, 3).T
    return Detections(
        columns[0].astype(np.int64),
        columns[1].astype(np.int64),
        columns[2],
        np.zeros((len(rows), 4)),
    )


def _shown_as(
    procedure: Procedure, state: np.ndarray, noise: Noise, rng: np.random.Generator
) -> _Shown:
    catalogue = procedure.states
    if (state == -1).any():
        right, absent = (_nearest(catalogue, np.where(state == -1, v, state), rng) for v in (1, 0))
        drawn = rng.random()
        if drawn < noise.wrong_right:
            return _Shown(right, absent, noise.confused[1])
        if drawn < noise.wrong_right + noise.wrong_error:
            return _Shown(procedure.error_class, absent, noise.confused[1])
        return _Shown(absent, right, noise.confused[1])
    true_class = procedure.state_class(state)
    if not true_class:
        return _Shown(_nearest(catalogue, state, rng), _neighbour(catalogue, state, rng), 0.3)
    further = catalogue - state
    later = np.flatnonzero((further >= 0).all(axis=1) & further.any(axis=1))
    if len(later) and rng.random() < noise.later:
        weights = np.exp(-1.2 * further[later].sum(axis=1))
        other = 1 + int(rng.choice(later, p=weights / weights.sum()))
    else:
        other = _neighbour(catalogue, state, rng)
    share, often, rarely = noise.confused
    return _Shown(true_class, other, often if rng.random() < share else rarely)


def _flicker(procedure: Procedure, state: np.ndarray, rng: np.random.Generator) -> int:
    if rng.random() < 0.5:
        return procedure.error_class
    return _neighbour(procedure.states, np.maximum(state, 0), rng)


def _nearest(catalogue: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> int:
    """The class of the catalogued state with the fewest other components, of equal ones any."""
    return 1 + int((_distances(catalogue, state) + 0.5 * rng.random(len(catalogue))).argmin())


def _neighbour(catalogue: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> int:
    """The class of a catalogued state near this one, but not itself."""
    distances = _distances(catalogue, state) + 2 * rng.random(len(catalogue))
    distances[(catalogue == state).all(axis=1)] = np.inf
    return 1 + int(distances.argmin())


def _distances(catalogue: np.ndarray, state: np.ndarray) -> np.ndarray:
    return (catalogue != state).sum(axis=1).astype(float)


def _log_normal(median_and_sigma: tuple[float, float], rng: np.random.Generator) -> float:
    median, sigma = median_and_sigma
    return median * math.exp(rng.normal(0, sigma))
