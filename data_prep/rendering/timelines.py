"""Timelines: which state holds from which frame on. Made up, or read from real label files."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.rendering.habits import USUAL, Habits
from stormpsr_jax.base.files import check_name
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.procedure import Procedure

# Chances per recording of what people do; see also `Habits`.
UNDONE = 0.5
FORGOTTEN = 0.3
# Seconds.
LEAD_IN = (3.0, 8.0)
TAIL = (7.0, 12.0)

Event = dict[int, int]  # component -> its new value


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The states of one recording.

    Attributes:
        first_frame: number of the first frame.
        num_frames: N.
        frames: (M,) int64 ascending, the first is `first_frame`.
        states: (M, K) int8 in {-1, 0, 1}, each from its frame on.
    """

    first_frame: int
    num_frames: int
    frames: np.ndarray
    states: np.ndarray

    def per_frame(self) -> np.ndarray:
        """(N, K) int8, the state of each frame."""
        return labels.states_per_frame(self.frames, self.states, self.first_frame, self.num_frames)


def draw_timeline(
    procedure: Procedure,
    rng: np.random.Generator,
    pace: float = 1.0,
    wrong: float | None = None,
    habits: Habits = USUAL,
) -> Timeline:
    """Makes up a recording: a random legal order, with errors, undone and forgotten steps.

    The order goes through the catalogued states, one component at a time (two in some events).
    Then some steps are done wrongly first, one may be undone and redone, one forgotten.

    Args:
        procedure: with one variant.
        rng: draws everything.
        pace: pauses before events are this many times as long, at least 1; what happens is the
            same.
        wrong: chance that a component is put on wrong first; None is that of `habits`.
        habits: of the people.

    Raises:
        ValueError: from its initial state the procedure has no way through catalogued states.
    """
    if len(procedure.variants) != 1:
        raise ValueError(f"Procedure {procedure.name!r} needs exactly one variant to make up from.")
    (variant,) = procedure.variants.values()
    state = np.array(variant.initial_state, np.int8)
    events = _draw_order(procedure, state, rng, habits.together)
    if rng.random() < FORGOTTEN:
        events = _forget(events, rng)
    chance = habits.wrong if wrong is None else wrong
    events = _do_wrongly(events, rng, chance, habits.mended)
    if rng.random() < UNDONE:
        events = _undo(events, rng)
    states = [state]
    for event in events:
        state = state.copy()
        state[list(event)] = list(event.values())
        states.append(state)
    pauses = pace * habits.draw_pauses(len(events), rng)
    pauses[0] += rng.uniform(*LEAD_IN)
    frames = np.rint(np.cumsum(pauses) * procedure.fps).astype(np.int64)
    end = frames[-1] + int(rng.uniform(*TAIL) * procedure.fps)
    return Timeline(0, int(end), np.r_[0, frames], np.stack(states))


def _draw_order(
    procedure: Procedure, state: np.ndarray, rng: np.random.Generator, together: float
) -> list[Event]:
    """A walk upwards through the catalogued states, until none is left above."""
    events: list[Event] = []
    catalogue = procedure.states
    while True:
        above = (catalogue >= state).all(1) & (catalogue.sum(1) == state.sum() + 1)
        if not above.any():
            break
        following = catalogue[rng.choice(np.flatnonzero(above))]
        component = int(np.flatnonzero(following != state)[0])
        if events and len(events[-1]) == 1 and rng.random() < together:
            events[-1][component] = 1
        else:
            events.append({component: 1})
        state = following
    if not events:
        raise ValueError(
            f"Procedure {procedure.name!r}: no catalogued state has one component more than the "
            "initial state; timelines cannot be made up for it (play real ones: --timelines)."
        )
    return events


def _forget(events: list[Event], rng: np.random.Generator) -> list[Event]:
    """One step is noticed an event or two later, or the recording ends without the last one."""
    if rng.random() < 0.4:
        return events[:-1]
    i = int(rng.integers(1, len(events) - 1))
    later = i + int(rng.integers(1, 3))
    return events[:i] + events[i + 1 : later + 1] + [events[i]] + events[later + 1 :]


