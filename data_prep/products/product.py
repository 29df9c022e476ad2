"""The toy products: meshes, colours and places of their components, and random products.

A product stands on a board (no component, always there) and is made of K components. Lengths are
in units of about 5 cm; product coordinates: x right, y away from the worker, z up, the board's
centre at the origin.
"""

import colorsys
import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import trimesh

from data_prep.rendering.mesh import Mesh, Vector, affine, join


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


BOARD_THICKNESS = 0.1


@functools.cache
def _unit_shape(name: str) -> tuple[np.ndarray, np.ndarray]:

    mesh = SHAPES[name]()
    low, high = mesh.bounds
    vertices = (np.asarray(mesh.vertices) - (low + high) / 2) / (high - low)
    return vertices, np.asarray(mesh.faces)


def solid(shape: str, size: Vector, colour: Vector) -> Mesh:
    """A named shape that fills a box of `size` (x, y, z) around the origin, in one colour."""
    vertices, faces = _unit_shape(shape)
    colours = np.tile(np.asarray(colour, np.float64), (len(faces), 1))
    return Mesh(vertices * np.asarray(size), faces, colours, closed=True)


@dataclasses.dataclass(frozen=True)
class Part:
    """One component: its mesh around its own centre, and its two places on the product.

    Attributes:
        mesh: around the origin, the bottom at z = -height / 2.
        height: z extent.
        right: (4, 4), where it belongs.
        wrong: (4, 4), how it sits when it is installed incorrectly, or how what stands in for it
            does.
        stand_in: the part that is in its place then; None: it itself.
        known_wrong: poses (4, 4) in one of which it sits then, if its user knows them.
    """

    mesh: Mesh
    height: float
    right: np.ndarray
    wrong: np.ndarray
    stand_in: int | None = None
    known_wrong: tuple[np.ndarray, ...] = ()

    @functools.cached_property
    def extent(self) -> np.ndarray:
        """(3,) of its mesh."""
        return np.ptp(self.mesh.vertices, axis=0)


@dataclasses.dataclass(frozen=True)
class Product:
    """A board and K parts.

    Attributes:
        board: is always there.
        kit: whether parts cover others, are incorrect in another way in each recording, and are
            mixed up, as in anybody's product; the toys are simpler.
        scale: units of the scene in a unit of the files that the parts come from.
        origin: (3,) where the origin of the files is in the scene.
        coloured: K, whether the files, or who gave them, say which colour a part has.
        notes: what is odd about the files, a line each.
    """

    board: Mesh
    parts: tuple[Part, ...]
    kit: bool = False
    scale: float = 1.0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    coloured: tuple[bool, ...] = ()
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def height(self) -> float:
        """Of the complete product, from the table on."""
        return float(max(part.right[2, 3] + part.height / 2 for part in self.parts))

    @property
    def stand_ins(self) -> dict[int, int]:
        """By part, the one that is in its place where it is installed incorrectly."""
        parts = enumerate(self.parts)
        return {k: part.stand_in for k, part in parts if part.stand_in is not None}

    def changed(self, k: int, **changes: Any) -> "Product":
        """The product with other fields of part k."""
        parts = list(self.parts)
        parts[k] = dataclasses.replace(parts[k], **changes)
        return dataclasses.replace(self, parts=tuple(parts))

    def mesh(self, state: Sequence[int] | np.ndarray) -> Mesh:
        """The product in a state: (K,) of 1 installed, 0 absent, -1 installed incorrectly."""
        pieces = [self.board]
        for k, (part, value) in enumerate(zip(self.parts, state, strict=True)):
            if value:
                pose = part.right if value > 0 else part.wrong
                pieces.append(self.parts[self._shown(k, value)].mesh.moved(pose))
        return join(pieces)

    def loose(self, state: Sequence[int] | np.ndarray) -> list[int]:
        """The parts that are not on the product in a state (K,)."""
        there = {self._shown(k, value) for k, value in enumerate(state) if value}
        return [k for k in range(len(self.parts)) if k not in there]

    def _shown(self, k: int, value: int) -> int:
        stand_in = self.parts[k].stand_in
        return k if value > 0 or stand_in is None else stand_in


