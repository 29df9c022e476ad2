"""JPEG files decoded at a fraction of their size, against decoding them whole."""

import io

import numpy as np
import pytest
from PIL import Image

from stormpsr_jax.media.jpegs import decode_smaller


def picture(size: int) -> Image.Image:
    """Shapes coarse and fine, as in photographs."""
    rng = np.random.default_rng(0)
    layers = []
    for cells in (4, 16, 64):
        grid = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        layers.append(np.asarray(Image.fromarray(grid).resize((size, size), Image.BICUBIC), float))
    return Image.fromarray((layers[0] / 2 + layers[1] / 3 + layers[2] / 6).astype(np.uint8))


@pytest.mark.parametrize(("stored", "size"), [(640, 224), (637, 224), (96, 32), (100, 80)])
def test_decode_smaller_matches_pillow_on_the_whole_picture(stored, size):
    file = io.BytesIO()
    picture(stored).save(file, "JPEG", quality=92, subsampling=0)
    whole = Image.open(file).resize((size, size), Image.Resampling.BICUBIC)
    found = np.zeros((size, size, 3), np.uint8)
    decode_smaller(file.getvalue(), found)
    error = np.mean((found.astype(float) - np.asarray(whole)) ** 2)
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 40
