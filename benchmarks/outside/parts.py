"""Machine parts on a plate, drawn by a number: meshes by trimesh, and how they get wrong.

Lengths are in millimetres; x right, y away from the worker, z up.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

MATT, PLASTIC, METAL = range(3)
# Of a material: kind and display colours.
MATERIALS = {
    "steel": (METAL, (0.62, 0.63, 0.65)),
    "aluminium": (METAL, (0.8, 0.81, 0.82)),
    "brass": (METAL, (0.78, 0.62, 0.3)),
    "dark steel": (METAL, (0.33, 0.33, 0.36)),
    "black": (PLASTIC, (0.09, 0.09, 0.1)),
    "grey": (PLASTIC, (0.5, 0.51, 0.52)),
    "white": (PLASTIC, (0.88, 0.87, 0.84)),
    "blue": (PLASTIC, (0.13, 0.27, 0.55)),
    "red": (PLASTIC, (0.68, 0.13, 0.12)),
    "orange": (PLASTIC, (0.85, 0.42, 0.1)),
    "green": (PLASTIC, (0.12, 0.42, 0.25)),
    "yellow": (PLASTIC, (0.85, 0.72, 0.16)),
}


@dataclasses.dataclass(frozen=True)
class Solid:
    """A coloured mesh: vertices (V, 3) mm, faces (F, 3), linear colours (F, 3), kinds (F,)."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    kinds: np.ndarray

    def at(self, pose: np.ndarray) -> "Solid":
        """The mesh at a pose (4, 4)."""
        vertices = self.vertices @ pose[:3, :3].T + pose[:3, 3]
        faces = self.faces if np.linalg.det(pose[:3, :3]) > 0 else self.faces[:, ::-1]
        return dataclasses.replace(self, vertices=vertices, faces=faces)

    def write(self, path: Path) -> None:
        """Writes the mesh, with the colours of its faces as displayed."""
        shown = np.clip(self.colours ** (1 / 2.2) * 255, 0, 255).astype(np.uint8)
        mesh = trimesh.Trimesh(self.vertices, self.faces, face_colors=shown, process=False)
        mesh.export(path)


def join(solids: list[Solid]) -> Solid:
    """One mesh of several."""
    starts = np.cumsum([0, *(len(s.vertices) for s in solids)])
    return Solid(
        np.concatenate([s.vertices for s in solids]),
        np.concatenate([s.faces + n for s, n in zip(solids, starts, strict=False)]),
        np.concatenate([s.colours for s in solids]),
        np.concatenate([s.kinds for s in solids]),
    )


def painted(mesh: trimesh.Trimesh, material: str) -> Solid:
    """A mesh of one of MATERIALS."""
    kind, colour = MATERIALS[material]
    count = len(mesh.faces)
    colours = np.tile(np.power(colour, 2.2), (count, 1))
    return Solid(np.array(mesh.vertices), np.array(mesh.faces), colours, np.full(count, kind))


