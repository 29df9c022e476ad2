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

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.psr import metrics
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event, Observation, check_same, top_detection
from stormpsr_jax.recordings.procedure import Procedure, Variant

State = Sequence[int] | np.ndarray | str  # (K,) values, or a text of 0 and 1
DECODERS = ("naive", "confidence", "expected")
STREAMS = ("asd", "temporal", "storm")  # detections alone, windows alone, both fused


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

    def event(
        self, step_id: int, stream: str, procedure: Procedure, calibration: Calibration | None
    ) -> Event:
        """Returns the event of the step that the sum completes at its last frame."""
        confidence = min(self.total / self.support, 1.0)
        if calibration is not None:
            confidence = calibration(confidence, step_id)
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


def thresholds(variant: Variant, settings: Settings) -> list[tuple[float | None, float | None]]:
    """Returns by component T of its flips from 0 and from 1, None where it may not flip."""
    install = 0.0 if settings.decoder == "naive" else settings.threshold
    removal = install if settings.removal is None else settings.removal
    parts = range(len(variant.initial_state))
    steps: Collection[int] = range(3 * len(parts))
    if settings.decoder == "expected":
        steps = variant.expected if settings.removal is None else variant.possible
    found = []
    for on, off in ((3 * k, 3 * k + 2) for k in parts):
        limit = install if off in variant.expected else removal
        found.append((install if on in steps else None, limit if off in steps else None))
    return found


def gate(settings: Settings) -> float:
    """Returns the probability above which a window's component counts as changed."""
    naive = settings.decoder == "naive"
    return max(settings.gate, settings.confidence) if naive else settings.gate


# --- Frame by frame -------------------------------------------------------------------------------


