"""What a camera makes of a picture: noise, and eight bits a channel."""

import numpy as np

from data_prep.rendering.compiled import compiled

# Four random bytes together have a bell-shaped distribution, of this mean and standard deviation.
_MEAN, _DEVIATION = 4 * 127.5, 2 * ((256**2 - 1) / 12) ** 0.5


def exposed(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 of a display image (H, W, 3) float32 in 0..1.

    Args:
        image: the picture.
        level: the standard deviation of the noise, in units of the image.
        rng: draws the noise.
    """
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
