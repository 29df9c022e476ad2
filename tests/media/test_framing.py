"""Geometry of pictures and boxes, and the resizing that data and models share."""

import numpy as np
import pytest
from PIL import Image

from stormpsr_jax.media.framing import ASPECTS, Framing


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (4, 4)}, "--size"),
        ({"aspect": "zoom"}, "--aspect=zoom is not one of stretch, pad, crop"),
        ({"region": (0.5, 0, 0.5, 1)}, "--crop=0.5,0,0.5,1 is not"),
        ({"region": (0, 0, 1.1, 1)}, "--crop=0,0,1.1,1 is not"),
        ({"region": (float("nan"), 0, 1, 1)}, "--crop=nan"),
        ({"quality": 0}, "--quality=0"),
    ],
)
def test_framing_impossible_ones_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Framing(**({"size": (24, 24)} | change))
