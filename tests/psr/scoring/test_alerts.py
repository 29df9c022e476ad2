"""Alerts that a part is incorrect, against labels."""

import numpy as np
import pytest

from stormpsr_jax.psr.scoring import alerts

FRAMES = np.array([0, 10, 20, 40])
STATES = np.array([[0, 0], [-1, 0], [1, -1], [1, 1]])  # part 0 in 10…19, part 1 in 20…39


@pytest.mark.parametrize(
    ("told", "true", "noticed"),
    [
        ([], 0, 0),
        ([(15, 0)], 1, 1),
        ([(9, 0), (20, 0), (40, 1)], 0, 0),
        ([(15, 1), (15, None)], 1, 1),
        ([(12, 0), (18, 0), (25, None)], 3, 2),
    ],
)
def test_an_alert_is_true_while_the_part_that_it_names_sits_wrong(told, true, noticed):
    found = alerts.score_recording(FRAMES, STATES, told)
    assert found == {"alerts": len(told), "true": true, "shown": 2, "noticed": noticed}


def test_precision_and_recall_are_of_all_recordings():
    one = alerts.score_recording(FRAMES, STATES, [(15, 0), (5, 0)])
    found = alerts.summarise([one, one])
    assert (found["precision"], found["recall"]) == (0.5, 0.5)
    nothing = alerts.summarise([])
    assert (nothing["precision"], nothing["recall"]) == (None, None)
