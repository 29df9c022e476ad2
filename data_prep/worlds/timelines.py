"""Timelines: which state holds from which frame on."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_prep.worlds import orders
from data_prep.worlds.orders import Event
from stormpsr_jax.recordings.labels import states_per_frame
from stormpsr_jax.recordings.procedure import Procedure, Variant

SHORTEST_PAUSE = 3.5  # seconds
PAUSE_SCALE = 2.9
# Chances per recording of what people do; see also `Habits`.
UNDONE = 0.5
FORGOTTEN = 0.3
LATER = (1, 4)  # events, the last is not among them
# Seconds.
LEAD_IN = (3.0, 8.0)
TAIL = (7.0, 12.0)
LAST_LOOK = (2.0, 30.0)  # at the finished product, after that
UNCATALOGUED = 0.2  # share of the frames in such states, from which on it is told


@dataclasses.dataclass(frozen=True)
class Habits:
    """What people do, and how long they take. Times are in seconds.

    Attributes:
        pauses: median pause between events, and the standard deviation of its logarithm between
            recordings and within one; None: SHORTEST_PAUSE + Gamma(2, PAUSE_SCALE).
        pace: where pauses are None, the standard deviation of the logarithm of what Gamma is
            multiplied by in a recording.
        together: chance that a component is put on together with the one before.
        wrong: chance that a component is installed incorrectly first;
        corrected: and that it is then corrected,
        later: and, of those, that this is only LATER events on, when it is noticed.
        early: chance that a component lies in its place, and looks fitted, before it is,
        early_s: and for how long: median, and standard deviation of the logarithm.
    """

    pauses: tuple[float, float, float] | None = None
    pace: float = 0.0
    together: float = 0.12
    wrong: float = 0.07
    corrected: float = 1.0
    later: float = 0.0
    early: float = 0.0
    early_s: tuple[float, float] = (0.0, 0.0)

    def draw_pauses(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) seconds before the events of a recording."""
        if self.pauses is None:
            scale = PAUSE_SCALE * np.exp(rng.normal(0, self.pace)) if self.pace else PAUSE_SCALE
            return SHORTEST_PAUSE + rng.gamma(2.0, scale, count)
        median, between, within = self.pauses
        drawn = median * np.exp(rng.normal(0, between) + rng.normal(0, within, count))
        return np.maximum(drawn, SHORTEST_PAUSE)


