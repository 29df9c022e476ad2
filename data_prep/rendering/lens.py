"""A lens that bends what a pinhole camera would see: radial distortion, of one parameter k.

What is seen at p, in -1..1, is what a pinhole camera sees at p (1 + k |p|²), in units that leave
nothing of the picture empty. k above 0 is a barrel, below 0 a cushion.
"""

import functools

import numpy as np


def bend(picture: np.ndarray, mask: np.ndarray, k: float) -> tuple[np.ndarray, np.ndarray]:
    """A square picture (H, H, 3) float32, and a mask (H, H) at the nearest pixels, through it."""
    from data_prep.rendering.resampled import resample  # here, as --help does without it

    seen = np.empty_like(picture)
    places = _places(k, len(picture))
    resample(picture, *places, seen)
    x, y = (np.rint(at).astype(int).clip(0, len(mask) - 1) for at in places)
    return seen, mask[y, x]


@functools.lru_cache(4)
def _places(k: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (size, size) of what is seen at each pixel."""
    middles = (np.arange(size) + 0.5) * 2 / size - 1
    grid = np.stack(np.meshgrid(middles, middles), axis=-1)
    square = (grid**2).sum(-1, keepdims=True)
    # 2 in the corners, 1 in the middle of an edge: the farther one stays where it is.
    at = (grid * (1 + k * square) / (1 + (2 * k if k > 0 else k)) + 1) * size / 2 - 0.5
    return np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
