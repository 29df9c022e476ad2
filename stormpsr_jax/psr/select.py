"""Thresholds, floor and fusion weight, chosen on the validation split by one rule for all streams.

The rule: the setting with the highest

    mean F1 + mean POS − DELAY_PRICE · mean delay / window

over the recordings, delay and window in seconds. F1 alone picks late, sure thresholds; with POS
and the delay in it, no stream is chosen by other wishes than another.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping

from stormpsr_jax.psr import batch, decoding, metrics
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.recordings import LabelledPredictions

# A delay of a whole window costs as much as this much of F1 or POS.
DELAY_PRICE = 0.1
THRESHOLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
CONFIDENCES = (0.3, 0.5, 0.7, 0.8, 0.9)
WEIGHTS = (0.15, 0.3, 0.5, 0.7)


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
    recordings: Mapping[str, LabelledPredictions],
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
        By stream; among equals the first of `rate`.
    """
    fps = procedure.fps if fps is None else fps
    return {
        stream: max(rate(procedure, recordings, stream, base, fps), key=lambda c: c.score)
        for stream in available_streams(recordings, base.decoder)
    }


def available_streams(recordings: Mapping[str, LabelledPredictions], decoder: str) -> list[str]:
    """Returns the streams that can be decoded; the naive decoder has no fused one."""
    asd = all(r.detections is not None for r in recordings.values())
    temporal = all(r.temporal is not None for r in recordings.values())
    fused = asd and temporal and decoder != "naive"
    present = zip(decoding.STREAMS, (asd, temporal, fused), strict=True)
    return [stream for stream, there in present if there]


def rate(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    stream: str,
    base: decoding.Settings,
    fps: float,
) -> list[Choice]:
    """Rates every setting of a stream's grid by the rule; only what matters to it varies.

    Without a single true positive there is no delay, and a setting loses to all that have one.
    """
    naive = base.decoder == "naive"
    thresholds = (base.threshold,) if naive else THRESHOLDS
    floors = (base.confidence,) if stream == "temporal" and not naive else CONFIDENCES
    weights = WEIGHTS if stream == "storm" else (base.weight,)
    choices = []
    for confidence, weight in itertools.product(floors, weights):
        settings = dataclasses.replace(base, confidence=confidence, weight=weight)
        scores: list[dict[str, dict]] = [{} for _ in thresholds]
        for name, r in recordings.items():
            found = batch.sweep(
                procedure,
                r.variant,
                stream,
                settings,
                [0.0] if naive else thresholds,
                r.detections,
                r.temporal,
            )
            for events, by_name in zip(found, scores, strict=True):
                steps = [e[:2] for e in events]
                by_name[name] = metrics.score_recording(r.truth, steps, fps)
        for threshold, by_name in zip(thresholds, scores, strict=True):
            summary = metrics.summarise(by_name)
            pos, f1, delay = summary["pos"], summary["f1"], summary["delay_s"]
            score = -math.inf
            if delay is not None:
                score = f1 + pos - DELAY_PRICE * delay / (max(base.window, 1) / fps)
            chosen = dataclasses.replace(settings, threshold=threshold)
            choices.append(Choice(chosen, score, pos, f1, delay))
    return choices
