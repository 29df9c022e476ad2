import dataclasses

import numpy as np
import pytest
import trimesh

from data_prep.products.look_alikes import congruent, groups
from data_prep.products.shapes import SHAPES
from data_prep.rendering.mesh import Mesh
from tests.support.boxes import box


def mesh(shape, colour=(0.5, 0.5, 0.5)):
    faces = np.array(shape.faces)
    return Mesh(np.array(shape.vertices), faces, np.tile(colour, (len(faces), 1)))


def moved(shape, seed=0):
    rng = np.random.default_rng(seed)
    turn = trimesh.transformations.random_rotation_matrix(rng.uniform(0, 1, 3))
    turn[:3, 3] = rng.uniform(-9, 9, 3)
    return shape.copy().apply_transform(turn)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_shape_is_itself_however_it_is_moved_and_its_vertices_are_ordered(name):
    shape = SHAPES[name]()
    order = np.random.default_rng(1).permutation(len(shape.vertices))
    shuffled = trimesh.Trimesh(
        shape.vertices[order], np.argsort(order)[shape.faces[::-1]], process=False
    )
    assert congruent(mesh(shape), mesh(moved(shuffled)))
    longer = shape.copy().apply_scale([1.03, 1, 1])
    assert not congruent(mesh(shape), mesh(moved(longer)))


def test_a_mirrored_shape_is_another_one_where_no_turn_makes_it_of_the_first():
    """Arms of three lengths along three axes; a ball, in single precision, is its mirror image."""
    arms = [box((0, 0, 0), size) for size in ((4, 1, 1), (1, 3, 1), (1, 1, 2))]
    for shape, same in ((trimesh.util.concatenate(arms), False), (SHAPES["sphere"](), True)):
        mirrored = shape.copy().apply_scale([-1, 1, 1])
        ours, theirs = (mesh(moved(s, seed)) for seed, s in enumerate((shape, mirrored)))
        ours = dataclasses.replace(ours, vertices=ours.vertices.astype(np.float32))
        assert congruent(ours, theirs) == same


def test_groups_are_of_one_mesh_and_one_colour():
    """What has no colour is of one colour with others that have none."""
    red, near_red, blue = (0.8, 0, 0), (0.77, 0.02, 0), (0, 0, 0.8)
    ring, star = SHAPES["ring"](), SHAPES["star"]()
    meshes = [
        mesh(ring, red),
        mesh(star, red),
        mesh(moved(ring, 1), blue),
        mesh(moved(ring, 2), near_red),
        mesh(moved(star, 3), (np.nan,) * 3),
        mesh(moved(star, 4), (np.nan,) * 3),
    ]
    assert groups(meshes, [True] * 4 + [False] * 2) == [[0, 3], [4, 5]]
