"""Thresholds, floor and fusion weight, chosen on the validation split by one rule for all streams.

The rule: the setting with the highest

    mean F1 + mean POS − DELAY_PRICE · mean delay / window

over the recordings, delay and window in seconds. F1 alone picks late, sure thresholds; with POS
and the delay in it, no stream is chosen by other wishes than another.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping

from stormpsr_jax.psr import decoding, metrics
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.recordings import Recording

# A delay of a whole window costs as much as this much of F1 or POS.
DELAY_PRICE = 0.25
THRESHOLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
CONFIDENCES = (0.3, 0.5, 0.7, 0.8, 0.9)
WEIGHTS = (0.3, 0.5, 0.7)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A setting and its figures on the recordings it was chosen on."""

    settings: decoding.Settings
    score: float
    pos: float | None
    f1: float | None
    delay_s: float | None


def select(
    procedure: Procedure,
    recordings: Mapping[str, Recording],
    base: decoding.Settings,
    fps: float | None = None,
) -> dict[str, Choice]:
    """Chooses the settings of every stream that the recordings have.

    Args:
        procedure: the product.
        recordings: of the validation split.
        base: decoder, decay and window, and what is not on the grid of a stream.
        fps: frames per second, None for the procedure's.

    Returns:
        By stream; among equals the first of the grid, which has the lowest threshold.
    """
    fps = fps or procedure.fps
    return {
        stream: max(
            (rate(procedure, recordings, stream, s, fps) for s in grid(stream, base)),
            key=lambda choice: choice.score,
        )
        for stream in available_streams(recordings, base.decoder)
    }


def available_streams(recordings: Mapping[str, Recording], decoder: str) -> list[str]:
    """Returns the streams that can be decoded; the naive decoder has no fused one."""
    asd = all(r.detections is not None for r in recordings.values())
    temporal = all(r.temporal is not None for r in recordings.values())
    fused = asd and temporal and decoder != "naive"
    present = zip(decoding.STREAMS, (asd, temporal, fused), strict=True)
    return [stream for stream, there in present if there]


def grid(stream: str, base: decoding.Settings) -> Iterable[decoding.Settings]:
    """Yields the settings to try for a stream: only what makes a difference to it varies."""
    thresholds = (base.threshold,) if base.decoder == "naive" else THRESHOLDS
    floors = (base.confidence,) if stream == "temporal" else CONFIDENCES
    weights = WEIGHTS if stream == "storm" else (base.weight,)
    for threshold, confidence, weight in itertools.product(thresholds, floors, weights):
        yield dataclasses.replace(base, threshold=threshold, confidence=confidence, weight=weight)


def rate(
    procedure: Procedure,
    recordings: Mapping[str, Recording],
    stream: str,
    settings: decoding.Settings,
    fps: float,
) -> Choice:
    """Decodes the recordings with one setting and rates it by the rule.

    Without a single true positive there is no delay, and the setting loses to all that have one.
    """
    scores = {}
    for name, r in recordings.items():
        events = decoding.decode(procedure, r.variant, stream, settings, r.detections, r.temporal)
        scores[name] = metrics.score_recording(r.truth, [e[:2] for e in events], fps)
    summary = metrics.summarise(scores)
    pos, f1, delay = summary["pos"], summary["f1"], summary["delay_s"]
    score = -float("inf")
    if delay is not None:
        score = f1 + pos - DELAY_PRICE * delay / (max(settings.window, 1) / fps)
    return Choice(settings, score, pos, f1, delay)
