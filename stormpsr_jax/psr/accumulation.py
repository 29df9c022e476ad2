"""Eq. 9 and B1 to B3: evidence of steps is summed up until the sum exceeds a threshold.

B1 to B3 are the baselines of Schoonbeek et al., IndustReal (WACV 2024); Eq. 9 is that of STORM-PSR
(arXiv 2510.12385).

All are one accumulator. In a state s, component k can only flip: install if s_k = 0, remove if
s_k = 1. The evidence of a frame for that flip is (Eq. 9)

    ŷ_k = (1 − weight) · ŷ_S,k + weight · ŷ_T,k

with ŷ_S,k the confidence of the frame's top detection where it shows k flipped, and ŷ_T,k the
probability that k changed inside the window that ends at the frame. A sum per component grows by
ŷ_k where ŷ_k > 0 and is multiplied by ``decay`` where ŷ_k = 0; when it exceeds the threshold T the
step completes, the sum returns to 0 and the state is updated. Removals that the variant does not
expect may have a threshold of their own, and frames that show nothing a decay of their own, which
is not in the papers. With weight 0 detections count alone, with weight 1 windows, and the naive
decoder (B1) is T = 0: any evidence completes a step.

A sum is brought up to date only when its component gets evidence: the decay of n frames without
evidence is the factor decay**n. So the work grows with the evidence, not with the frames. No
component's evidence depends on another's state. So thresholds that have completed the same steps of
a component so far share its sum, and many are tried at hardly more than the cost of one.
"""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr import arguments
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.stream import Event, Settings
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant

State = Sequence[int] | np.ndarray | str  # (K,) values, or a text of 0 and 1


def accumulate(
    initial_state: State,
    frames: Sequence[int] | np.ndarray,
    states: Sequence[State] | np.ndarray | None = None,
    confidences: Sequence[float] | np.ndarray | None = None,
    changes: Sequence[Sequence[float]] | np.ndarray | None = None,
    *,
    expected: Iterable[int] | None = None,
    threshold: float = 6.0,
    decay: float = 0.75,
    weight: float = 0.5,
    window: int = 256,
    floor: float = 0.5,
    gate: float = 0.5,
) -> list[tuple[int, int, float]]:
    """Sums up what is seen at N frames into completed steps; no procedure is needed.

    It is B2; with `threshold` 0 B1, with `expected` B3. Of `states` and `changes` one is enough;
    both are fused by Eq. 9. `Decoder` does the same frame by frame.

    >>> accumulate("00", [1, 2, 3, 4], ["10"] * 4, [0.75] * 4, threshold=2)
    [(3, 0, 0.75)]
    >>> accumulate("00", [1, 2, 3, 4], changes=[[0.75, 0]] * 4, threshold=2)
    [(3, 0, 0.75)]
    >>> accumulate("00", [1, 2], ["10"] * 2, [1.0] * 2, [[0.75, 0]] * 2, threshold=1)
    [(2, 0, 0.875)]

    Args:
        initial_state: (K,) 1 for a component that is there, 0 for one that is not; or "01…".
        frames: (N,) ascending.
        states: (N, K) what a detector shows, or N texts. A -1 is the error state, which says
            nothing of any component.
        confidences: (N,) of the states, in 0…1; at `floor` or below nothing was seen.
        changes: (N, K) P(component changed inside the window that ends at the frame).
        expected: ids of the steps that may complete; None: all.
        threshold, decay, weight, window, gate: as in `Settings`.

    Returns:
        (frame, step id, confidence), by frame and step id; 3k installs component k, 3k + 2 removes
        it.

    Raises:
        ValueError: arrays that do not fit one another, frames out of order, a number out of range,
            probabilities in place of states.
    """
    at = arguments.frames("frames", frames)
    initial = tuple(arguments.states("initial_state", [initial_state], (1, None))[0].tolist())
    shape = len(at), len(initial)
    shown = np.zeros((0, shape[1]), np.int8)
    detections = temporal = None
    if states is not None:
        shown = arguments.states("states", states, shape)
    known = np.unique(shown[(shown >= 0).all(axis=1)], axis=0)
    product = Procedure("own", 1.0, tuple(map(str, range(shape[1]))), known, {})
    if states is not None:
        sure = _shares("confidences", confidences, at.shape)
        detections = Detections(at, product.state_classes(shown), sure, np.zeros((len(at), 4)))
    if changes is not None:
        temporal = TemporalPredictions(at, *3 * [_shares("changes", changes, shape)])
    own = 0.0 if changes is None else 1.0 if states is None else weight
    decoder = "expected" if expected is not None else "confidence" if threshold else "naive"
    variant = Variant("own", initial, tuple(sorted(expected or ())), ())
    settings = Settings(decoder, threshold, decay, own, window, floor, gate=gate)
    (found,) = decode_each(product, variant, [settings], detections, temporal)
    return [event[:3] for event in found]


