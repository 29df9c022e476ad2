"""Events, and how summed evidence is decoded: the settings, and what they mean for a stream.

`decoding.py` has the equations, and the decoder that goes by this.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.psr.files.scores import FrameScores
from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.streams.calibration import Calibration

STREAMS = ("asd", "temporal", "storm")  # those that sum up evidence
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


class Rules:
    """What a stream's settings mean, for the online and the batch decoder alike."""

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        stream: str,
        settings: Settings,
        calibration: Calibration | None = None,
    ) -> None:
        naive = settings.decoder == "naive"
        self.procedure, self.stream = procedure, stream
        self.calibration = calibration
        self.weight = share_of_windows(stream, settings)
        install = 0.0 if naive else settings.threshold
        removal = install if settings.removal is None else settings.removal
        # Of component k's flip from 0 (install) and from 1 (remove).
        self.thresholds = [
            (install, install if 3 * k + 2 in variant.expected else removal)
            for k in range(procedure.num_components)
        ]
        self.decay, self.unseen_decay = settings.decay, settings.unseen_decay
        self.changed = max(settings.gate, settings.confidence) if naive else settings.gate
        num = procedure.num_components
        steps: Collection[int] = range(3 * num)
        if settings.decoder == "expected":
            steps = variant.possible if settings.removal is not None else set(variant.expected)
        # Whether component k may flip from 0 (install) and from 1 (remove).
        self.may_flip = [(3 * k in steps, 3 * k + 2 in steps) for k in range(num)]

    def left(self, frames: int, seen: int) -> float:
        """Returns what the decay leaves of a sum after so many frames without evidence.

        Args:
            frames: how many there are.
            seen: how many of them show something; read only if `unseen_decay` is given.
        """
        if self.unseen_decay is None:
            return self.decay**frames
        return self.decay**seen * self.unseen_decay ** (frames - seen)

    def event(
        self,
        frame: int,
        step_id: int,
        total: float,
        temporal: float,
        support: float,
        frames: int,
        since: int,
    ) -> Event:
        """Returns the event of a sum that exceeded the threshold."""
        evidence = {
            "sum": total,
            "asd": max(total - temporal, 0.0),
            "temporal": temporal,
            "frames": frames,
            "since": since,
        }
        confidence = min(total / support, 1.0)
        return Event(
            frame,
            step_id,
            confidence if self.calibration is None else self.calibration(confidence, step_id),
            self.stream,
            evidence,
            self.procedure.step_name(step_id),
            frame / self.procedure.fps,
        )


def check_same(saved: Mapping[str, Any], own: Mapping[str, Any], *keys: str) -> None:
    """Raises ValueError if a saved state is of other things than what is to go on from it."""
    for key in keys:
        if saved[key] != own[key]:
            raise ValueError(f"the saved state is of {key} {saved[key]!r}, here it is {own[key]!r}")


def share_of_windows(stream: str, settings: Settings) -> float:
    """Returns the weight of the temporal stream in a stream of `STREAMS` (Eq. 9).

    Raises:
        ValueError: an unknown stream, or the fused one with the naive decoder, which has no fusion.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r} is not one of {', '.join(STREAMS)}")
    if stream == "storm" and settings.decoder == "naive":
        raise ValueError("decoder 'naive' has no fused stream; --decoder=confidence|expected")
    return {"asd": 0.0, "temporal": 1.0, "storm": settings.weight}[stream]
