"""What happens in a video, and what is to be seen in each of its frames."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import trimesh

from benchmarks.outside.parts import (
    MATERIALS,
    Component,
    Solid,
    box,
    join,
    lathe,
    painted,
    pose,
    wrong_place,
)

FPS = 5
WRONG, CORRECTED = 0.5, 0.5  # chances that a part is put on wrong first, and of these corrected

# --- What happens ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Spell:
    """Frames first … last (exclusive) in which hands put part k to a state."""

    k: int
    state: int
    first: int
    done: int
    last: int
    place: np.ndarray


def story(parts: list[Component], rng: np.random.Generator) -> tuple[list[Spell], int]:
    """Each part is put on in an order that is possible; frames in all."""
    spells: list[Spell] = []
    order, left = [0], set(range(1, len(parts)))
    while left:
        free = [k for k in sorted(left) if parts[k].below in order]
        order.append(int(rng.choice(free)))
        left.remove(order[-1])
    at = int(rng.integers(5, 15))
    pending: list[int] = []

    def work(k: int, state: int, place: np.ndarray) -> None:
        nonlocal at
        reach, busy, leave = (round(FPS * s) for s in rng.uniform((0.4, 0.8, 0.3), (1.0, 2.6, 0.8)))
        spells.append(Spell(k, state, at, at + reach + busy, at + reach + busy + leave, place))
        at += reach + busy + leave + round(FPS * min(25, rng.lognormal(math.log(5.5), 0.6)))

    for k in order:
        if k and rng.random() < WRONG:
            work(k, -1, wrong_place(parts, k, rng)[0])
            if rng.random() < CORRECTED:
                pending.append(k)
        else:
            work(k, 1, parts[k].place)
        if pending and rng.random() < 0.6:
            again = pending.pop(0)
            if not any(parts[j].below == again for j in order[: order.index(k) + 1]):
                work(again, 1, parts[again].place)
    for again in pending:
        work(again, 1, parts[again].place)
    return spells, at + 4 * FPS


# --- Scenes ---------------------------------------------------------------------------------------


def hand(
    side: int, at: np.ndarray, yaw: float, skin: np.ndarray, sleeve: np.ndarray, rng: Any
) -> Solid:
    """A right (1) or left (−1) hand over a place; its forearm goes towards the worker."""
    pieces = []

    def add(mesh: trimesh.Trimesh, colour: np.ndarray) -> None:
        count = len(mesh.faces)
        matt, colours = np.zeros(count, int), np.tile(colour, (count, 1))
        pieces.append(Solid(np.array(mesh.vertices), np.array(mesh.faces), colours, matt))

    def limb(a: Any, b: Any, radius: float, colour: np.ndarray) -> None:
        a, b = np.array(a, float), np.array(b, float)
        mesh = trimesh.creation.capsule(float(np.linalg.norm(b - a)), radius, count=[8, 8])
        turn = trimesh.geometry.align_vectors([0, 0, 1], (b - a) / np.linalg.norm(b - a))
        turn[:3, 3] = a
        add(mesh.apply_transform(turn), colour)

    palm = trimesh.creation.icosphere(subdivisions=2)
    add(palm.apply_scale((38, 44, 16)), skin)
    for i, x in enumerate((-27, -9, 9, 27)):
        curl = rng.uniform(0.2, 0.8)
        joint = (x * 1.05, 62 + 5 * (i in (1, 2)), -6)
        limb((x, 30, 0), joint, 8.5, skin)
        limb(joint, (x, joint[1] + 26 * (1 - 0.6 * curl), -8 - 26 * curl), 7.5, skin)
    limb((-30 * side, -8, 0), (-56 * side, 34, -14), 9, skin)
    limb((0, -35, 4), (0, -95, 20), 24, skin)
    limb((0, -90, 20), (40 * side, -620, 220), 38, sleeve)
    return join(pieces).at(pose(at, yaw=yaw))


class Place:
    """What stays in one video: bench, light, camera, clutter, where loose parts lie."""

    def __init__(self, parts: list[Component], rng: np.random.Generator, worn: bool):
        self.parts, self.worn, self.rng = parts, worn, rng
        whole = join([p.solid.at(p.place) for p in parts])
        self.radius = float(np.linalg.norm(whole.vertices[:, :2], axis=1).max())
        self.top = float(whole.vertices[:, 2].max())
        self.turn = rng.normal(0, 0.35) if worn else rng.uniform(-np.pi, np.pi)
        self.ground = self._bench()
        self.loose = []
        angles = rng.permutation(len(parts)) * 2 * np.pi / len(parts) + rng.uniform(0, 6)
        for part, angle in zip(parts, angles, strict=True):
            far = self.radius + rng.uniform(50, 120) + 30 * (part.name == "base")
            move = (far * math.cos(angle), far * math.sin(angle), 0)
            self.loose.append(pose(move, yaw=rng.uniform(-3, 3)))
        clutter = []
        for _ in range(int(rng.integers(2, 7))):
            mesh = (
                box(*rng.uniform(15, 90, 3))
                if rng.random() < 0.5
                else lathe(
                    (0.001, 0),
                    (r := rng.uniform(8, 35), 0),
                    (r, h := rng.uniform(15, 90)),
                    (0.001, h),
                )
            )
            angle, far = rng.uniform(0, 2 * np.pi), self.radius + rng.uniform(130, 260)
            mesh.apply_transform(
                pose((far * math.cos(angle), far * math.sin(angle), 0), yaw=rng.uniform(0, 3))
            )
            clutter.append(painted(mesh, str(rng.choice(list(MATERIALS)))))
        self.still = join([self.ground, *clutter])
        self.light = {
            "level": rng.uniform(0.7, 1.25),
            "tint": 1 + rng.uniform(-0.15, 0.15) * np.array([1, 0.1, -1]),
            "sky": rng.uniform(0.2, 0.55),
            "from": np.array([*rng.uniform(-500, 500, 2), rng.uniform(700, 1100)]),
            "radius": rng.uniform(40, 220),
        }
        skins = (
            (0.8, 0.58, 0.46),
            (0.62, 0.42, 0.3),
            (0.36, 0.22, 0.15),
            (0.2, 0.25, 0.4),
            (0.1, 0.1, 0.11),
        )
        self.skin = np.power(skins[rng.integers(len(skins))], 2.2)
        self.sleeve = np.power(rng.uniform(0.1, 0.6) + rng.uniform(-0.1, 0.15, 3), 2.2)
        up = math.radians(rng.uniform(42, 65) if worn else rng.uniform(28, 70))
        around = math.radians(rng.uniform(-25, 25) if worn else rng.uniform(-70, 70))
        self.view = math.radians(rng.uniform(36, 50))
        far = 1.35 * self.radius * rng.uniform(1.0, 1.3) / math.tan(self.view / 2)
        flat = math.cos(up)
        self.eye = far * np.array([math.sin(around) * flat, -math.cos(around) * flat, math.sin(up)])
        self.gain = rng.uniform(0.85, 1.15)
        self.noise = rng.uniform(1.5, 5)

    def camera(self, seconds: float, sway: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place and target (3,) of the camera, which sways (6 phases) where it is worn."""
        eye, target = self.eye.copy(), np.array([0, 0, 0.3 * self.top])
        if self.worn:
            periods = np.array([7.1, 11.3, 5.3, 9.7, 6.1, 13.9])
            wave = self.radius * np.sin(2 * np.pi * seconds / periods + sway)
            eye = eye + 0.16 * wave[:3]
            target = target + wave[3:] * (0.07, 0.07, 0)
        return eye, target

    def _bench(self) -> Solid:
        """The bench, coloured by squares."""
        rng = self.rng
        n, side = 48, 1800.0
        grid = np.linspace(-side / 2, side / 2, n + 1)
        x, y = np.meshgrid(grid, grid)
        vertices = np.c_[x.ravel(), y.ravel(), np.full(x.size, -0.4)]
        i = np.arange(n * n) // n * (n + 1) + np.arange(n * n) % n
        faces = np.concatenate([np.c_[i, i + 1, i + n + 2], np.c_[i, i + n + 2, i + n + 1]])
        grey = rng.uniform(0.15, 0.8, (2, 1))
        a, b = np.power(grey + rng.uniform(-0.12, 0.12, (2, 3)), 2.2)
        kind = rng.choice(["plain", "boards", "squares", "specks"])
        row, column = np.divmod(np.arange(n * n), n)
        mix = {
            "plain": np.zeros(n * n),
            "boards": 0.3 * rng.random(n)[row // 3],
            "squares": ((row // 2 + column // 2) % 2) * 0.8,
            "specks": 0.5 * rng.random(n * n),
        }[str(kind)]
        colours = np.tile(a + mix[:, None] * (b - a), (2, 1))
        return Solid(vertices, faces, np.clip(colours, 0.01, 0.9), np.zeros(len(faces), int))


@dataclasses.dataclass
class Scene:
    """What a frame shows; the camera's place, target and angle of view; the light."""

    solid: Solid
    eye: np.ndarray
    target: np.ndarray
    view: float
    light: dict[str, Any]


def frames(
    place: Place, spells: list[Spell], count: int, rng: np.random.Generator
) -> Iterator[tuple[Scene | None, np.ndarray, list[float]]]:
    """Scenes of a video, the product's boxes (4,) and cameras; None: as in the frame before."""
    turn = pose(yaw=place.turn)
    state: dict[int, np.ndarray] = {}
    sway = rng.normal(0, 1, (4, 6))[0]
    before: Any = None
    for i in range(count):
        state |= {spell.k: spell.place for spell in spells if spell.done == i}
        at_work = next((s for s in spells if s.first <= i < s.last), None)
        solids = [place.still]
        for k, where in enumerate(place.loose):
            if k not in state and not (at_work and at_work.k == k and i < at_work.done):
                solids.append(place.parts[k].solid.at(where))
        product = [place.parts[k].solid.at(turn @ where) for k, where in state.items()]
        box_ = np.full(4, np.nan)
        eye, target = place.camera(i / FPS, sway)
        if product:
            box_ = projected(join(product).vertices, eye, target, place.view)
        if at_work:
            solids += _work(place, at_work, i, turn, at_work.k in state)
        now = (i if at_work or place.worn else None, len(state))
        scene = Scene(join([*solids, *product]), eye, target, place.view, place.light)
        yield None if now == before else scene, box_, [*eye, *target]
        before = now


def _work(place: Place, spell: Spell, i: int, turn: np.ndarray, is_on: bool) -> list[Solid]:
    """The hands in a frame of a spell, and the part that they bring."""
    goal = (turn @ spell.place)[:3, 3]
    away = np.array([120.0, -place.radius - 160, 60])
    if i < spell.done:
        near = min(1.0, (i - spell.first + 1) / max(1, 0.3 * (spell.done - spell.first)))
    else:
        near = 1 - (i - spell.done + 1) / max(1, spell.last - spell.done + 1)
    at = away + near * (goal - away)
    rng = np.random.default_rng([spell.first, 7])
    lift = (0, -25, 34 + 30 * (1 - near))
    solids = [hand(1, at + lift, rng.normal(0.25, 0.08), place.skin, place.sleeve, rng)]
    if spell.k and i < spell.done and not is_on:
        carried = pose(at - goal + (0, 0, 12 * (1 - near))) @ turn @ spell.place
        solids.append(place.parts[spell.k].solid.at(carried))
    if rng.random() < 0.6:
        beside = np.array([-place.radius * 0.9, -0.4 * place.radius, 30]) + rng.normal(0, 3, 3)
        solids.append(hand(-1, beside, -0.3, place.skin, place.sleeve, rng))
    return solids


def axes(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A camera's right, up and back, rows (3, 3)."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back])


def projected(vertices: np.ndarray, eye: np.ndarray, target: np.ndarray, view: float) -> np.ndarray:
    """The box (4,) of vertices (V, 3) in a picture: cx, cy, w, h in 0…1."""
    local = (vertices - eye) @ axes(eye, target).T
    xy = local[:, :2] / -local[:, 2:] / math.tan(view / 2)
    low, high = np.clip(xy.min(0), -1, 1), np.clip(xy.max(0), -1, 1)
    (x, y), (w, h) = (low + high) / 2, (high - low) / 2
    return np.array([(x + 1) / 2, (1 - y) / 2, w, h])
