"""What is seen in a picture, events, and the settings of summed evidence (`accumulate.py`)."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.psr.files.scores import FrameScores

DECODERS = ("naive", "confidence", "expected")
LAST_FRAME = 10**12  # of a saved state; a thousand years at 30 frames a second


class Seen(NamedTuple):
    """What the networks say of one picture, rounded as in prediction files.

    Attributes:
        detections: the detector's (class, confidence) rows.
        windows: (K,) P(component changed inside the window that ends here), or None.
        scores: of the picture, or None.
    """

    detections: Sequence[tuple[int, float]] = ()
    windows: Sequence[float] | np.ndarray | None = None
    scores: FrameScores | None = None


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


def reported(events: Iterable[Event]) -> list[Event]:
    """Returns the events that are reports."""
    return [event for event in events if event.kind == "report"]


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
            raise ValueError(f"--decoder={self.decoder} is not one of {', '.join(DECODERS)}")
        naive = "decoder 'naive' {}, and so has no --{}; --decoder=confidence|expected"
        for field in ("threshold", "removal"):
            value = getattr(self, field)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"--{field}={value} is not a finite number from 0 up")
        for field in ("decay", "weight", "confidence", "gate", "unseen_decay"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"--{field}={value} is not in 0…1")
        if self.decoder == "naive" and self.removal is not None:
            raise ValueError(naive.format("has no thresholds", "removal"))
        if self.decoder == "naive" and self.unseen_decay is not None:
            raise ValueError(naive.format("sums nothing up", "unseen_decay"))
        if not (self.window >= 0 and self.window == int(self.window)):
            raise ValueError(f"--window={self.window} is not a whole number of frames from 0 up")


def check_same(saved: Mapping[str, Any], own: Mapping[str, Any], *keys: str) -> None:
    """Raises ValueError if a saved state is of other things than what is to go on from it."""
    for key in keys:
        if saved[key] != own[key]:
            raise ValueError(f"the saved state is of {key} {saved[key]!r}, here it is {own[key]!r}")
