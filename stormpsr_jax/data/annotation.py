"""The labels of frames; those without a box: looked at and empty, or not looked at."""

import dataclasses
import math

import numpy as np

# Classes of frames without a box: somebody looked at them, and there is no whole object; or nobody
# did, so that nothing is known.
EMPTY, NOT_ANNOTATED = -1, -2


# Pixels across a product that were enough on our rendered toy (one seed): with 28 figures are those
# of 55, with 14 POS of what is seen falls from .87 to .73, and what is right takes twice the time.
ENOUGH = 28


def pixels_across(boxes: np.ndarray, size: tuple[int, int]) -> float:
    """The median of the longer sides, in pixels, of boxes in a picture of (H, W); NaN without any.

    `boxes` are (N, 4) cx, cy, w, h in 0…1 of the picture; NaN where there is none.
    """
    sides = (boxes[:, 2:] * size[::-1]).max(axis=1)
    return float(np.median(there)) if len(there := sides[np.isfinite(sides)]) else math.nan


@dataclasses.dataclass(frozen=True)
class LabelledFrames:
    """The labels of a recording's N frames, `first_frame` … `first_frame + N - 1`.

    Attributes:
        states: (N, K) int8 in {-1, 0, 1}.
        boxes: (N, 4) float32 cx, cy, w, h in 0…1; NaN where there is none.
        classes: (N,) int16; of a box 1…S assembly state, S + 1 error state, 0 uncatalogued (ignored
            by the detector); without one `EMPTY` or NOT_ANNOTATED.
        visible: (N,) float32, visible fraction of the object; NaN where unknown.
        poses: (N, 6) float32, how the product lies in a render: x and y of its middle, from there
            to the end of its x axis, and to that of its y axis, in 0…1 of the picture's width and
            height, y down. The axes end half its height beyond the sides of the complete product,
            so that all of it lies between them when it is seen at an angle. NaN where unknown, in
            recordings throughout; None becomes that.
    """

    name: str
    first_frame: int
    states: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    visible: np.ndarray
    poses: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.poses is None:
            unknown = np.broadcast_to(np.float32(np.nan), (len(self.states), 6))
            object.__setattr__(self, "poses", unknown)

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.states)
