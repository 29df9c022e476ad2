"""Live recognition counts seconds, whatever the rate of the camera."""

import numpy as np
import pytest

from stormpsr_jax.psr import learned_stream
from stormpsr_jax.recordings.scores import FrameScores
from stormpsr_jax.serving.online import Live
from stormpsr_jax.serving.product_share import ProductShare
from stormpsr_jax.serving.recogniser import Recognised, Recogniser
from tests.support.live_data import FPS, PROCEDURE, WEIGHTS

SETTINGS = learned_stream.LearnedSettings(sure=2.5)
BEFORE = 4.0  # seconds without a part


class Eyes(Recogniser):
    """Says of a picture what its first pixel holds: 1 the first part, right and in clear view."""

    def __init__(self):
        super().__init__(encode=None, temporal=None, detect=None, frames=1, stride=1)

    def __call__(self, images):
        there = float(images[0, 0, 0, 0])
        parts = np.r_[10 * there - 5, -6, -6, 10 * there - 5, -6, -6]
        states = np.log([0.96, 0.01, 0.01, 0.01, 0.01])
        said = FrameScores(np.array(4.0), states, parts, np.r_[-5, -5, -5, parts])
        return Recognised(np.zeros((1, 3)), None, said.each(lambda array: array[None]))


def right_at(times):
    """The second at which the part is right, of pictures at these times."""
    variant = PROCEDURE.variants["assembly"]
    live = Live(
        prepare=lambda shown: shown,
        recogniser=Eyes,
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
