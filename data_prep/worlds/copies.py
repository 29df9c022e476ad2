"""The copy of a product that one recording shows: its paint, and how its parts are incorrect."""

import dataclasses

import numpy as np

from data_prep.products.product import Part, Product
from data_prep.rendering.mesh import Mesh, affine, linear
from data_prep.worlds.worlds import TOY, Paint, World

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
    """The mesh with another hue, saturation and brightness, all of it by the same."""
    colours = np.sqrt(mesh.colours)
    turn = affine((0, 0, 2 * np.pi * paint.hue.draw(rng)))[:3, :3]
    colours = colours @ (_GREYS.T @ turn @ _GREYS).T
    grey = colours.mean(axis=1, keepdims=True)
    colours = grey + (1 + paint.saturation.draw(rng)) * (colours - grey)
    colours = colours * (1 + paint.value.draw(rng))
    return dataclasses.replace(mesh, colours=np.clip(colours, 0.02, 1) ** 2)