def pose(move: Any = (0, 0, 0), yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    matrix = trimesh.transformations.euler_matrix(roll, pitch, yaw)
    matrix[:3, 3] = move
    return matrix


# --- Shapes of parts; the bottom's middle is the origin -------------------------------------------


def lathe(*profile: tuple[float, float], sections: int = 28) -> trimesh.Trimesh:
    """Revolves (radius, z) about z."""
    return trimesh.creation.revolve(np.array(profile, float), sections=sections)


def box(x: float, y: float, z: float, at: tuple[float, float, float] = (0, 0, 0)) -> Any:
    mesh = trimesh.creation.box((x, y, z))
    mesh.apply_translation((at[0], at[1], at[2] + z / 2))
    return mesh


def prism(outline: np.ndarray, height: float, z: float = 0) -> trimesh.Trimesh:
    """Over an outline (P, 2) that its middle sees."""
    n = len(outline)
    low, high = np.c_[outline, np.full(n, z)], np.c_[outline, np.full(n, z + height)]
    ends = [[0, 0, z], [0, 0, z + height]]
    i = np.arange(n)
    j = np.roll(i, -1)
    faces = [np.c_[np.full(n, 2 * n), j, i], np.c_[np.full(n, 2 * n + 1), i + n, j + n]]
    faces += [np.c_[i, j, j + n], np.c_[i, j + n, i + n]]
    return trimesh.Trimesh(np.r_[low, high, ends], np.concatenate(faces), process=False)


def toothed(radius: float, teeth: int, depth: float) -> np.ndarray:
    angle = np.arange(4 * teeth) * 2 * np.pi / (4 * teeth)
    r = radius * np.tile([1, 1, 1 - depth, 1 - depth], teeth)
    return np.c_[r * np.cos(angle), r * np.sin(angle)]


def gear(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    r, metal = min(a, b) / 2, m()
    wheel = prism(toothed(r, int(rng.integers(12, 22)), 0.16), 9)
    hub = lathe(
        (0.001, 9), (0.42 * r, 9), (0.42 * r, 18), (0.2 * r, 18), (0.2 * r, 12), (0.001, 12)
    )
    return [painted(wheel, metal), painted(hub, m())]


def motor(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    r = min(a, b) / 2.3
    can = lathe(
        (0.001, 3), (r, 3), (r, 30), (0.9 * r, 33), (0.3 * r, 33), (0.3 * r, 36), (0.001, 36)
    )
    shaft = lathe((0.001, 36), (3, 36), (3, 48), (0.001, 48))
    plug = box(0.9 * r, 8, 13, (0, r + 1, 8))
    return [
        painted(can, m()),
        painted(shaft, "steel"),
        painted(plug, m()),
        painted(box(a, b * 0.7, 3), m()),
    ]


def bracket(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    t, h, metal = 4, rng.uniform(22, 36), m()
    gusset = prism(np.array([[-a / 3, 0], [a / 3, 0], [0, h * 0.7]]) - (0, h * 0.2), t)
    gusset.apply_transform(pose((0, -b / 2 + t + 3, h * 0.2), roll=np.pi / 2))
    hole = lathe((0.001, 0), (5, 0), (5, 3), (0.001, 3))
    bolts = [hole.copy().apply_translation((x, b * 0.2, t)) for x in (-a / 4, a / 4)]
    plates = [box(a, b, t), box(a, t, h, (0, -b / 2 + t / 2, 0)), gusset]
    return [*(painted(p, metal) for p in plates), *(painted(p, "dark steel") for p in bolts)]


def board(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    out = [painted(box(a, b, 3), "green")]
    for _ in range(5):
        x, y = rng.uniform(-0.32, 0.32, 2) * (a, b)
        w, d, h = rng.uniform((5, 5, 3), (0.3 * a, 0.3 * b, 9))
        out.append(
            painted(box(w, d, h, (x, y, 3)), str(rng.choice(["black", "grey", "aluminium"])))
        )
    return [*out, painted(box(0.25 * a, 7, 12, (0.3 * a, b / 2 - 4, 3)), "white")]


def cover(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    h, colour, other = rng.uniform(14, 24), m(), m()
    out = [painted(box(a, b, h), colour)]
    for i in range(4):
        out.append(
            painted(box(0.08 * a, 0.75 * b, 3, ((i - 1.5) * 0.14 * a - 0.1 * a, 0, h)), colour)
        )
    return [*out, painted(box(0.18 * a, 0.3 * b, 4, (0.36 * a, 0.25 * b, h)), other)]


def knob(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    r = min(a, b) / 2.2
    foot = lathe((0.001, 0), (r, 0), (r, 4), (0.5 * r, 8), (0.5 * r, 14), (0.001, 14))
    grip = prism(toothed(0.85 * r, 8, 0.2), 12, 14)
    return [
        painted(foot, m()),
        painted(grip, m()),
        painted(box(0.7 * r, 3, 2, (0.4 * r, 0, 26)), "white"),
    ]


def valve(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    r, metal = min(a, b) / 3, m()
    body = lathe(
        (0.001, 0), (r, 0), (r, 5), (0.6 * r, 9), (0.6 * r, 22), (r, 26), (r, 31), (0.001, 31)
    )
    pipe = trimesh.creation.cylinder(0.45 * r, 0.5 * a, sections=20)
    pipe.apply_transform(pose((0.25 * a, 0, 16), pitch=np.pi / 2))
    lever = box(0.9 * a, 6, 4, (-0.12 * a, 0, 31))
    return [painted(body, metal), painted(pipe, metal), painted(lever, m())]


def fan(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    side, colour, other = min(a, b), m(), m()
    wall = [box(side, 3, 14, (0, s * (side / 2 - 1.5), 0)) for s in (-1, 1)]
    wall += [box(3, side, 14, (s * (side / 2 - 1.5), 0, 0)) for s in (-1, 1)]
    blades = []
    for i in range(6):
        blade = box(0.4 * side, 0.16 * side, 2, (0.22 * side, 0, -1))
        blade.apply_transform(pose(roll=0.6))
        blades.append(blade.apply_transform(pose((0, 0, 7), yaw=i * np.pi / 3)))
    hub = lathe((0.001, 1), (0.14 * side, 1), (0.14 * side, 13), (0.001, 13))
    return [*(painted(w, colour) for w in wall), *(painted(p, other) for p in [*blades, hub])]


def clamp(a: float, b: float, m: Callable[[], str], rng: np.random.Generator) -> list[Solid]:
    colour = m()
    jaw = [box(a, 0.3 * b, 16, (0, s * 0.33 * b, 0)) for s in (-1, 1)]
    screw = trimesh.creation.cylinder(4, 1.1 * b, sections=16)
    screw.apply_transform(pose((0.25 * a, 0, 10), roll=np.pi / 2))
    nut = prism(toothed(8, 6, 0.12), 6)
    nut.apply_transform(pose((0.25 * a, 0.62 * b, 10), roll=np.pi / 2))
    return [*(painted(p, colour) for p in jaw), painted(screw, "steel"), painted(nut, m())]


SHAPES = (gear, motor, bracket, board, cover, knob, valve, fan, clamp)


@dataclasses.dataclass(frozen=True)
class Component:
    """A part in its place (4, 4), and the number of the one that it stands on; −1 of the base."""

    name: str
    solid: Solid
    place: np.ndarray
    below: int


def product(number: int) -> list[Component]:
    """A base plate and six or seven parts on it, one of which stands on another."""
    rng = np.random.default_rng([number, *b"outside"])
    palette = list(rng.permutation(list(MATERIALS)))
    turn = iter(range(10**6))

    def material() -> str:
        return str(palette[next(turn) % len(palette)])

    columns, rows = 3, 2
    cell = np.array([52.0, 46.0])
    base_material = material()
    plate = [painted(box(columns * cell[0] + 14, rows * cell[1] + 14, 8), base_material)]
    for x in (-1, 1):
        for y in (-1, 1):
            foot = lathe((0.001, 8), (5, 8), (5, 11), (0.001, 11), sections=12)
            corner = (x * (columns * cell[0] / 2 + 1), y * (rows * cell[1] / 2 + 1), 0)
            plate.append(painted(foot.apply_translation(corner), "steel"))
    rail = box(columns * cell[0], 4, 5, (0, rows * cell[1] / 2 + 4, 8))
    plate.append(painted(rail, material()))
    parts = [Component("base", join(plate), np.eye(4), -1)]
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[: int(rng.integers(6, 8))]]
    for i, shape in enumerate(shapes):
        size = cell * rng.uniform(0.72, 0.92, 2)
        solid = join(shape(*size, material, rng))
        if i < columns * rows:
            middle = (np.array(divmod(i, rows)) - ((columns - 1) / 2, (rows - 1) / 2)) * cell
            place, below = pose((*middle, 8), yaw=rng.choice([0, 0, np.pi / 2, np.pi])), 0
        else:  # on the flattest of the others
            below = 1 + int(np.argmin([p.solid.vertices[:, 2].max() for p in parts[1:]]))
            top = parts[below].solid.vertices[:, 2].max()
            solid = dataclasses.replace(solid, vertices=solid.vertices * 0.6)
            place = pose((*parts[below].place[:2, 3], 8 + top))
        parts.append(Component(shape.__name__, solid, place, below))
    return parts


# --- What goes wrong ------------------------------------------------------------------------------

KINDS = ("upside down", "turned", "swapped", "beside", "not seated")


def wrong_place(parts: list[Component], k: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A pose of part k that is incorrect and differs, and its kind."""
    part = parts[k]
    v = part.solid.vertices
    size, height = np.ptp(v, axis=0), float(v[:, 2].max())
    while True:
        kind = str(rng.choice(KINDS))
        move = np.eye(4)
        if kind == "upside down":
            move = pose((0, 0, height), roll=np.pi, yaw=rng.choice([0, np.pi]))
        elif kind == "turned":
            move = pose(yaw=rng.choice([np.pi / 2, np.pi, -np.pi / 2, rng.uniform(0.6, 2.5)]))
        elif kind == "beside":
            angle = rng.uniform(0, 2 * np.pi)
            far = rng.uniform(0.35, 0.6) * max(size[:2])
            move = pose((far * math.cos(angle), far * math.sin(angle), rng.uniform(0, 5)))
        elif kind == "not seated":
            tilt = rng.uniform(0.2, 0.45) * rng.choice([-1, 1])
            move = pose((0, 0, abs(math.sin(tilt)) * size[1] / 2), roll=tilt)
        elif kind == "swapped":
            others = [j for j in range(1, len(parts)) if j != k and parts[j].below == part.below]
            if not others:
                continue
            place = parts[int(rng.choice(others))].place
            return place.copy(), kind
        points = v[np.linspace(0, len(v) - 1, 300).astype(int)]
        moved = points @ move[:3, :3].T + move[:3, 3]
        distance = np.linalg.norm(moved[:, None] - v[None, :: max(1, len(v) // 600)], axis=2).min(1)
        if distance.mean() > 0.06 * np.linalg.norm(size):
            return part.place @ move, kind
