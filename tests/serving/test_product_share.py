"""A source fits where the detector sees the product about as often as in validation."""

import numpy as np

from stormpsr_jax.serving import frames
from stormpsr_jax.serving.frames import Detected, Frame, ProductShare

RATE = 5.0


def pictures(shown):
    """Frames whose pictures are of the product where `shown` (N,) says so."""
    for i, there in enumerate(shown):
        found = np.array([0, 3 * there]), np.array([0, 0.9 * there])
        yield Frame(i, Detected(np.zeros((2, 4)), *found))


def part(share, count):
    return np.arange(count) < round(share * count)


def test_a_station_goes_by_the_last_minutes():
    minute = round(60 * RATE)
    product, told = ProductShare(0.4, RATE, station=True), []
    for share, minutes in ((0.4, 2), (0.0, 20), (0.4, 3)):
        for _ in range(minutes):
            for picture in pictures(part(share, minute)):
                product.update(picture)
            told.append(product.fits)
    assert told[1] is True
    assert told[21] is False
    assert told[-1] is True  # within minutes after a break
    assert told[2:5] == [True] * 3  # a short one says nothing
    assert product.counts[1] <= RATE * frames.MEMORY + 1