class Decoder:
    """Online decoder of one recording: one frame in, events out.

    Frames come in ascending order; a frame that is left out counts as one without evidence. The
    memory does not grow. `decode` gives the same events for a whole recording.

    Args:
        stream: "asd", "temporal" or "storm".
        calibration: of the events' confidences; it changes nothing else.

    Raises:
        ValueError: an unknown stream, or "storm" with the naive decoder, which has no fusion.
    """

    belief = None  # sums are no beliefs

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        stream: str,
        settings: Settings,
        calibration: Calibration | None = None,
    ) -> None:
        self.procedure, self.variant = procedure, variant
        self.stream, self.settings = stream, settings
        self._calibration = calibration
        self._weight, self._gate = weight_of(stream, settings), gate(settings)
        self._thresholds = thresholds(variant, settings)
        self._catalogue = procedure.states.tolist()
        self._state = list(variant.initial_state)
        self._sums = [Sum()] * len(self._state)
        self._frame = -1
        self._num_seen = 0  # frames that showed something

    @property
    def assembly(self) -> tuple[int, ...]:
        """The current state vector (K,)."""
        return tuple(self._state)

    def confirm(self, component: int, right: bool = True) -> None:
        """Raises ValueError: sums report a step or do not, and ask nobody."""
        raise ValueError(f"stream {self.stream} is sure of all components")

    @property
    def floor(self) -> float:
        """A detection at or below this confidence is no evidence."""
        return self.settings.confidence

    def update(
        self,
        frame: int,
        detections: Iterable[tuple[int, float]] = (),
        temporal: Sequence[float] | np.ndarray | None = None,
    ) -> list[Event]:
        """Takes one frame and returns the steps that complete at it, by step id.

        Args:
            frame: its number, larger than that of the frame before.
            detections: the detector's (class, confidence) rows, in file order. Not looked at by
                stream "temporal".
            temporal: (K,) P(component changed inside the window), or None where there is none. Not
                looked at by stream "asd".

        Raises:
            ValueError: a frame out of order, a class or a length that the procedure does not have,
                a confidence or probability outside 0…1. The frame is not taken then.
        """
        if frame <= self._frame:
            raise ValueError(f"frame {frame} does not come after frame {self._frame}")
        shows, shown, own = temporal is not None, self._state, 0.0
        if self._weight < 1:
            top, confidence = top_detection(frame, detections, self.procedure.error_class)
            shows = confidence > self.settings.confidence and top > 0
            # The error state says nothing about a component.
            if shows and top <= len(self._catalogue):
                shown, own = self._catalogue[top - 1], (1 - self._weight) * confidence
        changes: dict[int, float] = {}
        if temporal is not None and self._weight > 0:
            changes = self._changes(frame, temporal)
        self._frame, before = frame, self._num_seen
        self._num_seen += shows
        events: list[Event] = []
        if not own and not changes:
            return events
        for k, bit in enumerate(self._state):
            threshold = self._thresholds[k][bit]
            if threshold is None:
                continue
            y_s = own if shown[k] != bit else 0.0
            y_t = self._weight * changes.get(k, 0.0)
            one = self._sums[k].add(self.settings, frame, y_s, y_t, before, self._num_seen)
            if one.total > threshold:
                step = 3 * k + 2 * bit
                events.append(one.event(step, self.stream, self.procedure, self._calibration))
                one = Sum(blocked_until=frame + self.settings.window)
            self._sums[k] = one
        for event in events:
            self._state[event.step_id // 3] ^= 1
        return events

    def _changes(self, frame: int, temporal: Sequence[float] | np.ndarray) -> dict[int, float]:
        """The components that changed, each with its probability."""
        if len(temporal) != len(self._state):
            raise ValueError(
                f"{len(temporal)} probabilities at frame {frame}, procedure "
                f"{self.procedure.name!r} has {len(self._state)} components"
            )
        values = temporal.tolist() if isinstance(temporal, np.ndarray) else temporal
        gate, changes = self._gate, dict[int, float]()
        try:
            for k, probability in enumerate(values):
                if not 0 <= probability <= gate:
                    if not gate < probability <= 1:
                        what = f"the probability {probability} of component {k} is not in 0…1"
                        raise ValueError(f"frame {frame}: {what}")
                    changes[k] = probability
        except TypeError as error:
            raise ValueError(f"frame {frame}: {temporal!r} are not probabilities") from error
        return changes

    def observe(self, frame: int, seen: Observation, passed: int = 1) -> list[Event]:
        """Takes a picture; at frames between pictures sums decay, as the papers have it."""
        return self.update(frame, seen.detections, seen.windows)

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        rows = zip(self._state, self._thresholds, self._sums, strict=True)
        return {
            "procedure": self.procedure.name,
            "variant": self.variant.name,
            "stream": self.stream,
            "settings": dataclasses.asdict(self.settings),
            "frame": self._frame,
            "num_seen": self._num_seen,
            # A component that may not flip has no sum, and nothing is kept of it.
            "components": [
                [bit, *(one if limits[bit] is not None else [0] * len(one))]
                for bit, limits, one in rows
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError, and all stays, if it is another decoder's."""
        check_same(state, self.state(), "procedure", "variant", "stream", "settings")
        rows = state["components"]
        if len(rows) != len(self._state):
            raise ValueError(f"the saved state has {len(rows)} components")
        names = Sum._fields
        self._sums = [Sum(**dict(zip(names, values, strict=True))) for _, *values in rows]
        self._state = [bit for bit, *_ in rows]
        self._frame, self._num_seen = state["frame"], state["num_seen"]


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
    initial = tuple(metrics.states("initial_state", [initial_state], (1, None))[0].tolist())
    shape = len(at), len(initial)
    shown = np.zeros((0, shape[1]), np.int8)
    if states is not None:
        shown = metrics.states("states", states, shape)
    known = np.unique(shown[(shown >= 0).all(axis=1)], axis=0)
    product = Procedure("own", 1.0, tuple(map(str, range(shape[1]))), known, {})
    detections: list[list] = [[]] * len(at)
    windows: list[Any] = [None] * len(at)
    if states is not None:
        sure = _shares("confidences", confidences, at.shape).tolist()
        classes = product.state_classes(shown).tolist()
        detections = [[row] for row in zip(classes, sure, strict=True)]
    if changes is not None:
        windows = _shares("changes", changes, shape).tolist()
    if not 0 <= floor <= 1:
        raise ValueError(f"floor={floor} is not in 0…1")
    stream = "asd" if changes is None else "temporal" if states is None else "storm"
    decoder = "confidence" if expected is None else "expected"
    if expected is None and not threshold:  # B1, which has a floor for windows too
        gate = max(gate, floor)
    settings = Settings(decoder, threshold, decay, weight, window, floor, gate=gate)
    variant = Variant("own", initial, tuple(sorted(expected or ())), ())
    sums = Decoder(product, variant, stream, settings)
    rows = zip(at.tolist(), detections, windows, strict=True)
    return [event[:3] for row in rows for event in sums.update(*row)]


def _shares(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = metrics.numbers(values)
    if array.shape != shape or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} are not numbers in 0…1 of shape {shape}")
    return array