# shape, colour (hue, saturation, value), place x y, bottom z, size x y z.
# Colours and shapes are as unlike as eleven can be; nothing lies under or behind another part.
_VEHICLE = (
    ("box", (0.62, 0.75, 0.38), (0.02, 0.0, 0.1), (2.6, 0.84, 0.18)),  # chassis
    ("wheels", (0.0, 0.0, 0.07), (0.86, 0.0, 0.1), (0.68, 1.9, 0.66)),  # front wheels
    ("wheels", (0.07, 0.95, 0.95), (-0.92, 0.0, 0.1), (0.74, 2.0, 0.72)),  # rear wheels
    ("box", (0.99, 0.9, 0.8), (0.66, 0.0, 0.27), (0.62, 0.66, 0.4)),  # engine
    ("wedge", (0.145, 0.95, 0.98), (1.42, 0.0, 0.1), (0.44, 1.3, 0.5)),  # plough
    ("block", (0.54, 0.75, 0.95), (-0.08, 0.0, 0.27), (0.8, 0.96, 0.52)),  # cabin
    ("cone", (0.88, 0.75, 0.95), (-0.08, 0.0, 0.78), (0.52, 0.52, 0.4)),  # beacon
    ("tray", (0.37, 0.9, 0.5), (-0.98, 0.0, 0.29), (0.9, 0.84, 0.34)),  # cargo bed
    ("sphere", (0.0, 0.0, 1.0), (-0.96, 0.0, 0.38), (0.6, 0.6, 0.6)),  # load
    ("ladder", (0.76, 0.65, 0.62), (-0.02, 0.82, 0.1), (0.92, 0.62, 0.24)),  # ladder
    ("barrel", (0.23, 0.85, 0.85), (-0.02, -0.82, 0.1), (0.9, 0.52, 0.5)),  # fuel tank
)


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    # Rendering is linear, pictures are its square root; the tables hold display colours.
    return np.asarray(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)) ** 2


def _part(
    shape: str, rgb: np.ndarray, place: Vector, size: Vector, yaw: float, rng: np.random.Generator
) -> Part:
    """A part whose wrong pose is turned, tilted and shifted, to a side that `rng` draws."""
    x, y, bottom = place
    width, depth, height = size
    centre = np.array([x, y, bottom + height / 2])
    direction = rng.choice([-1.0, 1.0], 2)
    shift = [0.42 * min(width, 0.8) * direction[0], 0.42 * min(depth, 0.8) * direction[1], 0.2]
    tilt = (0.55 * direction[1], -0.45 * direction[0], yaw + 0.75 * direction[0] * direction[1])
    return Part(
        solid(shape, size, rgb),
        height,
        affine((0, 0, yaw), centre),
        affine(tilt, centre + shift),
    )


def _board(size: Vector, rgb: np.ndarray) -> Mesh:
    board = solid("box", (*size, BOARD_THICKNESS), rgb)
    return board.moved(affine(translation=(0, 0, BOARD_THICKNESS / 2)))


def toy_product(rng: np.random.Generator) -> Product:
    """The fixed vehicle of 11 components; `rng` shifts colours a little, geometry never changes."""
    sides = np.random.default_rng(0)  # the same wrong poses for every seed
    parts = []
    for shape, hsv, place, size in _VEHICLE:
        shift = rng.uniform(-1, 1, 3) * (0.012, 0.05, 0.04)
        hue, saturation, value = np.asarray(hsv) + shift * (1, hsv[1] > 0, 1)
        rgb = _rgb(hue, np.clip(saturation, 0, 1), np.clip(value, 0.03, 1))
        parts.append(_part(shape, rgb, place, size, 0.0, sides))
    return Product(_board((3.5, 2.5), _rgb(0.1, 0.14, 0.72)), tuple(parts))


def random_product(seed: int, num_components: int) -> Product:
    """A product of random shapes, colours, sizes and places on a grid of the board, by its seed."""

    rng = np.random.default_rng([seed, num_components])
    stacked = rng.integers(0, num_components // 4 + 1)
    rows = int(rng.integers(3, 5))
    columns = -(-(num_components - stacked) // rows)
    cell = np.array([rng.uniform(3.2, 4.0) / columns, rng.uniform(2.2, 2.8) / rows])
    cells = rng.permutation(rows * columns)[: num_components - stacked]
    shapes = rng.permutation(np.tile(sorted(SHAPES), 1 + num_components // len(SHAPES)))
    hues = rng.permutation(num_components) / num_components + rng.uniform()
    parts: list[Part] = []
    for i in range(num_components):
        hsv = (hues[i] + rng.normal(0, 0.015), rng.uniform(0.5, 1), rng.uniform(0.35, 1))
        if rng.random() < 0.15:
            hsv = (0, 0, rng.choice([0.05, 0.3, 0.65, 1.0]))
        size = np.append(cell * rng.uniform(0.7, 0.98, 2), rng.uniform(0.2, 0.6))
        if i < len(cells):
            middle = (np.array([columns, rows]) - 1) / 2
            place = (np.array(divmod(cells[i], rows)) - middle) * cell
            place = np.append(place + rng.uniform(-0.06, 0.06, 2) * cell, BOARD_THICKNESS)
        else:  # on top of a part on the board, small enough to leave it visible
            below = parts[i - len(cells)]
            size *= 0.6
            place = below.right[:3, 3] + [0, 0, 0.4 * below.height]
        yaw = rng.choice([0.0, 0.0, rng.uniform(-0.4, 0.4)])
        parts.append(_part(shapes[i], _rgb(*hsv), place, size, yaw, rng))
    extent = cell * (columns, rows) + rng.uniform(0.1, 0.4, 2)
    return Product(_board(extent, _rgb(*rng.uniform((0, 0, 0.2), (1, 0.35, 0.95)))), tuple(parts))
