"""What becomes of a picture: the part of it that is used, and how it fills the size wanted.

The preparation of data and a trained model that looks at pictures share this, so that a model sees
what it was trained on.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

ASPECTS = ("stretch", "pad", "crop")
WHOLE = (0.0, 0.0, 1.0, 1.0)
# A box of which less is left by a crop is dropped.
KEPT_FRACTION = 0.5


@dataclasses.dataclass(frozen=True)
class Framing:
    """What becomes of a picture; ValueError: a field is out of range."""

    size: tuple[int, int]  # (H, W) of the result
    # "stretch" changes the aspect ratio, "pad" keeps it and adds black at two sides, "crop" keeps
    # it and cuts off two sides, as much from each.
    aspect: str = "stretch"
    # x0, y0, x1, y1 in 0…1, the part of the picture that is used; comes before `aspect`.
    region: tuple[float, float, float, float] = WHOLE

    def __post_init__(self) -> None:
        if min(self.size) < 8:
            raise ValueError(f"--size={self.size}: at least 8 pixels")
        if self.aspect not in ASPECTS:
            raise ValueError(f"--aspect={self.aspect} is not one of {', '.join(ASPECTS)}")
        x0, y0, x1, y1 = self.region
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ValueError(
                f"--crop={x0:g},{y0:g},{x1:g},{y1:g} is not x0,y0,x1,y1 with 0 <= x0 < x1 <= 1 and "
                "0 <= y0 < y1 <= 1"
            )

    def place(self, height: int, width: int) -> Placement:
        """Returns which part of a picture of that size goes where."""
        (rows, columns), (x0, y0, x1, y1) = self.size, self.region
        used_width, used_height = (x1 - x0) * width, (y1 - y0) * height
        inside = (0, 0, columns, rows)
        if self.aspect == "crop":
            scale = max(columns / used_width, rows / used_height)
            half_width, half_height = columns / scale / width / 2, rows / scale / height / 2
            cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
            x0, x1 = max(x0, cx - half_width), min(x1, cx + half_width)
            y0, y1 = max(y0, cy - half_height), min(y1, cy + half_height)
        elif self.aspect == "pad":
            scale = min(columns / used_width, rows / used_height)
            w = max(1, min(columns, round(used_width * scale)))
            h = max(1, min(rows, round(used_height * scale)))
            inside = ((columns - w) // 2, (rows - h) // 2, w, h)
        return Placement(self.size, (x0, y0, x1, y1), inside)

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """Returns a picture (H, W, 3) uint8 as (*size, 3) uint8, upright as it came."""
        height, width = picture.shape[:2]
        placement = self.place(height, width)
        return placement.resize(Image.fromarray(picture), (height, width))


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which part of a picture goes where."""

    size: tuple[int, int]  # (H, W) of the result
    part: tuple[float, float, float, float]  # x0, y0, x1, y1 in 0…1 of the picture
    inside: tuple[int, int, int, int]  # x, y, w, h in pixels of the result; around it is black

    def map_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Maps boxes of the picture to boxes of the result.

        What a crop cuts off from a box is cut off from the result too; a box that keeps less than
        half of its area (KEPT_FRACTION) becomes NaN: nobody has said what is left of the object.

        Args:
            boxes: (N, 4) cx, cy, w, h in 0…1; NaN where there is none.

        Returns:
            (N, 4) float64 of the same kind.
        """
        boxes = np.asarray(boxes, np.float64)
        low, high = np.array(self.part[:2]), np.array(self.part[2:])
        half = boxes[:, 2:] / 2
        corners = [(boxes[:, :2] + sign * half - low) / (high - low) for sign in (-1, 1)]
        start, end = (np.clip(corner, 0, 1) for corner in corners)
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = np.prod(end - start, axis=1) / np.prod(corners[1] - corners[0], axis=1)
        scale = np.array(self.inside[2:]) / self.size[::-1]
        shift = np.array(self.inside[:2]) / self.size[::-1]
        mapped = np.concatenate([(start + end) / 2 * scale + shift, (end - start) * scale], axis=1)
        mapped[~(kept >= KEPT_FRACTION)] = np.nan
        return np.clip(mapped, 0, 1)

    def source_box(self, box: np.ndarray) -> tuple[float, float, float, float]:
        """Returns x0, y0, x1, y1 in 0…1 of the picture, of a box (4,) on the result."""
        (rows, columns), (x0, y0, x1, y1) = self.size, self.part
        x, y, w, h = self.inside
        cx, cy, half_w, half_h = np.asarray(box, float) * (columns, rows, columns / 2, rows / 2)
        xs = np.clip([(cx - half_w - x) / w, (cx + half_w - x) / w], 0, 1)
        ys = np.clip([(cy - half_h - y) / h, (cy + half_h - y) / h], 0, 1)
        (left, right), (top, bottom) = x0 + (x1 - x0) * xs, y0 + (y1 - y0) * ys
        return float(left), float(top), float(right), float(bottom)

    def resize(self, image: Image.Image, size: tuple[float, float]) -> np.ndarray:
        """Returns the result of a picture: bicubic, with antialiasing.

        Args:
            image: RGB.
            size: (H, W) that the whole picture has at the scale of `image`, which need not be a
                whole number where a decoder has reduced it.

        Returns:
            (*self.size, 3) uint8, which may be read-only.
        """
        (height, width), (x0, y0, x1, y1), (x, y, w, h) = size, self.part, self.inside
        right, bottom = min(x1 * width, image.width), min(y1 * height, image.height)
        box = (x0 * width, y0 * height, right, bottom)
        part = np.asarray(image.resize((w, h), Image.Resampling.BICUBIC, box=box))
        if part.shape[:2] == tuple(self.size):
            return part
        result = np.zeros((*self.size, 3), np.uint8)
        result[y : y + h, x : x + w] = part
        return result


DEFAULT_FRAMING = Framing((224, 224))
