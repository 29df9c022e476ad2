"""How parts may sit that are installed incorrectly: for renders that show a detector such parts.

Nobody knows beforehand how a worker will get a part wrong, so the poses are drawn anew for every
picture: turned, shifted, mirrored, or on the wrong side of the product. In a kit, another part may
be in its place, too. Where it is known how a part gets wrong (`Part.known_wrong`), that is drawn.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.products.product import Part, Product
from data_prep.rendering.mesh import Mesh, affine, linear

# A pose counts as wrong if the part's points then lie this far, as a share of its size, from where
# they belong: a box turned by half a turn is none.
_VISIBLE = 0.3
_KINDS = np.array(["shifted", "turned", "both", "mirrored", "side"])
_CHANCES = np.array([0.2, 0.2, 0.4, 0.1, 0.1])
# Of a mesh, the points whose distance is taken, and those that they are compared with: were these
# as few, a finely meshed cube on another of its faces would seem to be elsewhere.
_POINTS, _OTHERS = 60, 2000
_TRIES = 20
MIXED_UP = 0.15  # of the wrong parts of a kit, those where another one is in the place
# What another part has to differ in, to look wrong there: in shape, as above, or in colour (0…1).
_OTHER_SHAPE, _OTHER_COLOUR = 0.1, 0.15
_SHARE = 1 / 3  # of the installed parts of a picture that are incorrect, at least one


def wrong_pose(part: Part, rng: np.random.Generator, others: Sequence[Part] = ()) -> np.ndarray:
    """Draws a (4, 4) pose of an incorrect part, visibly so.

    Where one of the others belongs that looks like it, it would look right.
    A part that is large against the product is hardly ever its own size from where it belongs; of
    the poses tried it then has the one that is farthest, if that is far enough to be seen.
    """
    size = part.extent
    place, turn = part.right[:3, 3], part.right[:3, :3]
    farthest, best = _OTHER_SHAPE, affine(translation=place + size * (0.6, 0, 0)) @ linear(turn)
    for _ in range(_TRIES):
        pose = _draw(size, place, rng) @ linear(turn)
        if any(_passes_for(part, other, pose) for other in others):
            continue
        apart = _apart(part, part.mesh, pose)
        if apart > _VISIBLE:
            return pose
        if apart > farthest:
            farthest, best = apart, pose
    return best


def is_visible(part: Part, pose: np.ndarray) -> bool:
    """Whether a part in a pose (4, 4) looks other than it should."""
    return _apart(part, part.mesh, pose) > _VISIBLE


def _passes_for(part: Part, other: Part, pose: np.ndarray) -> bool:
    """Whether a part in a pose (4, 4) looks like another one where that belongs."""
    far = np.linalg.norm(pose[:3, 3] - other.right[:3, 3]) > np.linalg.norm(other.extent) / 2
    return (
        not far
        and not _other_colour(part, other)
        and _apart(other, part.mesh, pose) <= _OTHER_SHAPE
    )


def _apart(part: Part, mesh: Mesh, pose: np.ndarray) -> float:
    """How far a mesh in a pose is from the part where it belongs, in the part's size."""
    right, now = (
        _spread(one.vertices, _OTHERS) @ at[:3, :3].T + at[:3, 3]
        for one, at in ((part.mesh, part.right), (mesh, pose))
    )
    return _distance(now, right) * np.sqrt(3) / float(np.linalg.norm(part.extent))


