"""The shapes of the toy products' parts, by name: meshes of any size around any centre."""

import functools
import operator
from collections.abc import Callable, Sequence

import numpy as np
import trimesh


def _prism(outline: np.ndarray) -> trimesh.Trimesh:
    """Prism of height 1 over an outline (P, 2) that its origin sees wholly."""
    count = len(outline)
    rim = np.concatenate([outline, [[0.0, 0.0]]])
    bottom, top = np.c_[rim, np.full(count + 1, -0.5)], np.c_[rim, np.full(count + 1, 0.5)]
    i, j = np.arange(count), np.roll(np.arange(count), -1)
    upper, centre = count + 1, np.full(count, count)
    faces = [
        np.c_[centre, j, i],
        np.c_[centre + upper, i + upper, j + upper],
        np.c_[i, j, j + upper],
        np.c_[i, j + upper, i + upper],
    ]
    return trimesh.Trimesh(np.r_[bottom, top], np.concatenate(faces), process=False)


def _polygon(radii: Sequence[float], turn: float = 0.0) -> trimesh.Trimesh:
    angle = 2 * np.pi * np.arange(len(radii)) / len(radii) + turn
    return _prism(np.c_[np.cos(angle), np.sin(angle)] * np.asarray(radii)[:, None])


def _boxes(*rows: tuple[float, ...]) -> trimesh.Trimesh:
    """Boxes given as (x0, y0, z0, x1, y1, z1)."""
    bounds = np.asarray(rows).reshape(-1, 2, 3)
    return functools.reduce(operator.add, [trimesh.creation.box(bounds=b) for b in bounds])


def _cylinder_along_y(radius: float, y0: float, y1: float) -> trimesh.Trimesh:
    return trimesh.creation.cylinder(radius, segment=[[0, y0, 0], [0, y1, 0]], sections=20)


def _wheels() -> trimesh.Trimesh:
    left, right = _cylinder_along_y(0.5, -0.5, -0.24), _cylinder_along_y(0.5, 0.24, 0.5)
    return left + right + _cylinder_along_y(0.14, -0.25, 0.25)


def _tapered(top: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.box()
    mesh.vertices[mesh.vertices[:, 2] > 0, :2] *= top
    return mesh


def _wedge() -> trimesh.Trimesh:
    mesh = trimesh.creation.box()
    mesh.vertices[(mesh.vertices[:, 2] > 0) & (mesh.vertices[:, 0] > 0), 2] = -0.3
    return mesh


SHAPES: dict[str, Callable[[], trimesh.Trimesh]] = {
    "box": trimesh.creation.box,
    "cylinder": lambda: trimesh.creation.cylinder(0.5, 1.0, sections=20),
    "roller": lambda: _cylinder_along_y(0.5, -0.5, 0.5),
    "barrel": lambda: trimesh.creation.cylinder(
        0.5, segment=[[-0.5, 0, 0], [0.5, 0, 0]], sections=20
    ),
    "sphere": lambda: trimesh.creation.icosphere(subdivisions=2),
    "cone": lambda: trimesh.creation.cone(0.5, 1.0, sections=20),
    "pyramid": lambda: _tapered(0.05),
    "block": lambda: _tapered(0.6),
    "wedge": _wedge,
    "hexagon": lambda: _polygon([1.0] * 6),
    "triangle": lambda: _polygon([1.0] * 3),
    "star": lambda: _polygon([1.0, 0.45] * 5),
    "cross": lambda: _polygon([1.0, 1.0, 0.45] * 4, np.pi / 12),
    "ring": lambda: trimesh.creation.torus(0.36, 0.14, major_sections=20, minor_sections=8),
    "wheels": _wheels,
    "tray": lambda: _boxes(
        (-0.5, -0.5, -0.5, 0.5, 0.5, -0.2),
        (-0.5, -0.5, -0.21, 0.5, -0.34, 0.5),
        (-0.5, 0.34, -0.21, 0.5, 0.5, 0.5),
        (-0.5, -0.35, -0.21, -0.36, 0.35, 0.48),
    ),
    "ladder": lambda: _boxes(
        (-0.5, -0.5, -0.5, 0.5, -0.26, 0.5),
        (-0.5, 0.26, -0.5, 0.5, 0.5, 0.5),
        *((x, -0.3, -0.4, x + 0.18, 0.3, 0.4) for x in (-0.48, -0.09, 0.3)),
    ),
    "arch": lambda: _boxes(
        (-0.5, -0.5, -0.5, -0.2, 0.5, 0.5),
        (0.2, -0.5, -0.5, 0.5, 0.5, 0.5),
        (-0.21, -0.48, 0.1, 0.21, 0.48, 0.48),
    ),
    "angle": lambda: _boxes(
        (-0.5, -0.5, -0.5, -0.05, 0.5, 0.5), (-0.06, -0.5, -0.48, 0.5, -0.05, 0.48)
    ),
}
