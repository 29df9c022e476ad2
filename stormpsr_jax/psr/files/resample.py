"""Predictions whose frames count at one rate, renumbered to count at another.

A frame at `source` frames a second becomes the first frame at `target` frames a second at or after
its time, as a step of labels by the clock does: what was seen then is known from that frame on, and
never before. Where several frames fall on one, the best of them is kept: of detections the frame
with the most confident row, with all its rows; of the temporal stream's clips the last, which ends
nearest to the frame. At a higher rate, the frames between have no rows.
"""

import math

import numpy as np

from stormpsr_jax.base.files import MAX_FPS, MIN_FPS
from stormpsr_jax.psr.files.csvfile import MAX_FRAME
from stormpsr_jax.psr.files.predictions import Detections, TemporalPredictions
from stormpsr_jax.psr.procedure import Procedure


def parse_rates(text: str, procedure: Procedure) -> tuple[float, float]:
    """Parses "25:5", or "25" for the procedure's rate as the second.

    Raises:
        ValueError: not two numbers in MIN_FPS…MAX_FPS.
    """
    source, _, target = text.partition(":")
    try:
        rates = float(source), float(target) if target else procedure.fps
    except ValueError:
        rates = (math.nan, math.nan)
    if not all(MIN_FPS <= rate <= MAX_FPS for rate in rates):
        raise ValueError(
            f"--fps={text} is not FROM or FROM:TO, frames per second such as 25:5, each in "
            f"{MIN_FPS:g}…{MAX_FPS:g}"
        )
    return rates


def frames(numbers: np.ndarray, source: float, target: float) -> np.ndarray:
    """Returns the frame numbers (M,) at the rate `target` of those at the rate `source`.

    Raises:
        ValueError: a number that no file may have.
    """
    # A millionth: 11 / 25 · 50 is a little more than 22.
    changed = np.ceil(np.asarray(numbers, np.float64) * (target / source) - 1e-6)
    if len(changed) and changed.max() > MAX_FRAME:
        raise ValueError(f"--fps={source:g}:{target:g} leads to frames after {MAX_FRAME}")
    return changed.astype(np.int64)


def renumbered(
    found: Detections | TemporalPredictions, source: float, target: float
) -> Detections | TemporalPredictions:
    """Renumbers the frames of predictions of either stream."""
    changed = frames(found.frames, source, target)
    if isinstance(found, TemporalPredictions):
        kept = np.diff(changed, append=MAX_FRAME + 1) > 0
        return TemporalPredictions(
            changed[kept], found.labels[kept], found.predicted[kept], found.confidences[kept]
        )
    highest: dict[int, tuple[float, int]] = {}  # by new frame: confidence, the old frame of it
    columns = changed.tolist(), found.confidences.tolist(), found.frames.tolist()
    for new, confidence, old in zip(*columns, strict=True):
        if new not in highest or confidence > highest[new][0]:
            highest[new] = confidence, old
    chosen = {old for _, old in highest.values()}
    kept = np.array([frame in chosen for frame in found.frames.tolist()], bool)
    return Detections(
        changed[kept], found.classes[kept], found.confidences[kept], found.boxes[kept]
    )