def _do_wrongly(
    events: list[Event], rng: np.random.Generator, chance: float, mended: float
) -> list[Event]:
    """Some components sit wrongly first; they are put right, or taken off and put on again.

    Those that nobody mends stay as they are.
    """
    result: list[Event] = []
    for event in events:
        wrong = [k for k in event if rng.random() < chance]
        result.append({k: -1 if k in wrong else value for k, value in event.items()})
        if not wrong or (mended < 1 and rng.random() >= mended):
            continue
        if rng.random() < 0.5:
            result.append({k: 0 for k in wrong})
        result.append({k: 1 for k in wrong})
    return result


def _undo(events: list[Event], rng: np.random.Generator) -> list[Event]:
    """One component that was just installed is taken off and put back."""
    i = int(rng.choice([j for j, event in enumerate(events) if 1 in event.values()]))
    component = next(k for k, value in events[i].items() if value == 1)
    return [*events[: i + 1], {component: 0}, {component: 1}, *events[i + 1 :]]


def find_timelines(directory: str | Path) -> dict[str, dict[str, Path]]:
    """The label files of a folder of timelines: {split: {recording: its PSR_labels_raw.csv}}.

    Raises:
        ValueError: there is no <split>/<recording>/PSR_labels_raw.csv in it, or a name that no
            recording can have.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder in sorted(Path(directory).glob("*/*")):
        path = folder / "PSR_labels_raw.csv"
        if os.path.lexists(path):
            name = check_name(folder.name, str(folder))
            found.setdefault(folder.parent.name, {})[name] = path
    if not found:
        raise ValueError(
            f"{directory} holds no <split>/<recording>/PSR_labels_raw.csv (--timelines)."
        )
    return found


def read_timeline(path: Path, procedure: Procedure, time_scale: float) -> Timeline:
    """Reads a real timeline and divides its frame numbers by `time_scale`.

    Changes at different frames stay at different frames, in order; those at one frame stay
    together. The recording ends some seconds (the middle of TAIL) after the last change.

    Raises:
        ValueError: the file is malformed, or `time_scale` is not positive.
    """
    if not time_scale > 0:
        raise ValueError(f"--time_scale={time_scale} is not positive.")
    frames, states = labels.read_states(path, procedure)
    frames = np.rint(frames / time_scale).astype(np.int64)
    # frame[i] >= frame[i-1] + 1: a running maximum of the slack over the row number.
    row = np.arange(len(frames))
    frames = np.maximum.accumulate(frames - row) + row
    end = int(frames[-1]) + 1 + round(sum(TAIL) / 2 * procedure.fps)
    return Timeline(int(frames[0]), end - int(frames[0]), frames, states)


def in_pictures(
    timeline: Timeline, habits: Habits, fps: float, rng: np.random.Generator
) -> Timeline:
    """The timeline that pictures show: some components lie in place before they are fitted.

    They do so after the event before at the earliest. Nothing else differs.
    """
    frames, states = [timeline.frames[0]], [timeline.states[0]]
    for frame, before, after in zip(
        timeline.frames[1:], timeline.states, timeline.states[1:], strict=False
    ):
        loose = (before == 0) & (after == 1) & (rng.random(len(after)) < habits.early)
        median, spread = habits.early_s
        lasting = int(fps * median * np.exp(rng.normal(0, spread)))
        earlier = max(int(frame) - lasting, int(frames[-1]) + 1)
        if loose.any() and earlier < frame:
            frames.append(earlier)
            states.append(np.where(loose, after, before))
        frames.append(int(frame))
        states.append(after)
    return dataclasses.replace(timeline, frames=np.array(frames), states=np.stack(states))


def changes(timeline: Timeline) -> list[tuple[int, Mapping[int, tuple[int, int]]]]:
    """The events: [(index of the frame in the recording, {component: (old, new) value})]."""
    result: list[tuple[int, Mapping[int, tuple[int, int]]]] = []
    for m in range(1, len(timeline.frames)):
        old, new = timeline.states[m - 1], timeline.states[m]
        changed = {int(k): (int(old[k]), int(new[k])) for k in np.flatnonzero(old != new)}
        if changed:
            result.append((int(timeline.frames[m]) - timeline.first_frame, changed))
    return result
