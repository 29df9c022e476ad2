"""What parts are to each other, and the orders of building that follow from it."""

import itertools

import numpy as np
import pytest
import trimesh

from data_prep.products import building, relations
from data_prep.products.relations import WAYS
from data_prep.products.shapes import SHAPES
from tests.support.boxes import box, product, shell

# A cup with a peg in it, a lid over both, a knob on the lid, and a flag at its side.
NAMES = ("knob", "lid", "cup", "peg", "flag")
CUP = (
    box((1, 1, 4), (3, 3, 5)),
    box((0, 0, 3), (4, 4, 4)),
    shell((0, 0, 0), (4, 4, 3), 1),
    box((1, 1, 1), (3, 3, 3)),
    box((4, 1, 1), (5, 3, 2)),
)


def ways(found, k, j):
    """The ways along which part j is in the way of part k."""
    return {WAYS[way] for way in np.flatnonzero(found.blocks[k, j])}


def cylinder(radius, bottom, top, x=0.0, sections=32):
    mesh = trimesh.creation.cylinder(radius, top - bottom, sections=sections)
    return mesh.apply_translation((x, 0, (bottom + top) / 2))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_what_is_of_two_shapes_is_the_volume_of_the_smaller_one_that_is_within(name):
    """Solids that reach into each other, as those of the ladder do, count as one."""
    mesh = SHAPES[name]()
    (x0, y0, z0), (x1, y1, z1) = mesh.bounds
    found = relations.find(product(mesh, box((x0 - 1, y0 - 1, z0 - 1), (x1 + 1, y1 + 1, z1 + 1))))
    places = np.random.default_rng(0).uniform(*mesh.bounds, (20_000, 3))
    inside = np.zeros(len(places), bool)
    for body in mesh.split(only_watertight=False):
        inside |= body.contains(places)
    expected = inside.mean() * np.ptp(mesh.bounds, axis=0).prod()
    assert found.overlap[0, 1] == pytest.approx(expected, rel=0.04)
    assert found.touches[0, 1]  # though their surfaces do not


def test_boxes_are_in_each_others_way_as_their_corners_say():
    """A box moves along an axis and meets another if they overlap as seen along that axis."""
    rng = np.random.default_rng(1)
    lows = rng.integers(0, 8, (6, 3)) + rng.uniform(0, 0.2, (6, 3))
    highs = lows + rng.integers(1, 4, (6, 3))
    found = relations.find(product(*(box(*bounds) for bounds in zip(lows, highs, strict=True))))
    near = relations.NEAR * np.linalg.norm(highs.max(0) - lows.min(0))
    for i, j in itertools.permutations(range(6), 2):
        common = np.minimum(highs[i], highs[j]) - np.maximum(lows[i], lows[j])
        apart = np.linalg.norm(np.minimum(common, 0))
        assert found.touches[i, j] == (apart <= near)
        expected = set()
        for axis in range(3):
            if (np.delete(common, axis) > 0.1).all() and common[axis] <= 0:
                expected.add(WAYS[2 * axis + (not lows[j, axis] > lows[i, axis])])
        if (common > 0.1).all():
            assert found.overlap[i, j] == pytest.approx(np.prod(common), rel=0.05)
            assert found.depth[i, j] == pytest.approx(common.min(), rel=0.01)
        elif (np.abs(common) > 0.1).all():
            assert found.overlap[i, j] == 0
            assert ways(found, i, j) == expected
    np.testing.assert_allclose(found.volumes, np.prod(highs - lows, axis=1))


def made(meshes=CUP, names=NAMES, steps=()):
    return building.plan(relations.find(product(*meshes)), names, steps)


def pairs(plan, names=NAMES):
    return {(names[rule.before], names[rule.after]): rule.why for rule in plan.rules}


def test_what_is_covered_comes_first_and_what_lies_on_others_comes_later():
    plan = made()
    assert pairs(plan) == {
        ("cup", "peg"): "it lies on cup",
        ("cup", "flag"): "cup holds it",
        ("peg", "lid"): "it lies on peg",
        ("lid", "knob"): "it lies on lid",
    }
    assert NAMES[plan.order[0]] == "cup"
    # Where the lid does not reach down to the peg, it would be in its way.
    low = (*CUP[:3], box((1, 1, 1), (3, 3, 2)), CUP[4])
    assert pairs(made(low))["peg", "lid"] == "lid would be in its way up"


def test_every_order_that_keeps_to_the_rules_can_be_built():
    """With all ways tried out: the rules are enough, whichever order they leave open."""
    found = relations.find(product(*CUP))
    plan = building.plan(found, NAMES)
    possible = 0
    for order in itertools.permutations(range(len(NAMES))):
        if all(order.index(rule.before) < order.index(rule.after) for rule in plan.rules):
            possible += 1
            for n, k in enumerate(order):
                assert building.ways_out(found, k, order[:n])
                assert building.standing(found, order[: n + 1]) == {*order[: n + 1]}
    assert possible == 4  # the flag comes at any time after the cup


def test_what_hangs_comes_after_what_holds_it():
    """A desk lamp: the arm does not lie on the shade, nor the shade on the bulb in it."""
    tube = trimesh.creation.annulus(50, 60, 60, sections=32).apply_translation([180, 0, 280])
    lamp = {
        "arm": box((-10, -10, 320), (200, 10, 335)),
        "base": cylinder(80, 0, 20),
        "bulb": trimesh.creation.icosphere(2, 20).apply_translation([180, 0, 290]),
        "column": cylinder(10, 20, 320),
        "shade": trimesh.util.concatenate([tube, cylinder(60, 310, 320, 180)]),
    }
    names = list(lamp)
    plan = made(lamp.values(), names)
    assert [names[k] for k in plan.order] == ["base", "column", "arm", "shade", "bulb"]
    assert pairs(plan, names) == {
        ("base", "column"): "it lies on base",
        ("column", "arm"): "it lies on column",
        ("arm", "shade"): "arm holds it",
        ("shade", "bulb"): "shade holds it",
    }
