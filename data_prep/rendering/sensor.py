"""What a camera makes of a picture: blur of what moves, noise, and eight bits a channel."""

import numpy as np

from data_prep.rendering.compiled import compiled
from data_prep.rendering.resampled import resample

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
    one = np.empty_like(image)
    for share in np.linspace(-0.5, 0.5, count):
        x, y = np.meshgrid(columns + share * move[0], rows + share * move[1])
        resample(linear, x, y, one)
        total += one
    return np.sqrt(total / count)
