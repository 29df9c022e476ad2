"""Live recognition counts seconds, whatever the rate of the camera."""

import numpy as np
import pytest

from stormpsr_jax.psr import learned_stream
from stormpsr_jax.serving import frames
from stormpsr_jax.serving.content import Window
from stormpsr_jax.serving.frames import Detected, Frame, Frames, ProductShare, Views
from stormpsr_jax.serving.online import Live
from tests.support.live_data import FPS, PROCEDURE, WEIGHTS

SETTINGS = learned_stream.LearnedSettings(sure=2.5)
BEFORE = 4.0  # seconds without a part


def parts(first_pixels):
    """Of a picture whose first pixel is 1: the first part, right and in clear view."""
    there = 10 * float(first_pixels[0, -1, 0]) - 5
    return np.array([[there, -6, -6, there, -6, -6]])


FUNCTIONS = {
    "encode": lambda images: images[:, 0, 0].astype(np.float32),
    "temporal": lambda windows: (np.zeros((1, 3)), np.c_[[[-5, -5, -5]], parts(windows)]),
    "detect": lambda images: (
        *(np.zeros((1, 1, 4)), np.zeros((1, 1), int), np.zeros((1, 1))),
        (np.array([4.0]), np.log([[0.96, 0.01, 0.01, 0.01, 0.01]]), parts(images[:, 0, :1])),
    ),
}


def right_at(times):
    """The second at which the part is right, of pictures at these times."""
    variant = PROCEDURE.variants["assembly"]
    live = Live(
        prepare=lambda shown: Views(shown, shown),
        frames=lambda decoder: Frames(FUNCTIONS, Window(1, 1), decoder),
        decoder=lambda: learned_stream.LearnedDecoder(
            PROCEDURE.at(FPS), variant, SETTINGS, WEIGHTS
        ),
        product=ProductShare(None, FPS, station=True),
        fps=FPS,
        of_model="eyes",
    )
    for time in times:
        shown = np.full((4, 4, 3), time >= BEFORE, np.uint8)
        for event in live.update(shown, time):
            if (event.kind, event.step_id) == ("report", 0):
                return time
    return None


@pytest.mark.parametrize("rate", [FPS, 5.0, 2.0])
def test_a_part_is_right_as_soon_with_a_slow_camera(rate):
    times = np.arange(0, 30, 1 / rate)
    assert right_at(times) == pytest.approx(BEFORE + 2.5, abs=1.5)
    jittered = times + np.random.default_rng(0).uniform(0, 0.3 / rate, len(times))
    assert right_at(jittered) == pytest.approx(right_at(times), abs=1.0)


def test_a_dropout_is_no_look():
    """One picture of the part, 60 s after the one before it, is not a look of a minute."""
    before = np.arange(0, BEFORE, 1 / FPS)
    assert right_at([*before, 64.0]) is None
    assert right_at([*before, *np.arange(64.0, 70.0, 1 / FPS)]) == pytest.approx(66.5, abs=1.5)


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
