"""Eq. 9 and B1 to B3: evidence of steps is summed up until the sum exceeds a threshold.

B1 to B3 are the baselines of Schoonbeek et al., IndustReal (WACV 2024); Eq. 9 is that of STORM-PSR
(arXiv 2510.12385).

All are one accumulator. In a state s, component k can only flip: install if s_k = 0, remove if
s_k = 1. The evidence of a frame for that flip is (Eq. 9)

    ŷ_k = (1 − weight) · ŷ_S,k + weight · ŷ_T,k

with ŷ_S,k the confidence of the frame's top detection where it shows k flipped, and ŷ_T,k the
probability that k changed inside the window that ends at the frame. A sum per component grows by
ŷ_k where ŷ_k > 0 and is multiplied by ``decay`` where ŷ_k = 0; when it exceeds the threshold T the
step completes, the sum returns to 0 and the state is updated. With weight 0 detections count alone,
with weight 1 windows, and the naive decoder (B1) is T = 0: any evidence completes a step. What is
not in the papers is in `Settings`.

A sum is brought up to date only when its component gets evidence: the decay of n frames without
evidence is the factor decay**n. So the work grows with the evidence, not with the frames.
"""

import bisect
import dataclasses
import itertools
import math
import operator
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.psr import metrics
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event
from stormpsr_jax.recordings.procedure import Procedure, Variant

State = Sequence[int] | np.ndarray | str  # (K,) values, or a text of 0 and 1
DECODERS = ("naive", "confidence", "expected")
STREAMS = ("asd", "temporal", "storm")  # detections alone, windows alone, both fused
Limits = tuple[float | None, float | None]  # T of a component's flips from 0 and from 1; None: none


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a stream is decoded; the fields are the flags of ``evaluate``.

    Attributes:
        decoder: "naive" (B1), "confidence" (B2) or "expected" (B3: only expected steps complete).
        threshold: T; 6.0 on IndustReal and 1.0 on MECCANO in the paper. Unused by "naive".
        removal: T of the removals that the variant does not expect, as a hidden part looks like a
            removed one; with it "expected" also completes the variant's allowed steps. None, as in
            the paper, is neither. Not for "naive".
        decay: factor on a sum for each frame without evidence.
        weight: of the temporal stream in the fused one (Eq. 9).
        window: frames w between the first and the last frame of a clip.
        confidence: floor; a detection at or below it is no evidence. B1 applies it to the
            temporal stream's probabilities too.
        gate: a clip's component counts as changed above this probability. The paper leaves it open;
            at 0.5 a network trained with binary cross-entropy finds a change as likely as none.
        unseen_decay: what `decay` is on a frame that shows nothing: one without a detection above
            the floor or, of a stream that goes by windows alone, without a row. 1 keeps a sum
            there, as such a frame says nothing. None, as in the paper, is `decay`. Not for "naive".
    """

    decoder: str = "expected"
    threshold: float = 6.0
    decay: float = 0.75
    weight: float = 0.5
    window: int = 256
    confidence: float = 0.5
    removal: float | None = None
    gate: float = 0.5
    unseen_decay: float | None = None

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder={self.decoder} is not one of {', '.join(DECODERS)}")
        for field in ("threshold", "removal"):
            value = getattr(self, field)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{field}={value} is not a finite number from 0 up")
        for field in ("decay", "weight", "confidence", "gate", "unseen_decay"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{field}={value} is not in 0…1")
        for field, lack in (("removal", "has no thresholds"), ("unseen_decay", "sums nothing up")):
            value = getattr(self, field)
            if self.decoder == "naive" and value is not None:
                raise ValueError(f"{field}={value}: decoder 'naive' {lack}, and so has no {field}")
        if not (self.window >= 0 and self.window == int(self.window)):
            raise ValueError(f"window={self.window} is not a whole number of frames from 0 up")


# --- The equation ---------------------------------------------------------------------------------


class Sum(NamedTuple):
    """The evidence for a component's next flip, since its last one.

    Attributes:
        total, temporal: the sum, and the windows' part in it.
        support: the number of frames with evidence, decayed like the sum.
        frames: their number, not decayed; the first is `since`, the last `last`.
        blocked_until: the last frame whose windows do not count.
        num_seen: how many frames had shown something by `last`.
    """

    total: float = 0.0
    temporal: float = 0.0
    support: float = 0.0
    frames: int = 0
    since: int = 0
    last: int = 0
    blocked_until: int = -1
    num_seen: int = 0

    def add(
        self,
        settings: Settings,
        frame: int,
        detection: float,
        window: float,
        seen_before: int,
        seen: int,
    ) -> "Sum":
        """Returns the sum with the evidence of a later frame, which completes it above T.

        Args:
            detection, window: (1 − weight) · ŷ_S and weight · ŷ_T, 0 where there is none.
            seen_before, seen: how many frames have shown something, without this one and with it.
        """
        if frame <= self.blocked_until:
            window = 0.0
        y = detection + window
        if not y:
            return self
        left, since = 1.0, frame
        if self.frames:
            gap, since = frame - self.last - 1, self.since
            left = settings.decay**gap
            if settings.unseen_decay is not None:
                shown = seen_before - self.num_seen
                left = settings.decay**shown * settings.unseen_decay ** (gap - shown)
        return Sum(
            self.total * left + y,
            self.temporal * left + window,
            self.support * left + 1,
            self.frames + 1,
            since,
            frame,
            self.blocked_until,
            seen,
        )

    @property
    def confidence(self) -> float:
        """The mean of the evidence, in 0…1."""
        return min(self.total / self.support, 1.0)

    def event(
        self, step_id: int, stream: str, procedure: Procedure, calibration: Calibration | None
    ) -> Event:
        """Returns the event of the step that the sum completes at its last frame."""
        confidence = self.confidence
        if calibration is not None:
            confidence = calibration(confidence)
        evidence = {
            "sum": self.total,
            "asd": max(self.total - self.temporal, 0.0),
            "temporal": self.temporal,
            "frames": self.frames,
            "since": self.since,
        }
        name, time_s = procedure.step_name(step_id), self.last / procedure.fps
        return Event(self.last, step_id, confidence, stream, evidence, name, time_s)


def weight_of(stream: str, settings: Settings) -> float:
    """Returns the weight of the windows in a stream; ValueError where the decoder has none such."""
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r} is not one of {', '.join(STREAMS)}")
    if stream == "storm" and settings.decoder == "naive":
        raise ValueError("decoder 'naive' has no fused stream; confidence and expected have one")
    return {"asd": 0.0, "temporal": 1.0}.get(stream, settings.weight)


def thresholds(variant: Variant, settings: Settings) -> list[Limits]:
    """Returns by component T of its flips from 0 and from 1, None where it may not flip."""
    install = 0.0 if settings.decoder == "naive" else settings.threshold
    removal = install if settings.removal is None else settings.removal
    parts = range(len(variant.initial_state))
    steps: Collection[int] = range(3 * len(parts))
    if settings.decoder == "expected":
        steps = variant.expected if settings.removal is None else variant.possible
    limits = []
    for on, off in ((3 * k, 3 * k + 2) for k in parts):
        limit = install if off in variant.expected else removal
        limits.append((install if on in steps else None, limit if off in steps else None))
    return limits


def gate(settings: Settings) -> float:
    """Returns the probability above which a window's component counts as changed."""
    naive = settings.decoder == "naive"
    return max(settings.gate, settings.confidence) if naive else settings.gate


