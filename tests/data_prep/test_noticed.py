"""Incorrect installations that nobody can see are not labels."""

import dataclasses

import numpy as np
import pytest

from data_prep.rendering.mesh import affine
from data_prep.worlds import motion
from data_prep.worlds.timelines import Timeline
from tests.support.recipes import SYNTHETIC, recipe

LADDER = SYNTHETIC.components.index("ladder")


def _timeline(k):
    """A part is incorrect for ten seconds in the complete product, and is put right."""
    states = np.ones((3, SYNTHETIC.num_components), np.int8)
    states[1, k] = -1
    return Timeline(0, 150, np.array([0, 50, 100]), states)


def _planned(monkeypatch, name, change):
    """Changes what a function of `motion` returns."""
    plan = getattr(motion, name)

    def planned(*given, **more):
        found = plan(*given, **more)
        return dataclasses.replace(found, **change(found))

    monkeypatch.setattr(f"data_prep.synthetic.{name}", planned)


def _elsewhere(found):
    return {"target": np.full_like(found.target, 40.0)}


@pytest.mark.parametrize("unseen", [False, True])
def test_what_no_picture_shows_until_it_is_right_is_right(unseen, monkeypatch):
    made = recipe()
    monkeypatch.setattr(type(made), "timeline", lambda *_: _timeline(LADDER))
    bare = lambda found: {"reach": 0 * found.reach}  # noqa: E731
    _planned(monkeypatch, "plan_recording", _elsewhere if unseen else bare)
    wrong = (made.make("train", "train_000").states < 0).sum(axis=0)
    expected = np.zeros(11, int)
    expected[LADDER] = 0 if unseen else 50
    np.testing.assert_array_equal(wrong, expected)


@pytest.mark.parametrize(
    ("name", "hidden", "expected"), [("beacon", 0, 50), ("beacon", 20, 70), ("chassis", 0, None)]
)
def test_an_installation_is_visible_once_the_hands_are_off_it(name, hidden, expected, monkeypatch):
    """The chassis, which lies under the others, is never seen to be a little off its place."""
    k, made = SYNTHETIC.components.index(name), recipe()
    timeline = _timeline(k)
    timeline.states[:, k] = 0, 1, 0
    monkeypatch.setattr(type(made), "timeline", lambda *_: timeline)
    right = made.product.parts[k].right
    beside = affine(translation=(0.12, 0, 0)) @ right
    made = dataclasses.replace(made, product=made.product.changed(k, wrong=beside))

    def hiding(found):
        reach, aim = 0 * found.reach, found.aim.copy()
        reach[50 : 50 + hidden] = 1
        aim[50 : 50 + hidden] = right[:2, 3] - [0, 0.2]
        return {"reach": reach, "aim": aim}

    _planned(monkeypatch, "plan_recording", hiding)
    assert made.make("train", "train_000").visible_from == {(50, 3 * k): expected}


def test_renders_tell_of_every_part_that_is_labelled_wrong(monkeypatch):
    made = recipe()
    data = made.make("cad", "wrong_21")
    assert (data.states < 0).any(axis=1).all()
    list(data.jpegs)
    assert (data.states < 0).any(axis=1).all()
    _planned(monkeypatch, "plan_views", _elsewhere)
    data = made.make("cad", "wrong_21")
    list(data.jpegs)
    assert (data.states == 1).all()
