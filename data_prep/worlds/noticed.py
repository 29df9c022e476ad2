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

from data_prep.products.product import Product
from data_prep.products.wrong_poses import wrong_pose
from data_prep.rendering.scene import Picture
from data_prep.worlds.copies import nearly_right_pose
from data_prep.worlds.motion import Motion
from data_prep.worlds.timelines import Timeline
from data_prep.worlds.workplace import Workplace, bodies_of, differ, plain_sketch
from data_prep.worlds.worlds import World
from stormpsr_jax.recordings.labels import Step

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
    found = []
    starts = np.append(timeline.frames - timeline.first_frame, timeline.num_frames)
    for k, there in enumerate((timeline.states == value).T):
        edges = np.flatnonzero(np.diff(there, prepend=False, append=False)).reshape(-1, 2)
        for first, end in edges.tolist():
            frames = np.arange(-(-starts[first] // step) * step, starts[end], step)
            found.append(Spell(k, slice(first, end), frames))
    return found


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
    found: Sequence[Spell],
    motion: Motion,
    states: np.ndarray,
    world: World,
    rng: np.random.Generator,
) -> Product:
    """The copy with another wrong pose, which `rng` draws, of the parts whose pose nobody can see.

    `found` are the spells of a recording, `states` (N, K) those of its frames in pictures.
    """

    def visible(k: int, product: Product) -> bool:
        frames = np.concatenate([spell.frames for spell in found if spell.part == k])
        looks = frames[np.linspace(0, len(frames) - 1, min(_LOOKS, len(frames))).astype(int)]
        sketches = ((partial(plain_sketch, product, motion, i), states[i]) for i in looks.tolist())
        return any(told(*sketch, [k], world) for sketch in sketches)

    for k in sorted({spell.part for spell in found}):
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
    found: Sequence[Spell],
    place: Workplace,
    motion: Motion,
    states: np.ndarray,
    world: World,
) -> Timeline:
    """The timeline in which a part that no picture shows to be incorrect is right meanwhile.

    The others are as of `with_visible_poses`.
    """
    known = timeline.states.copy()
    for spell in found:
        k = spell.part
        # First those in which the hands are out of the way.
        order = spell.frames[np.argsort(motion.reach[spell.frames].sum(axis=1), kind="stable")]
        looks = ((partial(place.sketch, motion, i, states[i]), states[i]) for i in order.tolist())
        if not any(told(sketch, state, [k], world) for sketch, state in looks):
            known[spell.rows, k] = 1
    return dataclasses.replace(timeline, states=known)


def visible_from(
    timeline: Timeline, place: Workplace, motion: Motion, states: np.ndarray, world: World
) -> dict[Step, int | None]:
    """By installation, the first frame in which a picture tells whether it is right.

    A right part is compared with how the copy has it where it is incorrect. The arguments are as of
    `without_unseen`, of a recording of which every frame is rendered.

    Returns:
        {(frame, step id): first frame}; None where no picture tells until the part changes again.
    """
    found = {}
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
            found[step] = next(looks, None)
    return found


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