def _shares(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = arguments.numbers(values)
    if array.shape != shape or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} are not numbers in 0…1 of shape {shape}")
    return array


@dataclasses.dataclass(slots=True, eq=False)
class Sum:
    """The evidence for a component's next flip, since its last one.

    Attributes:
        k, bit: the component, and the state that the flip ends.
        start: the frame of the last flip, -1 before the first.
        blocked_until: the last frame whose windows do not count.
        limits: (threshold, place of its settings), the lowest last; never empty.
        total, temporal: the sum, and the windows' part in it.
        support: the number of frames with evidence, decayed like the sum.
        frames: their number, not decayed; the first is `since`, the last `last`.
        num_seen: how many frames had shown something by then.
    """

    k: int
    bit: int
    start: int
    blocked_until: int
    limits: list[tuple[float, int]]
    total: float = 0.0
    temporal: float = 0.0
    support: float = 0.0
    frames: int = 0
    since: int = 0
    last: int = 0
    num_seen: int = 0


class Accumulator:
    """The sums of one recording, frame by frame, with one setting or many.

    Args:
        settings: at least one; they differ in `threshold` and `removal` alone.
        weight: of the windows.
        stream: the name that events give as theirs.
        calibration: of the events' confidences; it changes nothing else.
    """

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: Sequence[Settings],
        weight: float,
        stream: str = "",
        calibration: Calibration | None = None,
    ) -> None:
        self._procedure, self._stream, self._calibration = procedure, stream, calibration
        self._own, self._weight = 1 - weight, weight
        first, num = settings[0], procedure.num_components
        self._decay, self._unseen_decay = first.decay, first.unseen_decay
        self._window = first.window
        self._catalogue = procedure.states.tolist()
        self._limits = [_limits(variant, one, num) for one in settings]
        self.sums: list[list[Sum]] = [[] for _ in range(num)]  # by component
        self._flipped: dict[int, list[Sum]] = {}  # by class
        for k, bit in enumerate(variant.initial_state):
            self.open(k, bit, range(len(settings)))

    def open(self, k: int, bit: int, members: Iterable[int], start: int = -1) -> Sum | None:
        """Begins a sum of those settings, by place, that let a component flip from a state."""
        limits = [(limit, i) for i in members if (limit := self._limits[i][k][bit]) is not None]
        if not limits:
            return None
        for one in self.sums[k]:
            if one.start == start and one.bit == bit:
                one.limits = sorted(one.limits + limits, reverse=True)
                return one
        blocked_until = start + self._window if start >= 0 else -1
        self.sums[k].append(Sum(k, bit, start, blocked_until, sorted(limits, reverse=True)))
        return self.sums[k][-1]

    def add(
        self,
        frame: int,
        seen: tuple[int, int],
        shown: int = 0,
        confidence: float = 0.0,
        changes: Iterable[tuple[int, float]] = (),
    ) -> list[tuple[Event, list[int]]]:
        """Takes the evidence of a frame, which is later than all before.

        Args:
            seen: how many frames have shown something, without this one and with it.
            shown: class of its top detection, if that is above the floor; otherwise 0.
            confidence: of that.
            changes: (component, probability) of windows, of those above the gate.

        Returns:
            The steps that complete, by step id, each with the places of the settings that it
            completes with.
        """
        asd = self._own * confidence
        evidence = dict.fromkeys(self._flips(shown), (asd, 0.0)) if shown else {}
        for k, probability in changes:
            part = self._weight * probability
            for one in self.sums[k]:
                if frame > one.blocked_until:
                    evidence[one] = (asd + part if one in evidence else part), part
        completed = []
        for one, (y, part) in evidence.items():
            if one.frames:
                if gap := frame - one.last - 1:
                    left = self._left(gap, seen[0] - one.num_seen)
                    one.total *= left
                    one.temporal *= left
                    one.support *= left
                one.total += y
                one.temporal += part
                one.support += 1
            else:
                one.total, one.temporal, one.support, one.since = y, part, 1.0, frame
            one.frames += 1
            one.last, one.num_seen = frame, seen[1]
            if one.total > one.limits[-1][0]:
                completed.append(one)
        return self._complete(frame, completed) if completed else []

    def _flips(self, shown: int) -> list[Sum]:
        """The sums of components that a detected class shows flipped."""
        if shown not in self._flipped:
            # The error state says nothing about a component, so nothing flips.
            known = shown <= len(self._catalogue)
            state = self._catalogue[shown - 1] if known else [2] * len(self.sums)
            pairs = zip(self.sums, state, strict=True)
            self._flipped[shown] = [one for own, bit in pairs for one in own if bit == 1 - one.bit]
        return self._flipped[shown]

    def _left(self, frames: int, seen: int) -> float:
        """What the decay leaves of a sum after frames without evidence, of which some were seen."""
        if self._unseen_decay is None:
            return self._decay**frames
        return self._decay**seen * self._unseen_decay ** (frames - seen)

    def _complete(self, frame: int, sums: Iterable[Sum]) -> list[tuple[Event, list[int]]]:
        found = []
        for one in sums:
            members = []
            while one.limits and one.total > one.limits[-1][0]:
                members.append(one.limits.pop()[1])
            found.append((self._event(frame, one), members))
            if not one.limits:
                self.sums[one.k].remove(one)
            self.open(one.k, 1 - one.bit, members, frame)
        self._flipped.clear()
        return sorted(found, key=lambda pair: pair[0].step_id)

    def _event(self, frame: int, one: Sum) -> Event:
        step_id, confidence = 3 * one.k + 2 * one.bit, min(one.total / one.support, 1.0)
        if self._calibration is not None:
            confidence = self._calibration(confidence, step_id)
        evidence = {
            "sum": one.total,
            "asd": max(one.total - one.temporal, 0.0),
            "temporal": one.temporal,
            "frames": one.frames,
            "since": one.since,
        }
        name = self._procedure.step_name(step_id)
        time_s = frame / self._procedure.fps
        return Event(frame, step_id, confidence, self._stream, evidence, name, time_s)


