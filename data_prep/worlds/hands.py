"""Hands of workers, with forearms and tools."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from data_prep.products.product import solid
from data_prep.rendering.mesh import Mesh, join
from data_prep.rendering.scene import Body

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
    """A hand without colours, and the material (F,) of its faces."""
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
