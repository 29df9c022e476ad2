import functools

import numpy as np
import pytest
import trimesh
from scipy.spatial import KDTree

from data_prep.products import wrong_poses
from data_prep.products.product import toy_product
from tests.support.boxes import product

TOY = toy_product(np.random.default_rng(0))


def part(mesh, place=(0.8, 0.5, 0.3)):
    return product(mesh.copy().apply_translation(place - mesh.bounds.mean(0))).parts[0]


def fine(mesh, times):
    for _ in range(times):
        mesh = mesh.subdivide()
    return mesh


PARTS = {
    **{f"toy, {k}": p for k, p in enumerate(TOY.parts)},
    # On another face, or turned about its axis, each looks as it did.
    "box": part(trimesh.creation.box()),
    "fine box": part(fine(trimesh.creation.box(), 4)),
    "fine cylinder": part(fine(trimesh.creation.cylinder(0.5, 1.0, sections=64), 2)),
    "sphere": part(trimesh.creation.icosphere(subdivisions=2)),
    "thin rod": part(trimesh.creation.box((1.0, 0.05, 0.05))),
    "ground plate": part(fine(trimesh.creation.box((3.2, 3.2, 0.2)), 4), (0, 0, 0.1)),
    "thin plate": part(trimesh.creation.box((1.0, 1.0, 0.02))),
}


@functools.cache
def surface(name, seed):
    """Points all over the part's surface, wherever it has vertices."""
    mesh = trimesh.Trimesh(PARTS[name].mesh.vertices, PARTS[name].mesh.faces, process=False)
    return np.asarray(trimesh.sample.sample_surface(mesh, 1500, seed=seed)[0])


def apart(name, pose):
    """Mean distance of the surfaces of the part in a pose and where it belongs, in its size."""
    right = PARTS[name].right
    a = surface(name, 0) @ right[:3, :3].T + right[:3, 3]
    b = surface(name, 1) @ pose[:3, :3].T + pose[:3, 3]
    size = np.linalg.norm(np.ptp(PARTS[name].mesh.vertices, axis=0)) / np.sqrt(3)
    return max(KDTree(a).query(b)[0].mean(), KDTree(b).query(a)[0].mean()) / size


@pytest.mark.parametrize("name", PARTS)
def test_wrong_pose_the_surface_is_visibly_elsewhere(name):
    """An independent measure: not of vertices, as those of a coarse mesh are far apart."""
    assert apart(name, PARTS[name].right) < 0.035  # what points that were drawn anew can tell
    rng = np.random.default_rng(1)
    distances = [apart(name, wrong_poses.wrong_pose(PARTS[name], rng)) for _ in range(9)]
    assert min(distances) > 0.04
    assert np.median(distances) > 0.1