def _limits(
    variant: Variant, settings: Settings, num: int
) -> list[tuple[float | None, float | None]]:
    """By component the thresholds of its flips from 0 and from 1, None where it may not flip."""
    install = 0.0 if settings.decoder == "naive" else settings.threshold
    removal = install if settings.removal is None else settings.removal
    steps: Collection[int] = range(3 * num)
    if settings.decoder == "expected":
        steps = variant.expected if settings.removal is None else variant.possible
    found = []
    for on, off in ((3 * k, 3 * k + 2) for k in range(num)):
        limit = install if off in variant.expected else removal
        found.append((install if on in steps else None, limit if off in steps else None))
    return found


def gate(settings: Settings) -> float:
    """Returns the probability above which a window's component counts as changed."""
    naive = settings.decoder == "naive"
    return max(settings.gate, settings.confidence) if naive else settings.gate


def top_detection(
    frame: int, detections: Iterable[tuple[int, float]], last_class: int
) -> tuple[int, float]:
    """Returns the most confident (class, confidence) row of a frame, of equal ones the first.

    Args:
        last_class: the procedure's error class.

    Returns:
        (0, 0.0), which is background without confidence, for a frame without rows.

    Raises:
        ValueError: a row with another class or confidence than can be, with the frame and value.
    """
    top, highest = 0, -1.0
    try:
        for c, confidence in detections:
            if not 0 <= confidence <= 1:
                raise ValueError(f"frame {frame}: confidence {confidence} is not in 0…1")
            if not 0 <= c <= last_class:
                what = f"class {c} is not in 0…{last_class}, the procedure's classes"
                raise ValueError(f"frame {frame}: {what}")
            if confidence > highest:
                top, highest = c, confidence
        return operator.index(top), max(highest, 0.0)
    except TypeError as error:
        what = "a detection is (class, confidence), a whole number and one in 0…1"
        raise ValueError(f"frame {frame}: {what} ({error})") from error


