"""What a camera makes of a picture: its lens bends it, what moves is blurred, noise, eight bits.

The lens has radial distortion of one parameter k: what is seen at p, in -1..1, is what a pinhole
camera sees at p (1 + k |p|²), in units that leave nothing of the picture empty. k above 0 is a
barrel, below 0 a cushion.
"""

import functools

import numpy as np

from data_prep.rendering.resampled import compiled, resample

# Four random bytes together have a bell-shaped distribution, of this mean and standard deviation.
_MEAN, _DEVIATION = 4 * 127.5, 2 * ((256**2 - 1) / 12) ** 0.5


def exposed(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 of a display image (H, W, 3) float32 in 0..1; `level`: deviation of noise."""
    words = rng.bit_generator.random_raw(-(-image.size // 2))
    pixels = np.empty(image.shape, np.uint8)
    _expose(image.reshape(-1), words.view(np.uint8).reshape(-1, 4), level, pixels.reshape(-1))
    return pixels


@compiled
def _expose(image: np.ndarray, noise: np.ndarray, level: float, pixels: np.ndarray) -> None:
    scale = 255 * level / _DEVIATION
    for i in range(len(image)):
        total = int(noise[i, 0]) + int(noise[i, 1]) + int(noise[i, 2]) + int(noise[i, 3])
        pixels[i] = min(max(255 * image[i] + scale * (total - _MEAN) + 0.5, 0.0), 255.0)


def smeared(image: np.ndarray, move: np.ndarray) -> np.ndarray:
    """The mean of a display image (H, W, 3) float32 while it moves by (2,) pixels, right and down.

    The mean is taken of linear colours, over as many places as the move has pixels.
    """
    count = 1 + int(np.ceil(np.abs(move).max()))
    if count == 1:
        return image
    linear, total = image**2, np.zeros_like(image)
    rows, columns = (np.arange(side, dtype=np.float64) for side in image.shape[:2])
    moved = np.empty_like(image)
    for share in np.linspace(-0.5, 0.5, count):
        x, y = np.meshgrid(columns + share * move[0], rows + share * move[1])
        resample(linear, x, y, moved)
        total += moved
    return np.sqrt(total / count)


def bend(picture: np.ndarray, mask: np.ndarray, k: float) -> tuple[np.ndarray, np.ndarray]:
    """A square picture (H, H, 3) float32, and a mask (H, H) at the nearest pixels, through a lens.

    `k` is its distortion.
    """
    seen, places = np.empty_like(picture), _places(k, len(picture))
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
