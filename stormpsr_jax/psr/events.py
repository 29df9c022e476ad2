"""What a decoder of any stream sees of a picture, and the events that it makes."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.scores import FrameScores

LAST_FRAME = 10**12  # of a saved state; a thousand years at 30 frames a second


class Observation(NamedTuple):
    """What the networks say of one picture, rounded as in prediction files.

    Attributes:
        detections: the detector's (class, confidence) rows.
        windows: (K,) P(component changed inside the window that ends here), or None.
        scores: of the picture, or None.
    """

    detections: Sequence[tuple[int, float]] = ()
    windows: Sequence[float] | np.ndarray | None = None
    scores: FrameScores | None = None


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
                problem = f"class {c} is not in 0…{last_class}, the procedure's classes"
                raise ValueError(f"frame {frame}: {problem}")
            if confidence > highest:
                top, highest = c, confidence
        return operator.index(top), max(highest, 0.0)
    except TypeError as error:
        problem = "a detection is (class, confidence), a whole number and one in 0…1"
        raise ValueError(f"frame {frame}: {problem} ({error})") from error


class Event(NamedTuple):
    """A completed step.

    Attributes:
        frame: at which it was recognised.
        step_id: 3k (install component k) or 3k+2 (remove); of the learned fusion also 3k+1
            (installed wrong).
        confidence: in 0…1, the mean of the evidence ŷ_k that made up the sum, each frame's weighted
            with what the decay had left of it; of a calibrated decoder, the probability that the
            event is right.
        stream: the name of what found it, of `streams.STREAMS`.
        evidence: "sum" that exceeded the threshold, its parts "asd" and "temporal", the number of
            "frames" with evidence since the component's previous event, the first of them "since";
            of the learned fusion the beliefs "present", "right" and "wrong".
        name: of the step, such as "Install left frame".
        time_s: seconds from frame 0 on to `frame`.
        kind: "report", or of the learned fusion also one of three that complete no step. "seen":
            the step was seen, which is enough where no bar is asked for (`risk.py`).
            "unsure" asks for a clear view: the component (step id 3k) changed at frame
            evidence["since"], and neither that it is installed right nor that it is not is sure.
            "gone" (3k+2) ends that: the component was taken off.
    """

    frame: int
    step_id: int
    confidence: float
    stream: str
    evidence: dict[str, float]
    name: str
    time_s: float
    kind: str = "report"

    @property
    def state(self) -> str:
        """What became of the component: "right", "wrong", "absent", "seen" or "unsure"."""
        if self.kind in ("seen", "unsure"):
            return self.kind
        return ("right", "wrong", "absent")[self.step_id % 3]


def reports(events: Iterable[Event]) -> list[Event]:
    """Returns the events that are reports."""
    return [event for event in events if event.kind == "report"]


class OnlineDecoder(Protocol):
    """Decodes one recording, picture by picture; the memory does not grow.

    Attributes:
        procedure, variant, settings: what it decodes, and how.
    """

    stream: str
    procedure: Procedure
    variant: Variant
    settings: Any

    @property
    def belief(self) -> Belief | None:
        """At the last picture; None of a stream without beliefs, and before the first one."""

    @property
    def assembly(self) -> tuple[int, ...]:
        """The state (K,) that was reported last; -1 for an incorrect installation."""

    @property
    def floor(self) -> float:
        """A detection at or below this confidence is no clear view."""

    def observe(self, frame: int, seen: Observation, passed: int = 1) -> list[Event]:
        """Returns the steps that complete at a picture, by frame and step id.

        Args:
            frame: its number, larger than that of the frame before.
            passed: frames since the picture before, as far as a camera's rate explains them:
                beliefs count the time that a picture stands for.

        Raises:
            ValueError: a frame out of order, or what does not fit the procedure.
        """

    def confirm(self, component: int, right: bool = True) -> None:
        """Takes it from a person that a component is installed right, or that it is not."""

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON.

        "frame" is the last one that was taken, -1 before the first.
        """

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError if it is another decoder's, or damaged."""


def check_same(saved: Mapping[str, Any], here: Mapping[str, Any], *keys: str) -> None:
    """Raises ValueError if a saved state is of other things than what is to go on from it."""
    for key in keys:
        if saved[key] != here[key]:
            raise ValueError(
                f"the saved state is of {key} {saved[key]!r}, here it is {here[key]!r}"
            )
