"""Which parts of a product look the same: one mesh moved, and one colour."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.rendering.mesh import Mesh

_NEAR = 2e-3  # of a mesh's size: so close vertices of two of them have to be
_ONE = 0.01  # of that: vertices of one mesh that are in one place
_COLOUR = 0.08  # of display values: mean colours so close are one
_FEW, _MANY = 8, 400  # vertices that are compared, to begin with and in the end
_TRIES = 20_000


def groups(meshes: Sequence[Mesh], coloured: Sequence[bool]) -> list[list[int]]:
    """Numbers of the meshes that look the same, in groups of two or more.

    Args:
        coloured: whether each has colours, which are display ones; those without are of one.
    """
    found: list[list[int]] = []
    for k, mesh in enumerate(meshes):
        for group in found:
            first = group[0]
            same = coloured[k] == coloured[first] and (
                not coloured[k] or _same_colour(mesh, meshes[first])
            )
            if same and congruent(mesh, meshes[first]):
                group.append(k)
                break
        else:
            found.append([k])
    return [group for group in found if len(group) > 1]


def _same_colour(a: Mesh, b: Mesh) -> bool:
    means = [np.average(m.colours, axis=0, weights=_areas(m)) for m in (a, b)]
    return bool(np.abs(means[0] - means[1]).max() < _COLOUR)


def _areas(mesh: Mesh) -> np.ndarray:
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.linalg.norm(normals, axis=1) / 2


def congruent(a: Mesh, b: Mesh) -> bool:
    """Whether one mesh is the other one, turned and moved, but not mirrored.

    Two vertices of one, far apart as seen from its middle, are taken to all pairs of the other with
    the same distances; with one of these turns all other vertices have to meet.
    """
    from scipy.spatial import KDTree  # here, as --help does without it

    areas = _areas(a), _areas(b)
    size = float(np.linalg.norm(np.ptp(a.vertices, axis=0)))
    near = _NEAR * size
    if abs(np.sqrt(areas[0].sum()) - np.sqrt(areas[1].sum())) > near:
        return False
    ours, theirs = (
        _around_middle(mesh, area, near) for mesh, area in zip((a, b), areas, strict=True)
    )
    lengths, others = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    if len(ours) != len(theirs) or np.abs(np.sort(lengths) - np.sort(others)).max() > near:
        return False
    one = int(lengths.argmax())
    two = int(np.linalg.norm(np.cross(ours[one], ours), axis=1).argmax())
    apart = np.linalg.norm(ours[one] - ours[two])
    frame = _frame(ours[one], ours[two])
    firsts = np.flatnonzero(np.abs(others - lengths[one]) < near)
    seconds = np.flatnonzero(np.abs(others - lengths[two]) < near)
    tree = KDTree(theirs)
    tries = 0
    for i in firsts:
        distances = np.linalg.norm(theirs[seconds] - theirs[i], axis=1)
        for j in seconds[np.abs(distances - apart) < near]:
            tries += 1
            if tries > _TRIES:
                return False
            turned = ours @ (_frame(theirs[i], theirs[j]) @ frame.T).T
            if _meet(turned, tree, near, _FEW) and _meet(turned, tree, near, _MANY):
                return True
    return False


def _around_middle(mesh: Mesh, areas: np.ndarray, near: float) -> np.ndarray:
    """Its vertices, each place once, seen from the middle of its surface."""
    middle = np.average(mesh.vertices[mesh.faces].mean(axis=1), axis=0, weights=areas)
    places = (mesh.vertices / (_ONE * near)).round()
    _, first = np.unique(places, axis=0, return_index=True)
    return mesh.vertices[np.sort(first)] - middle


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(3, 3) whose columns are three axes, of which two points say which way they are."""
    x = first / max(float(np.linalg.norm(first)), 1e-12)
    z = np.cross(x, second)
    z /= max(float(np.linalg.norm(z)), 1e-12)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _meet(points: np.ndarray, others: Any, near: float, count: int) -> bool:
    """Whether some points are where those of a tree are."""
    some = points[np.linspace(0, len(points) - 1, min(count, len(points))).astype(int)]
    return bool((others.query(some)[0] < 2 * near).all())