# --- Whole recordings -----------------------------------------------------------------------------


def decode_each(
    procedure: Procedure,
    variant: Variant,
    candidates: Sequence[Settings],
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
    *,
    weight_of: Callable[[Settings], float] | None = None,
    stream: str = "",
    calibration: Calibration | None = None,
) -> list[list[Event]]:
    """Returns a recording's events, by frame and step id, with each of several settings.

    Those that follow one another and differ in thresholds alone are decoded together. Predictions
    that are not given are no evidence.

    Args:
        weight_of: gives the weight of the windows; None is that of the settings.
        stream: the name that events give as theirs.
        calibration: of the events' confidences, None leaves them as they are.

    Raises:
        ValueError: a class or a number of components that the procedure does not have.
    """

    def alike(settings: Settings) -> Settings:
        return dataclasses.replace(settings, threshold=0.0, removal=None)

    tops = None
    found: list[list[Event]] = [[] for _ in candidates]
    start = 0
    for settings, group in itertools.groupby(candidates, key=alike):
        members = list(group)
        weight = settings.weight if weight_of is None else weight_of(settings)
        if weight < 1 and detections is not None and tops is None:
            tops = _tops(detections, procedure)
        sums = Accumulator(procedure, variant, members, weight, stream, calibration)
        for evidence in _evidence(procedure, settings, weight, tops, temporal):
            for event, places in sums.add(*evidence):
                for place in places:
                    found[start + place].append(event)
        start += len(members)
    return found


Tops = tuple[np.ndarray, np.ndarray, np.ndarray]


def _tops(detections: Detections, procedure: Procedure) -> Tops:
    """Frames, classes and confidences of the frames' most confident rows."""
    for c in np.unique(detections.classes).tolist():
        if not 0 <= c <= procedure.error_class:
            raise ValueError(
                f"class {c} is not in 0…{procedure.error_class} (procedure {procedure.name!r})"
            )
    tops = detections.tops()
    return detections.frames[tops], detections.classes[tops], detections.confidences[tops]


def _evidence(
    procedure: Procedure,
    settings: Settings,
    weight: float,
    tops: Tops | None,
    temporal: TemporalPredictions | None,
) -> Iterator[tuple]:
    """The frames that have evidence, as `Accumulator.add` takes them."""
    none = np.zeros(0, np.int64)
    seen, frames, classes, confidences = none, none, none, np.zeros(0)
    if tops is not None and weight < 1:
        frames, classes, confidences = tops
        some = (confidences > settings.confidence) & (classes > 0)
        seen, known = frames[some], some & (classes <= procedure.num_states)
        frames, classes, confidences = frames[known], classes[known], confidences[known]
    elif temporal is not None and weight == 1:
        seen = temporal.frames
    changes: dict[int, list[tuple[int, float]]] = {}
    if temporal is not None and weight > 0:
        if temporal.confidences.shape[1:] != (procedure.num_components,):
            raise ValueError(
                f"probabilities of shape {temporal.confidences.shape}, procedure "
                f"{procedure.name!r} has {procedure.num_components} components"
            )
        rows, parts = np.nonzero(temporal.confidences > gate(settings))
        found = temporal.frames[rows], parts, temporal.confidences[rows, parts]
        for frame, k, probability in zip(*(c.tolist() for c in found), strict=True):
            changes.setdefault(frame, []).append((k, probability))
    every = np.union1d(frames, np.fromiter(changes, np.int64, len(changes)))
    shown, sure = np.zeros(len(every), np.int64), np.zeros(len(every))
    places = np.searchsorted(every, frames)
    shown[places], sure[places] = classes, confidences
    before, after = (np.searchsorted(seen, every, side) for side in ("left", "right"))
    columns = every, before, after, shown, sure
    for frame, *row in zip(*(c.tolist() for c in columns), strict=True):
        yield frame, row[:2], row[2], row[3], changes.get(frame, ())
