"""What parts are to each other, held against formulas for boxes and volumes of trimesh."""

import numpy as np
import pytest
import trimesh

from data_prep.products import columns, relations
from data_prep.products.relations import WAYS
from data_prep.products.shapes import SHAPES
from tests.support.boxes import box, product, shell


def ways(found, k, j):
    """The ways along which part j is in the way of part k."""
    return {WAYS[way] for way in np.flatnonzero(found.blocks[k, j])}


def grid_of(mesh, axes, count=200):
    low, high = mesh.bounds[:, axes[:2]]
    step = (high - low) / count
    faces = np.array(mesh.faces, np.int64)
    vertices = np.array(mesh.vertices, np.float64)
    starts, lower, upper = columns.intervals(
        vertices, faces, axes, low + np.array([0.4876, 0.5123]) * step, step, count
    )
    return starts, lower, upper, step


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("axes", [(1, 2, 0), (2, 0, 1), (0, 1, 2)])
def test_what_lines_are_inside_is_the_volume_of_the_shape(name, axes):
    """Solids that reach into each other, as those of the ladder do, count as one."""
    mesh = SHAPES[name]()
    starts, lower, upper, step = grid_of(mesh, np.array(axes), 100)
    assert (lower <= upper).all()
    assert (np.diff(starts) >= 0).all()
    measured = (upper - lower).sum() * step.prod()
    if name in ("ladder", "tray", "arch", "angle", "wheels"):
        points = trimesh.Trimesh(mesh.vertices, mesh.faces).bounds
        rng = np.random.default_rng(0)
        inside = np.zeros(20_000, bool)
        places = rng.uniform(*points, (20_000, 3))
        for body in mesh.split(only_watertight=False):
            inside |= body.contains(places)
        expected = inside.mean() * np.ptp(points, axis=0).prod()
    else:
        expected = mesh.volume
    assert measured == pytest.approx(expected, rel=0.03)


def test_a_missing_face_costs_no_more_than_what_is_behind_it():
    mesh = box((0, 0, 0), (2, 2, 1))
    stud = box((0.5, 0.5, 1), (1.5, 1.5, 2))
    stud.update_faces(stud.face_normals[:, 2] > -0.5)  # open below, as studs of LDraw are
    _, lower, upper, step = grid_of(trimesh.util.concatenate([mesh, stud]), np.array([0, 1, 2]))
    assert (upper - lower).sum() * step.prod() == pytest.approx(5, rel=0.01)


def test_boxes_are_in_each_others_way_as_their_corners_say():
    """A box moves along an axis and meets another if they overlap as seen along that axis."""
    rng = np.random.default_rng(1)
    lows = rng.integers(0, 8, (8, 3)) + rng.uniform(0, 0.2, (8, 3))
    highs = lows + rng.integers(1, 4, (8, 3))
    found = relations.find(product(*(box(*bounds) for bounds in zip(lows, highs, strict=True))))
    for i in range(8):
        for j in set(range(8)) - {i}:
            common = np.minimum(highs[i], highs[j]) - np.maximum(lows[i], lows[j])
            expected = set()
            for axis in range(3):
                if (np.delete(common, axis) > 0.1).all() and common[axis] <= 0:
                    further = lows[j, axis] > lows[i, axis]
                    expected.add(WAYS[2 * axis + (not further)])
            if (common > 0).all():
                volume = np.prod(common)
                assert found.overlap[i, j] == pytest.approx(volume, rel=0.05)
                assert found.depth[i, j] == pytest.approx(common.min(), rel=0.01)
            else:
                assert found.overlap[i, j] == 0
                if (np.abs(common) > 0.1).all():
                    assert ways(found, i, j) == expected
    np.testing.assert_allclose(found.volumes, np.prod(highs - lows, axis=1))


def test_a_peg_in_a_cup_goes_up_until_a_lid_lies_on_it():
    cup = shell((0, 0, 0), (4, 4, 3), 1)
    peg, lid = box((1, 1, 1), (3, 3, 3)), box((0, 0, 3), (4, 4, 4))
    found = relations.find(product(cup, peg, lid))
    assert ways(found, 1, 0) == set(WAYS) - {"up"}
    assert ways(found, 1, 2) == {"up"}
    assert ways(found, 2, 0) == {"down"}
    assert found.rests[1, 0] == pytest.approx(4, rel=0.05)
    assert found.rests[0, 1] == 0
    assert found.rests[2, 1] == pytest.approx(4, rel=0.05)
    assert found.rests[2, 0] == pytest.approx(12, rel=0.05)
    assert found.touches[1, 0] == pytest.approx(4 + 4 * 4, rel=0.05)
    assert found.grounded.tolist() == [True, False, False]
    assert not found.overlap.any()


def test_a_shaft_that_fits_its_hole_is_not_blocked_by_it():
    """The circles have different corners, so that rims of them overlap; the head is in the way."""
    plate = box((-3, -3, 0), (3, 3, 2))
    ring = trimesh.creation.annulus(1.0, 3.0, 2.0, sections=24)
    ring.apply_translation([0, 0, 1])
    shaft = trimesh.creation.cylinder(1.0, 2.0, sections=17)
    shaft.apply_translation([0, 0, 1])
    head = trimesh.creation.cylinder(2.0, 1.0, sections=20)
    head.apply_translation([0, 0, 2.5])
    found = relations.find(product(ring, trimesh.util.concatenate([shaft, head])))
    assert "up" not in ways(found, 1, 0)
    assert "down" in ways(found, 1, 0)
    assert {"to the right", "to the front"} <= ways(found, 1, 0)
    through = relations.find(product(plate, shaft))
    assert through.overlap[0, 1] == pytest.approx(shaft.volume, rel=0.05)


def test_a_hook_under_a_rim_is_blocked():
    """The rim is a twentieth of the lid's width."""
    lid = trimesh.util.concatenate([box((0, 0, 2), (10, 10, 3)), box((0, 0, 0), (1, 10, 2))])
    hook = box((0, 4, 1), (0.6, 6, 1.5))
    catch = trimesh.util.concatenate([lid, hook.apply_translation([1, 0, 0])])
    wall = box((1, 0, 1.5), (3, 10, 2))
    found = relations.find(product(catch, wall))
    assert "up" in ways(found, 0, 1)
    assert "up" not in ways(relations.find(product(lid, wall)), 0, 1)
