"""Lenses that bend what a pinhole camera would see."""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Lens:
    """Radial distortion, of one parameter.

    What is seen at p, in -1..1, is what a pinhole camera sees at p (1 + k |p|²), in units that
    leave nothing of the picture empty. `k` above 0 is a barrel, below 0 a cushion.
    """

    k: float

    def undistorted(self, points: np.ndarray) -> np.ndarray:
        """Where a pinhole camera sees what is seen at points (..., 2) in -1..1."""
        square = (points**2).sum(-1, keepdims=True)
        # 2 in the corners, 1 in the middle of an edge: the farther one stays where it is.
        whole = 1 + (2 * self.k if self.k > 0 else self.k)
        return points * (1 + self.k * square) / whole

    def picture(self, picture: np.ndarray) -> np.ndarray:
        """A square picture (H, H, 3) float32 as it is seen through the lens."""
        from data_prep.rendering.resampled import resample  # here, as --help does without it

        seen = np.empty_like(picture)
        resample(picture, *_places(self, len(picture)), seen)
        return seen

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The same of a mask (H, H), at the nearest pixels."""
        x, y = (np.rint(at).astype(int) for at in _places(self, len(mask)))
        return mask[y.clip(0, len(mask) - 1), x.clip(0, len(mask) - 1)]


@functools.lru_cache(4)
def _places(lens: Lens, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (size, size) of what is seen at each pixel."""
    middles = (np.arange(size) + 0.5) * 2 / size - 1
    grid = np.stack(np.meshgrid(middles, middles), axis=-1)
    at = (lens.undistorted(grid) + 1) * size / 2 - 0.5
    return np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