# Of 27 errors in 29 real recordings 22 were corrected (`worlds.BENCH`).
USUAL = Habits(pace=0.25, corrected=0.75, later=1 / 3)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The states of one recording.

    Attributes:
        frames: (M,) int64 ascending, the first is 0.
        states: (M, K) int8 in {-1, 0, 1}, each from its frame on.
        last_look: so many frames of the N, the last, have the finished product in clear view.
    """

    num_frames: int
    frames: np.ndarray
    states: np.ndarray
    last_look: int = 0

    def per_frame(self) -> np.ndarray:
        """(N, K) int8, the state of each frame."""
        return states_per_frame(self.frames, self.states, 0, self.num_frames)


def draw_timeline(
    procedure: Procedure,
    rng: np.random.Generator,
    wrong: float | None = None,
    habits: Habits = USUAL,
    variant: Variant | None = None,
    covers: bool = False,
) -> Timeline:
    """Makes up a recording: a random legal order, with errors, undone and forgotten steps.

    The order is one of `orders`, one component at a time (two in some events). Then some parts sit
    wrong first, one may be undone and redone, one step forgotten.

    Args:
        procedure: that `orders.check` finds nothing wrong with.
        wrong: chance that a component is put on wrong first; None is that of `habits`.
        variant: what is done; None is the procedure's only one.
        covers: parts cover others, as they do not in the toys: to make up for a forgotten step,
            all that was done after it and waits for it is undone, and done again.
    """
    if variant is None:
        (variant,) = procedure.variants.values()
    state = np.array(variant.initial_state, np.int8)
    waiting = variant if covers else None
    events = _joined(orders.draw_order(procedure, variant, rng), rng, habits.together, waiting)
    if rng.random() < FORGOTTEN:
        events = _cover(events, variant, rng) if covers else _forget(events, rng)
    chance = habits.wrong if wrong is None else wrong
    events = _do_wrongly(events, rng, chance, habits, waiting)
    if rng.random() < UNDONE:
        events = _undo(events, variant, rng)
    states = [state]
    for event in events:
        state = state.copy()
        state[list(event)] = list(event.values())
        states.append(state)
    pauses = habits.draw_pauses(len(events), rng)
    pauses[:1] += rng.uniform(*LEAD_IN)
    frames = np.rint(np.cumsum(pauses) * procedure.fps).astype(np.int64)
    end = max(frames, default=0) + int(rng.uniform(*TAIL) * procedure.fps)
    return Timeline(int(end), np.r_[0, frames], np.stack(states))


def _joined(
    steps: Iterable[int], rng: np.random.Generator, together: float, variant: Variant | None
) -> list[Event]:
    """An event for each step, or for two that are done together.

    With a variant none of the two waits for the other: what is put right or undone after an event
    would lie under what is put on in the same event.
    """
    events: list[Event] = []
    for step in steps:
        component, value = orders.change(step)
        alone = events and len(events[-1]) == 1 and component not in events[-1]
        before = {orders.step_of(k, v) for k, v in events[-1].items()} if events else set()
        waits = variant is not None and before & orders.waits_for(variant, step)
        if alone and rng.random() < together and not waits:
            events[-1][component] = value
        else:
            events.append({component: value})
    return events


def _forget(events: list[Event], rng: np.random.Generator) -> list[Event]:
    """One step is noticed an event or two later, or the recording ends without the last one."""
    if rng.random() < 0.4:
        return events[:-1]
    i = int(rng.integers(1, len(events) - 1))
    later = i + int(rng.integers(1, 3))
    return events[:i] + events[i + 1 : later + 1] + [events[i]] + events[later + 1 :]


def _cover(events: list[Event], variant: Variant, rng: np.random.Generator) -> list[Event]:
    """One event is left out, for ever or until it is noticed some events later."""
    i = int(rng.integers(len(events)))
    left_out, rest = events[i], events[i + 1 :]
    if rng.random() < 0.4:
        kept = [{k: v for k, v in event.items() if k not in left_out} for event in rest]
        found = events[:i] + [event for event in kept if event]
        return found or events
    rest_ends = next((j for j, e in enumerate(rest) if left_out.keys() & e.keys()), len(rest))
    between = rest[: min(rest_ends, int(rng.integers(1, 4)))]
    waiting = _waiting(left_out, between, variant)
    off = [{k: 1 - value for k, value in event.items()} for event in reversed(waiting)]
    return events[:i] + between + off + [left_out] + waiting + rest[len(between) :]


def _waiting(left_out: Event, between: list[Event], variant: Variant) -> list[Event]:
    """What of the events between cannot be done before the one left out, directly or not."""
    missing = {orders.step_of(k, value) for k, value in left_out.items()}
    events: list[Event] = []
    for event in between:
        waits: Event = {}
        for k, value in event.items():  # in the order in which they are done
            if orders.waits_for(variant, orders.step_of(k, value)) & missing:
                missing.add(orders.step_of(k, value))
                waits[k] = value
        if waits:
            events.append(waits)
    return events


def _do_wrongly(
    events: list[Event],
    rng: np.random.Generator,
    chance: float,
    habits: Habits,
    variant: Variant | None,
) -> list[Event]:
    """Some components are first installed incorrectly, then corrected, or taken off and on again.

    That is at once, or some events later, but before what waits for the component (`variant`; None:
    nothing waits) or moves it. What nobody corrects stays as it is.
    """
    result: list[Event] = []
    later: list[tuple[int, list[Event]]] = []  # how many events come before it, what is done then
    for event in events:
        needed = set(event)
        if variant is not None:
            steps = [orders.step_of(k, value) for k, value in event.items()]
            needed |= {
                step // 3 for pending in steps for step in orders.waits_for(variant, pending)
            }
        for pending in [pending for pending in later if needed & pending[1][-1].keys()]:
            result += pending[1]
            later.remove(pending)
        wrong = [k for k, value in event.items() if value == 1 and rng.random() < chance]
        result.append({k: -1 if k in wrong else value for k, value in event.items()})
        later = [(count - 1, moved) for count, moved in later]
        for _, moved in (pending for pending in later if pending[0] == 0):
            result += moved
        later = [pending for pending in later if pending[0] > 0]
        if not wrong or (habits.corrected < 1 and rng.random() >= habits.corrected):
            continue
        off: list[Event] = [dict.fromkeys(wrong, 0)] if rng.random() < 0.5 else []
        corrects = [*off, dict.fromkeys(wrong, 1)]
        if habits.later and rng.random() < habits.later:
            later.append((int(rng.integers(*LATER)), corrects))
        else:
            result += corrects
    for _, moved in later:
        result += moved
    return result


def _undo(events: list[Event], variant: Variant, rng: np.random.Generator) -> list[Event]:
    def installed(event: Event) -> list[int]:
        may = variant.possible
        return [k for k, v in event.items() if v == 1 and {3 * k, 3 * k + 2} <= may]

    if not (found := [j for j, event in enumerate(events) if installed(event)]):
        return events
    i = int(rng.choice(found))
    component = installed(events[i])[0]
    return [*events[: i + 1], {component: 0}, {component: 1}, *events[i + 1 :]]


def warnings(procedure: Procedure, drawn: Sequence[Timeline]) -> list[str]:
    """Says so if the product is for long in states that no detector learns."""
    if not drawn:
        return []
    states = np.concatenate([timeline.per_frame() for timeline in drawn])
    share = float((procedure.state_classes(states) == 0).mean())
    if share < UNCATALOGUED:
        return []
    return [
        f"procedure {procedure.name!r}: in {share:.0%} of the frames the product is in states that "
        "are not among its states, and the detection stream does not learn them; list those that "
        "its order comes through"
    ]


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
    """The events: [(frame, {component: (old, new) value})]."""
    result: list[tuple[int, Mapping[int, tuple[int, int]]]] = []
    for m in range(1, len(timeline.frames)):
        old, new = timeline.states[m - 1], timeline.states[m]
        changed = {int(k): (int(old[k]), int(new[k])) for k in np.flatnonzero(old != new)}
        if changed:
            result.append((int(timeline.frames[m]), changed))
    return result
