"""Geometry of pictures and boxes, and the resizing that data and models share."""

import io

import numpy as np
import pytest
from PIL import Image

from stormpsr_jax.media.framing import ASPECTS, Framing
from stormpsr_jax.media.pictures import decode_smaller


@pytest.mark.parametrize("region", [(0, 0, 1, 1), (0.2, 0.05, 0.9, 0.8)])
@pytest.mark.parametrize("aspect", ASPECTS)
def test_prepare_matches_pillow_on_the_part_that_is_used(aspect, region):
    """The part cut out by hand at whole pixels, and black around it."""
    picture = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    left, top, right, bottom = (round(r * n) for r, n in zip(region, (200, 100) * 2, strict=True))
    prepared = Framing((40, 40), aspect, region).prepare(picture)
    assert prepared.shape == (40, 40, 3)
    assert prepared.dtype == np.uint8
    height, width = bottom - top, right - left
    rows = 40
    if aspect == "pad":
        rows = round(40 * height / width)
        black = (40 - rows) // 2
        assert not prepared[:black].any()
        assert not prepared[black + rows :].any()
        prepared = prepared[black : black + rows]
    if aspect == "crop":
        middle = (left + right) / 2
        left, right = middle - height / 2, middle + height / 2
    whole = Image.fromarray(picture)
    part = whole.resize((40, rows), Image.Resampling.BICUBIC, (left, top, right, bottom))
    np.testing.assert_array_equal(prepared, np.asarray(part))


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
