"""Where correct parts lie, from recordings without labels."""

import numpy as np
import pytest

from stormpsr_jax.psr import calibration
from stormpsr_jax.recordings.scores import Scores


def film(rng, centre, wrong):
    """Twenty looks at part 0, each of which hands end; it is incorrect with the chance `wrong`."""
    rows = []
    for _ in range(20):
        right = rng.normal(-2 if rng.random() < wrong else centre)
        rows += [(4.0, 5.0, right + rng.normal(0, 0.3))] * 6 + [(-4.0, 5.0, -9.0)] * 3
    view, present, right = np.array(rows).T
    absent = np.full(len(rows), -5.0)
    states = np.zeros((len(rows), 2))
    parts = np.stack([present, absent, right, absent], axis=1)
    return Scores(np.arange(len(rows)), view, states, parts)


@pytest.mark.parametrize("wrong", [0.1, 0.2, 0.3])
def test_incorrect_parts_among_the_films_move_the_level_little(wrong):
    rng = np.random.default_rng(0)
    alone, with_wrong = (
        calibration.level([film(rng, 4.0, chance) for _ in range(10)]) for chance in (0.0, wrong)
    )
    assert alone[0] == pytest.approx(4.7, abs=0.3)  # the upper quarter of N(4, 1)
    assert abs(with_wrong[0] - alone[0]) < 0.5
    assert alone[1] is None  # never there


def test_what_is_added_is_half_of_what_the_films_lack():
    assert calibration.shift([6.0, 5.0, None], [2.0, None, 3.0]) == [2.0, 0.0, 0.0]
    assert calibration.level([Scores(np.arange(3), None, None, None, np.zeros((3, 2)))]) is None


def test_logits_far_above_those_of_renders_count_for_less():
    taught = [True, True, True, False]
    assert calibration.trust([8.0, 3.0, None, 5.0], taught) == (0.5, 1.0, 0.8, 0.0)
    assert calibration.trust(None, taught) == (1.0, 1.0, 1.0, 0.0)
