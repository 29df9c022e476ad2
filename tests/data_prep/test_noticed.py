"""Incorrect installations that nobody can see are not labels."""

import dataclasses

import numpy as np
import pytest

from data_prep.products.product import toy_product
from data_prep.rendering.mesh import affine
from data_prep.worlds import copies, motion, noticed, worlds
from data_prep.worlds.timelines import Timeline
from tests.support.recipes import SYNTHETIC, recipe

LOAD, LADDER = (SYNTHETIC.components.index(name) for name in ("load", "ladder"))


def _timeline(k):
    """A part is incorrect for ten seconds in the complete product, and is put right."""
    states = np.ones((3, SYNTHETIC.num_components), np.int8)
    states[1, k] = -1
    return Timeline(0, 150, np.array([0, 50, 100]), states)


def test_a_ball_that_is_turned_a_little_gets_a_pose_that_can_be_seen():
    product, timeline = toy_product(np.random.default_rng(0)), _timeline(LOAD)
    ball = product.parts[LOAD]
    views = motion.plan_views(timeline.num_frames, np.random.default_rng(1), hands=0)
    states, found = timeline.per_frame(), noticed.spells(timeline)
    assert [(s.part, s.rows, s.frames[0], s.frames[-1]) for s in found] == [
        (LOAD, slice(1, 2), 50, 99)
    ]

    def seen(pose):
        there, rng = product.changed(LOAD, wrong=pose), np.random.default_rng(2)
        new = noticed.with_visible_poses(there, found, views, states, worlds.BENCH, rng)
        return new.parts[LOAD].wrong

    poses = [copies.nearly_right_pose(ball, np.random.default_rng(seed)) for seed in range(6)]
    turned = [(pose[:3, 3] == ball.right[:3, 3]).all() for pose in poses]
    assert {*turned} == {True, False}
    for pose, only_turned in zip(poses, turned, strict=True):
        shown = seen(pose)
        assert (shown is not pose) == only_turned
        assert np.linalg.norm(shown[:3, 3] - ball.right[:3, 3]) > 0.02


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
