"""What the parts of a product are to each other: which touch, carry, block or overlap which.

FCL tells which touch. For the rest, each pair is looked at along the three axes, line by line
(`columns`). A part that moves straight out along an axis meets another one if a line meets the part
and, further on, the other: the blocking relations of Wilson and Latombe ("Geometric reasoning about
mechanical assembly", Artificial Intelligence 71, 1994) for six ways.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from data_prep.products.product import Product
from data_prep.rendering.mesh import Mesh
from stormpsr_jax.base import installed

# Ways out: +x, −x, +y, −y, +z, −z of the product.
WAYS = ("to the right", "to the left", "to the back", "to the front", "up", "down")
NEAR = 0.005  # of the product's size: parts so close touch, and so deep are in each other
_LINES = 64  # along either axis of what two parts have in common, seen along the third
# Lines between grid lines of a mesh, which are often at simple fractions: they meet no edge.
_OFFSET = np.array([0.4876, 0.5123])
_CLUSTER = 3  # lines two by two that have to meet: rims of circles of few corners are thinner
_AXES = np.array([[1, 2, 0], [2, 0, 1], [0, 1, 2]])


@dataclasses.dataclass(frozen=True)
class Relations:
    """Of K parts in their right places; lengths in units of the scene.

    Attributes:
        blocks: (K, K, 6) bool, whether part j is in the way of part i along `WAYS`.
        rests: (K, K) area of part i that lies on part j.
        touches: (K, K) bool, whether they touch or are in each other.
        overlap: (K, K) volume that is of both.
        depth: (K, K) how far they are in each other, along the axis on which it is least.
        volumes: (K,) of the parts, as far as their meshes enclose one.
        grounded: (K,) bool, whether it lies on the table.
    """

    blocks: np.ndarray
    rests: np.ndarray
    touches: np.ndarray
    overlap: np.ndarray
    depth: np.ndarray
    volumes: np.ndarray
    grounded: np.ndarray


def find(product: Product) -> Relations:
    """Compares all pairs of parts of a product."""
    placed = [part.mesh.moved(part.right) for part in product.parts]
    count = len(placed)
    everything = np.concatenate([mesh.vertices for mesh in placed])
    near = NEAR * float(np.linalg.norm(np.ptp(everything, axis=0)))
    floor = everything[:, 2].min()
    square = (count, count)
    found = Relations(
        blocks=np.zeros((*square, len(WAYS)), bool),
        rests=np.zeros(square),
        touches=_touching(placed, near),
        overlap=np.zeros(square),
        depth=np.zeros(square),
        volumes=np.array([abs(mesh.volume()) for mesh in placed]),
        grounded=np.array([mesh.vertices[:, 2].min() < floor + near for mesh in placed]),
    )
    for i, j in itertools.combinations(range(count), 2):
        _compare(found, i, j, placed[i], placed[j], near)
    found.touches[found.overlap > 0] = True  # also a part that is wholly within another one
    return found


def _touching(placed: Sequence[Mesh], near: float) -> np.ndarray:
    """(K, K) bool, whether the surfaces of two parts are nearer to each other than `near`."""
    installed.check_extra("synthetic", ("fcl",), "what is known of parts that touch")
    import fcl  # here, as pictures are rendered without it, and not every platform has it

    bodies = []
    for mesh in placed:
        model = fcl.BVHModel()
        model.beginModel(len(mesh.vertices), len(mesh.faces))
        model.addSubModel(mesh.vertices, mesh.faces)
        model.endModel()
        bodies.append(fcl.CollisionObject(model))
    touches = np.zeros((len(placed), len(placed)), bool)
    boxes = np.array([(m.vertices.min(axis=0) - near, m.vertices.max(axis=0)) for m in placed])
    for i, j in itertools.combinations(range(len(placed)), 2):
        if (boxes[i, 0] <= boxes[j, 1]).all() and (boxes[j, 0] <= boxes[i, 1]).all():
            touches[i, j] = touches[j, i] = fcl.distance(bodies[i], bodies[j]) <= near
    return touches


def _compare(found: Relations, i: int, j: int, a: Mesh, b: Mesh, near: float) -> None:
    """Fills in what two parts are to each other."""
    from data_prep.products.columns import columns, compare  # here, as --help does without it

    low = np.maximum(a.vertices.min(axis=0), b.vertices.min(axis=0))
    high = np.minimum(a.vertices.max(axis=0), b.vertices.max(axis=0))
    volumes, depths = [], []
    for axis, axes in enumerate(_AXES):
        across = axes[:2]
        step = (high - low)[across] / _LINES
        if (step * _LINES <= near).any():
            volumes.append(0.0)
            continue
        grid = axes, low[across] + _OFFSET * step, step, _LINES
        of_a, of_b = (columns(mesh.vertices, mesh.faces, *grid) for mesh in (a, b))
        lines = compare(of_a, of_b, near)
        cell = float(step.prod())
        common = lines[:, 0]
        volumes.append(float(common.sum()) * cell)
        if (common > 0).any():
            depths.append(float(common[common > 0].mean()))
        for k, way in ((3, 2 * axis), (4, 2 * axis + 1)):
            met = _clusters(lines[:, k])
            found.blocks[i, j, way] = met
            found.blocks[j, i, way ^ 1] = met
        if axis == 2:
            found.rests[i, j], found.rests[j, i] = lines[:, 1:3].sum(axis=0) * cell
    found.overlap[i, j] = found.overlap[j, i] = min(volumes)
    if depths and min(volumes) > 0:
        found.depth[i, j] = found.depth[j, i] = min(depths)


def _clusters(lines: np.ndarray) -> bool:
    """Whether lines (N²,) that meet something lie two by two beside each other, in some places."""
    grid = lines.reshape(_LINES, _LINES) > 0
    blocks = grid[1:, 1:] & grid[:-1, 1:] & grid[1:, :-1] & grid[:-1, :-1]
    return int(blocks.sum()) >= _CLUSTER
