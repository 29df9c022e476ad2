"""The workplace around a product: light, table, hands, and where loose parts lie."""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from data_prep.rendering.motion import Motion, hand
from data_prep.rendering.product import Mesh, Product, affine, join, solid
from data_prep.rendering.scene import (
    Body,
    Camera,
    Light,
    Picture,
    Placed,
    Table,
    look_at,
    render,
)

HALF_VIEW = 0.37  # tangent; the product then fills about 55 % of the picture's height
CLEARANCE = 2.4  # nothing lies nearer to the product's usual place

_SKINS = ((0.95, 0.78, 0.66), (0.86, 0.64, 0.5), (0.65, 0.45, 0.33), (0.42, 0.28, 0.2))
_GLOVES = ((0.25, 0.4, 0.6), (0.2, 0.2, 0.22), (0.85, 0.85, 0.82), (0.55, 0.55, 0.5))
_TABLES = (
    (0.52, 0.42, 0.33), (0.42, 0.43, 0.45), (0.36, 0.44, 0.4), (0.3, 0.26, 0.24),
    (0.36, 0.4, 0.5), (0.58, 0.54, 0.48),
)  # fmt: skip

_CLUTTER = np.array(["box", "cylinder", "barrel", "hexagon"])


def _display(colour: ArrayLike) -> np.ndarray:
    return np.asarray(colour, np.float64) ** 2


def _draw_light(rng: np.random.Generator) -> Light:
    direction = np.array([*rng.normal(0, 0.45, 2), 1.0])
    warmth = rng.uniform(-0.13, 0.13)
    tint = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.72, 1.12)
    ambient = rng.uniform(0.35, 0.6)
    return Light(direction / np.linalg.norm(direction), ambient * tint, (1.08 - ambient) * tint)


class Workplace:
    """What stays the same in a recording: light, table, hands, where loose parts lie."""

    def __init__(
        self, product: Product, product_body: Callable[..., Body], rng: np.random.Generator
    ):
        self._product = product
        self._product_body = product_body
        self._light = _draw_light(rng)
        base = np.asarray(_TABLES[rng.integers(len(_TABLES))]) + rng.uniform(-0.06, 0.06, 3)
        grain = base * (1 + rng.choice([-1, 1]) * rng.uniform(0.04, 0.16))
        waves = rng.uniform(((-1, 2, 0), (-1, -0.5, 0)), ((1, 7, 6), (1, 0.5, 6)))
        self._table = Table(_display([base, grain]).astype(np.float32), waves)
        palette = _SKINS if rng.random() < 0.7 else _GLOVES
        skin = _display(np.asarray(palette[rng.integers(4)]) + rng.uniform(-0.05, 0.05, 3))
        sleeve = _display(rng.uniform(0.1, 0.8) + rng.uniform(-0.1, 0.1, 3))
        handle = _display(rng.uniform(0.1, 0.9, 3))
        materials = np.stack([skin, sleeve, handle, np.full(3, 0.35)])
        self._hand = functools.cache(lambda side, tool: hand(side, tool, materials))
        self._has_tool = rng.random() < 0.6
        count = len(product.parts)
        angles = 2 * np.pi * (rng.permutation(count) + rng.uniform(-0.2, 0.2, count)) / count
        extents = [part.extent[:2] for part in product.parts]
        radii = CLEARANCE + np.linalg.norm(extents, axis=1) / 2 + rng.uniform(0, 0.4, count)
        self._loose_yaws = rng.uniform(-np.pi, np.pi, count)
        self._loose_places = np.stack(
            [radii * np.cos(angles), 0.3 + radii * np.sin(angles)], axis=1
        )
        self._clutter = _draw_clutter(rng)
        self._part_body = functools.cache(lambda k: Body(product.parts[k].mesh))
        self._around_body = functools.lru_cache(1)(self._build_around)

    def _build_around(self, loose: tuple[int, ...]) -> Body:
        around = [self._clutter]
        for k in loose:
            part = self._product.parts[k]
            place = (*self._loose_places[k], part.height / 2)
            around.append(part.mesh.moved(affine((0, 0, self._loose_yaws[k]), place)))
        return Body(join(around))

    def picture(self, motion: Motion, frame: int, state: np.ndarray, size: int) -> Picture:
        """The picture of one frame; state (K,)."""
        values = tuple(state.tolist())
        carried = int(motion.carried[frame])
        loose = tuple(k for k in self._product.loose(values) if k != carried)
        others = [Placed(self._around_body(loose), np.eye(4))]
        for side in (0, 1):
            if motion.reach[frame, side] <= 0.02:
                continue
            pose = motion.hand_pose(frame, side)
            carrying = side == 0 and carried >= 0
            tool = self._has_tool and side == 0 and not carrying
            others.append(Placed(self._hand(side, tool), pose))
            if carrying and not values[carried]:
                inside = affine(translation=(0.0, 0.55, self._below_palm(carried, motion.lift)))
                others.append(Placed(self._part_body(carried), pose @ inside))
        product = Placed(self._product_body(values), motion.product_pose(frame))
        return render(product, others, _camera(motion, frame), self._light, self._table, size)

    def _below_palm(self, k: int, lift: float) -> float:
        """Where the middle of a carried part is, its bottom being above the table."""
        return max(-0.35, self._product.parts[k].height / 2 - lift - 0.8)


def _draw_clutter(rng: np.random.Generator) -> Mesh:
    """A few dull things that belong to no product, far from its place."""
    things = []
    for _ in range(3):
        shape = rng.choice(_CLUTTER)
        thing = solid(shape, rng.uniform(0.3, 0.7, 3), _display(rng.uniform(0.2, 0.7, 3)))
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(4.0, 4.8)
        place = (radius * np.cos(angle), 0.3 + radius * np.sin(angle), 0.3)
        things.append(thing.moved(affine((0, 0, rng.uniform(-3, 3)), place)))
    return join(things)


def clean_pictures(
    bodies: Iterable[Body], motion: Motion, size: int, rng: np.random.Generator
) -> Iterator[Picture]:
    """Renders as from CAD: plain background, nothing else in view; a body for each view."""
    for i, body in zip(range(len(motion.roll)), bodies, strict=False):
        background = _display(np.full(3, rng.uniform(0.55, 1.0))).astype(np.float32)
        product = Placed(body, motion.product_pose(i))
        yield render(product, [], _camera(motion, i), _draw_light(rng), background, size)


def _camera(motion: Motion, frame: int) -> Camera:
    return look_at(motion.camera[frame], motion.target[frame], float(motion.roll[frame]), HALF_VIEW)


def poses_in_pictures(product: Product, motion: Motion) -> np.ndarray:
    """(N, 6) float32, how the product lies in each picture; see `annotation.LabelledFrames`."""
    vertices = product.mesh(np.ones(len(product.parts))).vertices
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    half[:2] += half[2]  # seen at an angle, its height takes up place as well
    points = middle + np.array([[0, 0, 0], [half[0], 0, 0], [0, half[1], 0]])
    poses = np.empty((len(motion.roll), 6), np.float32)
    for i, row in enumerate(poses):
        pose = motion.product_pose(i)
        seen = _camera(motion, i).project(points @ pose[:3, :3].T + pose[:3, 3])
        seen = (seen * (1, -1) + 1) / 2
        row[:] = np.concatenate([seen[0], seen[1] - seen[0], seen[2] - seen[0]])
    return poses
