"""What the log says about labels that are right."""

from pathlib import Path

import numpy as np
import pytest

from data_prep import notes
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.recordings.labels import Labels, states_per_frame
from stormpsr_jax.recordings.recording import Recording
from tests.support.own_data import PROCEDURE


def test_describe_steps_that_are_not_the_changes_of_the_states_are_named():
    frames, states = np.array([0, 5, 8, 10]), np.tri(4, 3, -1, dtype=np.int8)
    found = []
    for name, steps in (
        ("bench1", [(5, 0), (8, 3), (10, 6)]),
        ("bench2", [(5, 0), (9, 3), (9, 4), (10, 6)]),
    ):
        labels = Labels(steps, steps, frames, states)
        per_frame = states_per_frame(frames, states, 0, 20)
        video = ImageFiles(Path(name), 0, 20)
        found.append(Recording(name, video, PROCEDURE, labels, per_frame))
    assert notes.describe(found, PROCEDURE)[1:-1] == [
        "recording bench2: PSR_labels.csv and the states differ, changes of state that are no "
        "steps: Install cover at frame 8; steps without a change of state: Install cover at frame "
        "9. Training follows the states and scores follow the steps: correct whichever is wrong"
    ]


# Boxes of two films of 200 x 400 pixels (HxW), in which the product is 10 x 5 % of the picture.
BOXES = [np.array([[0.4, 0.5, 0.1, 0.1], [0.6, 0.5, 0.1, 0.1]]), np.zeros((0, 4))]


@pytest.mark.parametrize(
    ("framing", "across", "advice"),
    [
        (Framing((64, 64)), 6, "--size=280, or give a --crop"),
        (Framing((64, 64), region=(0.2, 0.4, 0.8, 0.6)), 32, None),
        (Framing((320, 320)), 32, None),
    ],
)
def test_a_product_that_is_too_small_is_named_with_the_size_or_crop_that_helps(
    framing, across, advice
):
    line, warning = notes.product_size(BOXES, [(200, 400)] * 2, framing)
    size = framing.size[0]
    assert line == f"the product is {across} pixels across at --size={size} (in the films 40)"
    assert (advice is None) == (warning == "")
    assert (advice or "") in warning
    assert notes.product_size(BOXES[1:], [(200, 400)], framing) == ("", "")
