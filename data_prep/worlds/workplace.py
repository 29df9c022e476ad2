"""The workplace around a product: light, table, hands, and where loose parts lie."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from data_prep.products.product import Product, solid
from data_prep.rendering.grounds import texture
from data_prep.rendering.mesh import Mesh, affine, join
from data_prep.rendering.ranges import one
from data_prep.rendering.scene import (
    Body,
    Camera,
    Ground,
    Light,
    Picture,
    Placed,
    Tabletop,
    look_at,
    render,
)
from data_prep.worlds.motion import LOOK_AT, Motion
from data_prep.worlds.worlds import TOY, Benches, Clutter, Hands, Lights, World

SKIN, SLEEVE, HANDLE, BLADE = range(4)
# The pieces of a tool in a right hand: from, to, radius and material of each.
TOOLS = {
    "screwdriver": (
        ((-0.55, 0.55, -0.15), (-0.75, 0.0, 0.75), 0.17, HANDLE),
        ((-0.55, 0.55, -0.15), (-0.42, 0.95, -0.9), 0.06, BLADE),
    ),
    "wrench": (
        ((-0.75, -0.2, -0.1), (-0.25, 1.5, -0.45), 0.09, BLADE),
        ((-0.25, 1.5, -0.45), (-0.42, 1.78, -0.5), 0.1, BLADE),
        ((-0.25, 1.5, -0.45), (0.02, 1.72, -0.5), 0.1, BLADE),
    ),
    "hammer": (
        ((-0.7, -0.3, 0.1), (-0.3, 1.3, 0.0), 0.1, HANDLE),
        ((-0.62, 1.42, 0.0), (0.05, 1.26, 0.0), 0.17, BLADE),
    ),
    "pliers": (
        ((-0.75, -0.1, 0.0), (-0.42, 0.9, -0.4), 0.09, HANDLE),
        ((-0.4, -0.15, 0.0), (-0.44, 0.9, -0.4), 0.09, HANDLE),
        ((-0.43, 0.9, -0.4), (-0.4, 1.45, -0.55), 0.1, BLADE),
    ),
}


def _capsule(start: Sequence[float], end: Sequence[float], radius: float, material: int) -> Mesh:
    import trimesh  # here, as flags and --help do without it

    along = np.subtract(end, start)
    length = np.linalg.norm(along)
    mesh = trimesh.creation.capsule(length, radius, count=(10, 10))
    turn = trimesh.geometry.align_vectors([0, 0, 1], along / length)
    turn[:3, 3] = start
    colours = np.full((len(mesh.faces), 3), float(material))
    return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), colours, True).moved(turn)


@functools.cache
def _plain_hand(side: int, tool: str) -> tuple[Body, np.ndarray]:
    pieces = [solid("sphere", (1.0, 1.15, 0.42), [SKIN] * 3)]
    for x, length in ((-0.36, 0.75), (-0.12, 0.9), (0.12, 0.85), (0.36, 0.65)):
        knuckle, tip = (x, 0.45, 0.0), (x * 1.15, 0.45 + 0.55 * length, -0.05)
        end = (x * 1.05, 0.45 + 0.75 * length, -0.42)
        pieces += [_capsule(knuckle, tip, 0.125, SKIN), _capsule(tip, end, 0.11, SKIN)]
    pieces.append(_capsule((-0.38, -0.1, 0), (-0.8, 0.4, -0.2), 0.14, SKIN))
    pieces.append(_capsule((0, -0.4, 0.05), (0, -1.3, 0.3), 0.27, SKIN))
    pieces += [_capsule(*piece) for piece in TOOLS.get(tool, ())]
    # The camera may be within the sleeve.
    sleeve = _capsule((0, -1.2, 0.28), (0, -9.0, 3.4), 0.42, SLEEVE)
    meshes = [join(pieces), dataclasses.replace(sleeve, closed=False)]
    if side:
        meshes = [mesh.moved(np.diag([-1.0, 1, 1, 1])) for mesh in meshes]
    return Body(*meshes), np.concatenate([mesh.colours[:, 0] for mesh in meshes]).astype(int)


def hand(side: int, tool: str, materials: np.ndarray, size: float = 1.0) -> Body:
    """A right (0) or left (1) hand with its forearm; fingers point to +y, palm at the origin.

    Args:
        tool: of TOOLS, which it holds; "" is none.
        materials: (4, 3) linear RGB of skin or glove, sleeve, the tool's handle and blade.
        size: of a hand; usual ones have 1.
    """
    body, material = _plain_hand(side, tool)
    return body.painted(materials.astype(np.float32).take(material, axis=0), size)


HALF_VIEW = 0.37  # tangent; the product then fills about 55 % of the picture's height
CLEARANCE = 2.4  # nothing lies nearer to the product's usual place
_LONGEST_SMEAR = 0.08  # of a picture's side
_KEPT = 12  # states whose bodies are
# A sketch has so many pixels, whatever size is asked for, as two sizes of a recording have the same
# labels. Mean colours of blocks of so many are compared: the facets of what is round blur in them.
_LOOKED_AT, _BLOCK = 64, 4

_CLUTTER = np.array(["box", "cylinder", "barrel", "hexagon"])


def _display(colour: ArrayLike) -> np.ndarray:
    return np.asarray(colour, np.float64) ** 2


def _draw_light(rng: np.random.Generator, lights: Lights, exposure: float) -> Light:
    direction = np.array([*rng.normal(0, lights.lean, 2), 1.0])
    warmth = rng.uniform(*lights.warmth)
    tint = np.array([1 + warmth, 1.0, 1 - warmth]) * (rng.uniform(*lights.level) * exposure)
    ambient = rng.uniform(*lights.ambient)
    direction, gloss = direction / np.linalg.norm(direction), lights.gloss.draw(rng)
    return Light(direction, ambient * tint, (1.08 - ambient) * tint, gloss)


class Workplace:
    """What stays the same in a recording: light, bench, hands, where loose parts lie, the lens."""

    def __init__(
        self,
        product: Product,
        product_body: Callable[..., Body],
        rng: np.random.Generator,
        world: World = TOY,
    ):
        self._product = product
        self._product_body = product_body
        self._light = _draw_light(rng, world.lights, world.exposure.draw(rng))
        self._ground = _draw_ground(rng, world.benches)
        self._hand, self._has_tool = _draw_hands(rng, world.hands)
        one_handed = world.hands.one > 0 and rng.random() < world.hands.one
        self._sides = (0,) if one_handed else (0, 1)
        count = len(product.parts)
        angles = 2 * np.pi * (rng.permutation(count) + rng.uniform(-0.2, 0.2, count)) / count
        extents = [part.extent[:2] for part in product.parts]
        radii = CLEARANCE + np.linalg.norm(extents, axis=1) / 2 + rng.uniform(0, 0.4, count)
        self._loose_yaws = rng.uniform(-np.pi, np.pi, count)
        self._loose_places = np.stack(
            [radii * np.cos(angles), 0.3 + radii * np.sin(angles)], axis=1
        )
        self._clutter = _draw_clutter(rng, world.clutter, product)
        self._lens = world.lens.draw(rng)
        self._shutter = world.shutter.draw(rng)
        self._drift = world.lights.drift.draw(rng)
        if self._drift:
            self._period, self._phase = rng.uniform((150, 0), (1500, 2 * np.pi))
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
        picture = self._picture(motion, frame, state, state, size)
        if motion.away is None:
            return picture
        if motion.away[frame]:
            picture = dataclasses.replace(picture, box=np.full(4, np.nan, np.float32))
        return self._smeared(picture, motion, frame)

    def sketch(self, motion: Motion, frame: int, state: np.ndarray, shown: np.ndarray) -> Picture:
        """A small picture of a frame, with the product in a state `shown` in place of its own."""
        return self._picture(motion, frame, state, shown, _LOOKED_AT)

    def _picture(
        self, motion: Motion, frame: int, state: np.ndarray, visible_state: np.ndarray, size: int
    ) -> Picture:
        values = tuple(state.tolist())
        carried = int(motion.carried[frame])
        loose = tuple(k for k in self._product.loose(values) if k != carried)
        others = [Placed(self._around_body(loose), np.eye(4))]
        for side in self._sides:
            if motion.reach[frame, side] <= 0.02:
                continue
            pose = motion.hand_pose(frame, side)
            carrying = side == 0 and carried >= 0
            tool = self._has_tool and side == 0 and not carrying
            others.append(Placed(self._hand(side, tool), pose))
            if carrying and not values[carried]:
                inside = affine(translation=(0.0, 0.55, self._below_palm(carried, motion.lift)))
                others.append(Placed(self._part_body(carried), pose @ inside))
        body = self._product_body(tuple(visible_state.tolist()))
        product = Placed(body, motion.product_pose(frame))
        camera, light = _camera(motion, frame), self._light_at(frame)
        return render(product, others, camera, light, self._ground, size, lens=self._lens)

    def _light_at(self, frame: int) -> Light:
        if not self._drift:
            return self._light
        level = 1 + self._drift * np.sin(2 * np.pi * frame / self._period + self._phase)
        light = self._light
        return dataclasses.replace(
            light, ambient=level * light.ambient, diffuse=level * light.diffuse
        )

    def _smeared(self, picture: Picture, motion: Motion, frame: int) -> Picture:
        if not self._shutter or not frame:
            return picture
        from data_prep.rendering.sensor import smeared  # here, as --help does without it

        now, before = (_camera(motion, i).project(LOOK_AT[None])[0] for i in (frame, frame - 1))
        size = len(picture.image)
        move = self._shutter * (now - before) * (size / 2, -size / 2)
        most = _LONGEST_SMEAR * size
        move *= min(1.0, most / max(float(np.abs(move).max()), 1e-9))
        return dataclasses.replace(picture, image=smeared(picture.image, move))

    def _below_palm(self, k: int, lift: float) -> float:
        return max(-0.35, self._product.parts[k].height / 2 - lift - 0.8)


def _draw_ground(rng: np.random.Generator, benches: Benches) -> Ground:
    base = np.asarray(benches.colours[rng.integers(len(benches.colours))])
    base = base + rng.uniform(-0.06, 0.06, 3)
    grain = base * (1 + rng.choice([-1, 1]) * rng.uniform(*benches.contrast))
    waves = rng.uniform(((-1, 2, 0), (-1, -0.5, 0)), ((1, 7, 6), (1, 0.5, 6)))
    colours = _display([base, grain]).astype(np.float32)
    if not benches.textures:
        return Tabletop(colours, waves)
    return texture(one(benches.textures, rng), colours, benches.fine.draw(rng), rng)


def _draw_hands(rng: np.random.Generator, hands: Hands) -> tuple[Callable[[int, bool], Body], bool]:
    """Hands by side and whether they hold the tool, and whether they ever do."""
    palette = hands.skins if rng.random() < 1 - hands.gloved else hands.gloves
    skin = np.asarray(palette[rng.integers(len(palette))]) + rng.uniform(-0.05, 0.05, 3)
    sleeve = rng.uniform(0.1, 0.8) + rng.uniform(-0.1, 0.1, 3)
    handle = rng.uniform(0.1, 0.9, 3)
    materials = np.stack([*_display([skin, sleeve, handle]), np.full(3, 0.35)])
    has_tool = rng.random() < 0.6
    tool, size = one(hands.tools, rng), hands.size.draw(rng)
    made = functools.cache(lambda side, held: hand(side, tool if held else "", materials, size))
    return made, has_tool


def _draw_clutter(rng: np.random.Generator, clutter: Clutter, product: Product) -> Mesh:
    things = []
    for _ in range(clutter.dull):
        shape = rng.choice(_CLUTTER)
        thing = solid(shape, rng.uniform(0.3, 0.7, 3), _display(rng.uniform(0.2, 0.7, 3)))
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(4.0, 4.8)
        place = (radius * np.cos(angle), 0.3 + radius * np.sin(angle), 0.3)
        things.append(thing.moved(affine((0, 0, rng.uniform(-3, 3)), place)))
    for _ in range(round(clutter.alike.draw(rng))):
        part = product.parts[rng.integers(len(product.parts))]
        mesh = part.mesh
        kind = rng.random()
        if kind < 0.35:  # its colour, on another thing
            size = part.extent * rng.uniform(0.5, 1.2)
            mesh = solid(rng.choice(_CLUTTER), size, mesh.colours.mean(axis=0))
        elif kind < 0.7:  # its shape, of another colour
            colours = np.roll(mesh.colours, rng.integers(1, 3), axis=1)
            mesh = dataclasses.replace(mesh, colours=colours * rng.uniform(0.6, 1.2))
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(*clutter.near)
        place = (radius * np.cos(angle), 0.3 + radius * np.sin(angle), part.height / 2)
        things.append(mesh.moved(affine((0, 0, rng.uniform(-3, 3)), place)))
    return join(things)


def differ(picture: Picture, other: Picture, noise: float) -> bool:
    """Whether two sketches differ by more than a pixel's noise.

    In the mean colours of two blocks; that is four standard deviations of theirs.
    """
    side = _LOOKED_AT // _BLOCK
    blocks = (picture.image - other.image).reshape(side, _BLOCK, side, _BLOCK, 3).mean(axis=(1, 3))
    return int((np.abs(blocks).max(axis=-1) > noise).sum()) >= 2


def clean_picture(
    body: Body, motion: Motion, frame: int, size: int, rng: np.random.Generator
) -> Picture:
    """Renders as from CAD: plain background, nothing else in view."""
    background = _display(np.full(3, rng.uniform(0.55, 1.0))).astype(np.float32)
    product = Placed(body, motion.product_pose(frame))
    light = _draw_light(rng, TOY.lights, 1.0)
    return render(product, [], _camera(motion, frame), light, background, size)


def bodies_of(product: Product) -> Callable[[tuple[int, ...]], Body]:
    """The product's body by state; those seen last are kept."""
    return functools.lru_cache(_KEPT)(lambda state: Body(product.mesh(state)))


def plain_sketch(product: Product, motion: Motion, frame: int, state: np.ndarray) -> Picture:
    """A small picture as of `clean_picture`, of a product in a state, always in the same light."""
    placed = Placed(Body(product.mesh(state)), motion.product_pose(frame))
    light = Light(np.array([0.0, 0.0, 1.0]), np.full(3, 0.5), np.full(3, 0.5))
    grey = _display(np.full(3, 0.5)).astype(np.float32)
    return render(placed, [], _camera(motion, frame), light, grey, _LOOKED_AT)


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
