"""Whether a source shows the model's product, by the share of pictures in which it is seen.

A detector is hardly ever sure of a product that it does not know. A model knows in which share of
the pictures it was sure of its own one, of the validation recording that has the lowest. A source
with far less does not fit.
"""

import math
from collections.abc import Iterable

import numpy as np

from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.serving.frames import Frame

SURE = 0.7  # confidence of the top detection above which a picture shows the product
FAR_LESS = 0.25  # of the model's share
LEAST = 0.02  # share of a model below which a source with none of it tells nothing
ENOUGH = 10.0  # seconds of a recording from which on it is judged
# Seconds: a station is judged from when it has run so long, by pictures of so long.
START, MEMORY = 60.0, 300.0


def lowest_share(recordings: Iterable[tuple[Detections, int]]) -> float | None:
    """The share of a model, from the detections in validation recordings and their lengths.

    None if there is no recording, or one hardly shows the product.
    """
    shares = []
    for found, count in recordings:
        sure = (found.classes > 0) & (found.confidences > SURE)
        shares.append(len(np.unique(found.frames[sure])) / count)
    lowest = min(shares, default=0.0)
    return round(lowest, 4) if lowest >= LEAST else None


class ProductShare:
    """Counts the pictures of a source that show the product; the memory does not grow."""

    def __init__(self, of_model: float | None, rate: float, station: bool = False):
        """Begins; `rate`: pictures a second; `station`: the source may go on for ever."""
        self.of_model = of_model  # the lowest share of a validation recording, where it is known
        # Pictures that show the product, and all; of a station those of long ago count less.
        self.counts = (0.0, 0.0)
        self._enough = rate * (START if station else ENOUGH)
        self._keeps = math.exp(-1 / (rate * MEMORY)) if station else 1.0

    def update(self, frame: Frame) -> None:
        """Takes the next picture; of a stream without a detector nothing is known."""
        if frame.detected is not None:
            shown, (seen, count) = frame.top is not None and frame.top[1] > SURE, self.counts
            self.counts = seen * self._keeps + shown, count * self._keeps + 1

    @property
    def share(self) -> float | None:
        """The share of pictures that show the product; None where there are too few of them."""
        seen, count = self.counts
        return seen / count if count >= max(1, self._enough) else None

    @property
    def fits(self) -> bool | None:
        """Whether the source shows the model's product; None where that cannot be told."""
        if self.of_model is None or self.share is None:
            return None
        return self.share >= FAR_LESS * self.of_model

    def __str__(self) -> str:
        """Both shares, for people; "" where one is not known."""
        if self.of_model is None or self.share is None:
            return ""
        return (
            f"the detector is sure of the product in {self.share:.1%} of the pictures, in "
            f"validation it was in {self.of_model:.1%} or more"
        )