# --- Arrays ---------------------------------------------------------------------------------------


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
    """Sums up what is seen at N frames into completed steps of K components.

    A component's sum grows by the evidence that it changed and decays at frames without any; above
    `threshold` the step completes. `states` are evidence while they differ from the state so far,
    `changes` as they are; one of both is enough, and Eq. 9 fuses both. It is baseline B2; with
    `threshold` 0 B1, with `expected` B3. Sources: IndustReal (WACV 2024) for B1 to B3, STORM-PSR
    (arXiv 2510.12385) for Eq. 9. No procedure is needed; `score_recording` takes what it returns.

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
        threshold: T, of a sum of confidences; 6 on IndustReal and 1 on MECCANO in the paper.
        decay: factor on a sum at each frame without evidence, also one that `frames` leaves out.
        weight: of `changes` where there are `states` too.
        window: frames between the first and the last frame of a window; one that holds the
            component's last step is no evidence.
        floor: a state at or below this confidence is no evidence.
        gate: a change at or below this probability is no evidence.

    Returns:
        (frame, step id, confidence), by frame and step id; 3k installs component k, 3k + 2 removes
        it. The confidence, in 0…1, is the mean of the evidence.

    Raises:
        ValueError: arrays that do not fit one another, frames out of order, a number out of range,
            probabilities in place of states.
    """
    at = metrics.frames("frames", frames)
    initial = metrics.states("initial_state", [initial_state], (1, None))[0].tolist()
    if -1 in initial:
        raise ValueError("initial_state: -1 is an incorrect component, of which sums know nothing")
    shape = len(at), len(initial)
    weight = 0.0 if changes is None else 1.0 if states is None else weight
    detected = at[:0], np.zeros((0, shape[1]), np.int8), np.zeros(0)
    changed = at[:0], np.zeros((0, shape[1]))
    if states is not None:
        of_rows = metrics.states("states", states, shape)
        detected = at, of_rows, _shares("confidences", confidences, at.shape)
    if changes is not None:
        changed = at, _shares("changes", changes, shape)
    if not 0 <= floor <= 1:
        raise ValueError(f"floor={floor} is not in 0…1")
    decoder = "naive" if expected is None and not threshold else "confidence"
    settings = Settings(decoder, threshold, decay, weight, window, floor, gate=gate)
    may = range(3 * shape[1]) if expected is None else set(expected)
    limits: list[Limits] = []
    for k in range(shape[1]):
        on, off = (threshold if step in may else None for step in (3 * k, 3 * k + 2))
        limits.append((on, off))
    (steps,) = sum_up(initial, detected, changed, weight, settings, [limits])
    return sorted((total.last, step_id, total.confidence) for total, step_id in steps)


