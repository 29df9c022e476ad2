"""Which parts of a product look the same: one mesh moved, and one colour."""

from collections.abc import Sequence

import numpy as np

from data_prep.rendering.mesh import Mesh

_NEAR = 2e-3  # of a mesh's size: so near are distances of one mesh that was exported twice
_HAND = 1e-4  # by which `_hand` of a mirrored mesh differs; of one exported twice, by a hundredth
_COLOUR = 0.08  # of display values: mean colours so close are one


def groups(meshes: Sequence[Mesh], coloured: Sequence[bool]) -> list[list[int]]:
    """Numbers of the meshes that look the same, in groups of two or more.

    `coloured`: whether each has colours, which are display ones; those without are of one.
    """
    found: list[list[int]] = []
    for k, mesh in enumerate(meshes):
        for group in found:
            first = group[0]
            same = coloured[k] == coloured[first] and congruent(mesh, meshes[first])
            if same and (not coloured[k] or _same_colour(mesh, meshes[first])):
                group.append(k)
                break
        else:
            found.append([k])
    return [group for group in found if len(group) > 1]


def congruent(a: Mesh, b: Mesh) -> bool:
    """Whether one mesh is the other one, turned and moved, but not mirrored.

    Their triangles have the same areas, and corners as far from the middle of the surface.
    """
    if len(a.faces) != len(b.faces):
        return False
    near = _NEAR * float(np.linalg.norm(np.ptp(a.vertices, axis=0)))
    measured = _measured(a), _measured(b)
    areas = [np.sqrt(np.sort(each)) for each, _ in measured]
    radii = [np.sort(np.linalg.norm(corners, axis=2), axis=None) for _, corners in measured]
    hands = [_hand(areas, corners / radii[0][-1]) for areas, corners in measured]
    return bool(
        np.abs(areas[0] - areas[1]).max() < near
        and np.abs(radii[0] - radii[1]).max() < near
        and abs(hands[0] - hands[1]) < _HAND
    )


def _measured(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Areas (F,) of triangles, and their corners (F, 3, 3) seen from the surface's middle."""
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1) / 2
    return areas, corners - np.average(corners.mean(axis=1), axis=0, weights=areas)


def _hand(areas: np.ndarray, corners: np.ndarray) -> float:
    """In −1…1, the volume of three vectors that turn with a mesh; a mirrored one's is negative."""
    points, weights = corners.reshape(-1, 3), np.repeat(areas / areas.sum(), 3)[:, None]
    spread = points.T @ (weights * points)
    skew = np.sum(weights * points * np.square(points).sum(axis=1, keepdims=True), axis=0)
    vectors = np.array([skew, spread @ skew, spread @ spread @ skew])
    # Of a symmetric mesh they are rounding errors.
    return float(np.linalg.det(vectors) / (np.linalg.norm(vectors, axis=1).prod() + 1e-12))


def _same_colour(a: Mesh, b: Mesh) -> bool:
    means = [np.average(m.colours, axis=0, weights=_measured(m)[0]) for m in (a, b)]
    return bool(np.abs(means[0] - means[1]).max() < _COLOUR)
