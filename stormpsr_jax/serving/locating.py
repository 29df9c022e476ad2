"""Where in its pictures the product is, so that networks look at it closely.

A network looks at each picture as a whole, made small. The part of the picture around what it finds
is what all others see, in the picture's own pixels. Preparation of data and recognition share this.
"""

import dataclasses
import math

import numpy as np

from stormpsr_jax.media.framing import WHOLE, Framing
from stormpsr_jax.serving.content import Function

MARGIN = 1.3  # sides of the part that is looked at, in those of the product; by rendered films
FLOOR = 0.3  # confidence above which the product is there
# Share of the way, in place and in size, from where it was to where it is found with confidence 1.
MOVE, GROW = 0.6, 0.15


class Locating:
    """Follows the product through the pictures of one source."""

    def __init__(self, locate: Function, size: tuple[int, int]):
        """Begins; `locate` takes pictures of this size (H, W)."""
        self._locate, self._framing = locate, Framing(size, "pad")
        self._at: np.ndarray | None = None  # centre in pixels, and the logarithm of its side
        # The part of the last picture to look at, and whether the product was found in it.
        self.region, self.there = WHOLE, False

    def look(self, picture: np.ndarray) -> None:
        """Takes the next picture (H, W, 3)."""
        height, width = picture.shape[:2]
        boxes, confidences = self._locate(self._framing.prepare(picture)[None])
        confidence = float(confidences[0])
        self.there = confidence > FLOOR
        if not self.there:
            return
        x0, y0, x1, y1 = self._framing.place(height, width).source_box(boxes[0])
        side = max((x1 - x0) * width, (y1 - y0) * height, 1.0)
        found = np.array([(x0 + x1) * width / 2, (y0 + y1) * height / 2, math.log(side)])
        at = found if self._at is None else self._at
        self._at = at + confidence * np.array([MOVE, MOVE, GROW]) * (found - at)
        cx, cy, side = float(self._at[0]), float(self._at[1]), MARGIN * math.exp(self._at[2])
        w, h = min(side, width), min(side, height)
        x, y = (min(max(c - s / 2, 0), of - s) for c, s, of in ((cx, w, width), (cy, h, height)))
        self.region = x / width, y / height, min((x + w) / width, 1), min((y + h) / height, 1)

    def framed(self, framing: Framing) -> Framing:
        """How the last picture becomes another one, given how it would without a region."""
        return dataclasses.replace(framing, region=self.region)

    def cut(self, picture: np.ndarray, framing: Framing) -> np.ndarray:
        """What networks see of the last picture: black where there is no product to look at.

        What they would say of hands or of other things in its place would be no evidence.
        """
        if not self.there:
            return np.zeros((*framing.size, 3), np.uint8)
        return self.framed(framing).prepare(picture)