def with_wrong_poses(
    product: Product,
    rng: np.random.Generator,
    states: np.ndarray | None = None,
    wrong: Iterable[int] | None = None,
) -> Product:
    """The product whose parts, where they are incorrect, are in poses drawn for them.

    Args:
        product: a kit, or a toy.
        states: (M, K) in which the product is. A part that is absent whenever another one sits
            wrong may be the one that is in its place then. None: each part stands for itself.
        wrong: the parts whose poses are drawn; None is all.
    """
    parts, taken = list(product.parts), set[int | None]()
    for k in range(len(parts)) if wrong is None else wrong:
        others: list[int] = []
        if states is not None and (states[:, k] < 0).any():
            absent = (states[states[:, k] < 0] == 0).all(axis=0)
            others = [j for j in np.flatnonzero(absent).tolist() if j not in taken]
        parts[k] = _wrong_part(product, k, others, rng)
        taken.add(parts[k].stand_in)
    return dataclasses.replace(product, parts=tuple(parts))


def _wrong_part(product: Product, k: int, others: Sequence[int], rng: np.random.Generator) -> Part:
    """Part k as it is incorrect, or one of the others that looks wrong in its place."""
    part = product.parts[k]
    if part.known_wrong:
        known = part.known_wrong[rng.integers(len(part.known_wrong))]
        return dataclasses.replace(part, wrong=known)
    if product.kit and others and rng.random() < MIXED_UP:
        j = others[int(rng.integers(len(others)))]
        other = product.parts[j]
        place = part.right[:3, 3] + [0, 0, (other.height - part.height) / 2]  # on the same ground
        pose = affine(translation=place) @ linear(other.right[:3, :3])
        if _apart(part, other.mesh, pose) > _OTHER_SHAPE or _other_colour(part, other):
            return dataclasses.replace(part, wrong=pose, stand_in=j)
    rest = [other for j, other in enumerate(product.parts) if j != k]
    return dataclasses.replace(part, wrong=wrong_pose(part, rng, rest))


def _other_colour(part: Part, other: Part) -> bool:
    one, two = (np.sqrt(p.mesh.colours.mean(axis=0)) for p in (part, other))
    return bool(np.abs(one - two).max() > _OTHER_COLOUR)


def _draw(size: np.ndarray, place: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(4, 4) that takes the part, around its own centre and turned as it should be, to its pose."""
    kind = rng.choice(_KINDS, p=_CHANCES)
    angles, shift, flip = np.zeros(3), np.zeros(3), np.ones(3)
    if kind in ("shifted", "both"):
        around = rng.uniform(0, 2 * np.pi)
        far = rng.uniform(0.3, 0.7) * np.clip(size[:2], 0.25 * size.max(), 0.8)
        shift[:2] = far * (np.cos(around), np.sin(around))
        shift[2] = rng.uniform(0, 0.25)
    if kind in ("turned", "both"):
        angles[2] = rng.uniform(0.4, np.pi) * rng.choice((-1, 1))
        angles[:2] = rng.uniform(-0.6, 0.6, 2)
    if kind == "mirrored":
        flip[rng.integers(3)] = -1
        angles[2] = rng.choice((0, 0.5, 1)) * np.pi
    if kind == "side":
        flip_place = np.ones(3)
        flip_place[rng.integers(2)] = -1
        shift = place * flip_place - place
        angles[2] = rng.choice((0, 1)) * np.pi
    return affine(angles, place + shift) @ linear(np.diag(flip))


def _spread(points: np.ndarray, count: int) -> np.ndarray:
    if len(points) <= count:
        return points
    return points[np.linspace(0, len(points) - 1, count).astype(int)]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of points (P, 3) to the nearest of others, the larger of both ways."""
    from scipy.spatial import KDTree  # here, as --help does without it

    return max(
        float(KDTree(others).query(_spread(few, _POINTS))[0].mean())
        for few, others in ((a, b), (b, a))
    )


def draw_states(state: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, K): a catalogued state with some of its parts at −1, at least one in every row."""
    installed = np.flatnonzero(state)
    wrong = rng.random((count, len(installed))) < _SHARE
    wrong[np.arange(count), rng.integers(len(installed), size=count)] = True
    states = np.tile(np.asarray(state, np.int8), (count, 1))
    states[:, installed] = np.where(wrong, -1, 1)
    return states
