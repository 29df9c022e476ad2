"""Incorrect installations that somebody can see: what no picture tells is no label.

An incorrect part is rendered as it is and as it should be, from the cameras of the moments in
which it does. If nothing but hands hides it, its pose is not one that can be seen, and is drawn
anew. Where hands, other parts or a camera that looks elsewhere hide it until it is put right, it is
right: in the labels and in the pictures.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from data_prep.products.product import Part, Product
from data_prep.products.wrong_poses import wrong_pose
from data_prep.rendering.mesh import Mesh, affine, linear
from data_prep.rendering.scene import Picture
from data_prep.worlds.motion import Motion
from data_prep.worlds.timelines import Timeline
from data_prep.worlds.workplace import Workplace, bodies_of, differ, plain_sketch
from data_prep.worlds.worlds import TOY, Paint, World
from stormpsr_jax.recordings.labels import Step

# Of a part that sits nearly right: a turn about the vertical in radians, or a shift, as a share of
# its size. From most sides it looks as it should.
_TURN, _SHIFT, _TILT = (0.1, 0.25), (0.05, 0.12), 0.05

_GREYS = np.array([[1, -1, 0], [1, 1, -2], [1, 1, 1]]) / np.sqrt([[2], [6], [3]])  # the last axis


def copy_of(product: Product, world: World, rng: np.random.Generator) -> Product:
    """A copy of a product in a world; in `toy`, which has one copy, the product itself."""
    if world.nearly_right:
        nearly = rng.random(len(product.parts)) < world.nearly_right
        for k, part in enumerate(product.parts):
            if nearly[k] and not part.known_wrong:
                product = product.changed(k, wrong=nearly_right_pose(part, rng), stand_in=None)
    if world.paint != TOY.paint:
        for k, part in enumerate(product.parts):
            product = product.changed(k, mesh=_painted(part.mesh, world.paint, rng))
        board = _painted(product.board, world.paint, rng)
        product = dataclasses.replace(product, board=board)
    return product


def nearly_right_pose(part: Part, rng: np.random.Generator) -> np.ndarray:
    """Draws a (4, 4) pose of an incorrect part, though hardly anybody would see it."""
    angles, shift = rng.uniform(-_TILT, _TILT, 3), np.zeros(3)
    if rng.random() < 0.5:
        angles[2] = rng.uniform(*_TURN) * rng.choice((-1, 1))
    else:
        around = rng.uniform(0, 2 * np.pi)
        shift[:2] = rng.uniform(*_SHIFT) * part.extent[:2] * (np.cos(around), np.sin(around))
    return affine(angles, part.right[:3, 3] + shift) @ linear(part.right[:3, :3])


def _painted(mesh: Mesh, paint: Paint, rng: np.random.Generator) -> Mesh:
    colours = np.sqrt(mesh.colours)
    turn = affine((0, 0, 2 * np.pi * paint.hue.draw(rng)))[:3, :3]
    colours = colours @ (_GREYS.T @ turn @ _GREYS).T
    grey = colours.mean(axis=1, keepdims=True)
    colours = grey + (1 + paint.saturation.draw(rng)) * (colours - grey)
    colours = colours * (1 + paint.value.draw(rng))
    return dataclasses.replace(mesh, colours=np.clip(colours, 0.02, 1) ** 2)


_LOOKS = 12  # at a pose, spread over the time in which a part is incorrect
_TRIES = 12  # of poses; in a world with parts that are nearly right, half of them are such


@dataclasses.dataclass(frozen=True)
class Spell:
    """A time in which a part is incorrect, or right.

    Attributes:
        rows: of the timeline's states.
        frames: of the recording that have pictures.
    """

    part: int
    rows: slice
    frames: np.ndarray


def spells(timeline: Timeline, step: int = 1, value: int = -1) -> list[Spell]:
    """The spells in which parts are incorrect (or as `value` says), by part and time.

    Of the recording's frames every `step`-th is rendered.
    """
    result = []
    starts = np.append(timeline.frames - timeline.first_frame, timeline.num_frames)
    for k, there in enumerate((timeline.states == value).T):
        edges = np.flatnonzero(np.diff(there, prepend=False, append=False)).reshape(-1, 2)
        for first, end in edges.tolist():
            frames = np.arange(-(-starts[first] // step) * step, starts[end], step)
            result.append(Spell(k, slice(first, end), frames))
    return result


def told(
    sketch: Callable[[np.ndarray], Picture], state: np.ndarray, parts: Iterable[int], world: World
) -> set[int]:
    """Those of the parts in a state (K,) of which a picture tells whether they are incorrect.

    `sketch` draws the product in a state amid what may hide it.
    """
    here = sketch(state)
    others = {k: np.where(np.arange(len(state)) == k, -state, state) for k in parts}
    return {k for k, other in others.items() if differ(here, sketch(other), world.noise.high)}


def with_visible_poses(
    product: Product,
    spells: Sequence[Spell],
    motion: Motion,
    states: np.ndarray,
    world: World,
    rng: np.random.Generator,
) -> Product:
    """The copy with another wrong pose, which `rng` draws, of the parts whose pose nobody can see.

    `spells` are the spells of a recording, `states` (N, K) those of its frames in pictures.
    """

    def visible(k: int, product: Product) -> bool:
        frames = np.concatenate([spell.frames for spell in spells if spell.part == k])
        looks = frames[np.linspace(0, len(frames) - 1, min(_LOOKS, len(frames))).astype(int)]
        sketches = ((partial(plain_sketch, product, motion, i), states[i]) for i in looks.tolist())
        return any(told(*sketch, [k], world) for sketch in sketches)

    for k in sorted({spell.part for spell in spells}):
        part, tried = product.parts[k], product
        others = [other for other in product.parts if other is not part]
        for number in range(_TRIES + 1):
            if visible(k, tried):
                product = tried
                break
            if part.known_wrong:
                break
            nearly = world.nearly_right and number < _TRIES // 2
            pose = nearly_right_pose(part, rng) if nearly else wrong_pose(part, rng, others)
            tried = product.changed(k, wrong=pose, stand_in=None)
    return product


def without_unseen(
    timeline: Timeline,
    spells: Sequence[Spell],
    place: Workplace,
    motion: Motion,
    states: np.ndarray,
    world: World,
) -> Timeline:
    """The timeline in which a part that no picture shows to be incorrect is right meanwhile.

    The others are as of `with_visible_poses`.
    """
    all_states = timeline.states.copy()
    for spell in spells:
        k = spell.part
        # First those in which the hands are out of the way.
        order = spell.frames[np.argsort(motion.reach[spell.frames].sum(axis=1), kind="stable")]
        looks = ((partial(place.sketch, motion, i, states[i]), states[i]) for i in order.tolist())
        if not any(told(sketch, state, [k], world) for sketch, state in looks):
            all_states[spell.rows, k] = 1
    return dataclasses.replace(timeline, states=all_states)


def visible_from(
    timeline: Timeline, place: Workplace, motion: Motion, states: np.ndarray, world: World
) -> dict[Step, int | None]:
    """By installation, the first frame in which a picture tells whether it is right.

    A right part is compared with how the copy has it where it is incorrect. The arguments are as of
    `without_unseen`, of a recording of which every frame is rendered.

    Returns:
        {(frame, step id): first frame}; None where no picture tells until the part changes again.
    """
    first_frames = {}
    for kind, value in enumerate((1, -1)):
        for spell in spells(timeline, value=value):
            if not spell.rows.start:
                continue  # nobody installs it
            looks = (
                timeline.first_frame + i
                for i in spell.frames.tolist()
                if told(partial(place.sketch, motion, i, states[i]), states[i], [spell.part], world)
            )
            step = int(timeline.frames[spell.rows.start]), 3 * spell.part + kind
            first_frames[step] = next(looks, None)
    return first_frames


def picture(
    product: Product,
    motion: Motion,
    i: int,
    states: np.ndarray,
    size: int,
    looks: np.random.Generator,
    world: World,
) -> Picture:
    """A copy at a workplace of its own, drawn by `looks`, in row i of the states (N, K).

    Parts of which the picture does not tell that they are incorrect become right in that row.
    """
    place = Workplace(product, bodies_of(product), looks, world)
    wrong = np.flatnonzero(states[i] < 0).tolist()
    seen = told(partial(place.sketch, motion, i, states[i]), states[i], wrong, world)
    states[i, [k for k in wrong if k not in seen]] = 1
    return place.picture(motion, i, states[i], size)