def sum_up(
    initial_state: Sequence[int],
    detected: tuple[np.ndarray, np.ndarray, np.ndarray],
    changed: tuple[np.ndarray, np.ndarray],
    weight: float,
    settings: Settings,
    candidates: Sequence[Sequence[Limits]],
) -> list[list[tuple[Sum, int]]]:
    """Eq. 9 on arrays: the sums that complete a step, each with the step's id, by component.

    The evidence of a component depends neither on a threshold nor on another one's state, so it is
    worked out once for all thresholds.

    Args:
        detected: frames (N,) ascending, what is seen at them, states (N, K) with -1 for an error
            state, and confidences (N,).
        changed: frames (M,) ascending and P(component changed) (M, K).
        weight: of the latter.
        settings: all but the thresholds counts.
        candidates: thresholds of components, of each that is tried.
    """
    frames, states, confidences = detected
    sure = confidences > settings.confidence
    seen = changed[0] if weight == 1 else frames[sure]  # frames that show something
    clear = sure & (states >= 0).all(axis=1)
    frames, states, confidences = frames[clear], states[clear], (1 - weight) * confidences[clear]
    found: list[list[tuple[Sum, int]]] = [[] for _ in candidates]
    for k, initial in enumerate(initial_state):
        changes = changed[1][:, k] > gate(settings)
        of_windows = changed[0][changes], weight * changed[1][changes, k]
        evidence = []
        for bit in (0, 1):  # the state that a flip ends
            flips = states[:, k] != bit
            evidence.append(_evidence((frames[flips], confidences[flips]), of_windows, seen))
        for steps, limits in zip(found, candidates, strict=True):
            for total, bit in _flips(evidence, limits[k], initial, settings):
                steps.append((total, 3 * k + 2 * bit))
    return found


def _shares(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = metrics.numbers(values)
    if array.shape != shape or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} are not numbers in 0…1 of shape {shape}")
    return array


def _evidence(
    detected: tuple[np.ndarray, np.ndarray],
    changes: tuple[np.ndarray, np.ndarray],
    seen: np.ndarray,
) -> list[tuple]:
    """The evidence for a flip, as `Sum.add` takes it.

    Args:
        detected, changes: frames, ascending, and the evidence of detections and windows there.
        seen: frames that show something.
    """
    every = np.union1d(detected[0], changes[0])
    y_s, y_t = np.zeros((2, len(every)))
    y_s[np.searchsorted(every, detected[0])] = detected[1]
    y_t[np.searchsorted(every, changes[0])] = changes[1]
    before, after = (np.searchsorted(seen, every, side) for side in ("left", "right"))
    columns = (every, y_s, y_t, before, after)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _flips(
    evidence: Sequence[Sequence[tuple]],
    limits: Limits,
    bit: int,
    settings: Settings,
) -> Iterator[tuple[Sum, int]]:
    """Yields the sums of a component that exceed T, each with the state that its flip ends.

    Args:
        evidence, limits: of its flips from 0 and from 1; T is None where it may not flip.
        bit: its first state.
    """
    total = Sum()
    start = 0
    while (limit := limits[bit]) is not None:
        for row in itertools.islice(evidence[bit], start, None):
            total = total.add(settings, *row)
            if total.total > limit:
                break
        else:
            return
        yield total, bit
        bit, frame = 1 - bit, total.last
        start = bisect.bisect_right(evidence[bit], frame, key=operator.itemgetter(0))
        total = Sum(blocked_until=frame + settings.window)
