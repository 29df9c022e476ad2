"""A camera that has a whole product in view."""

import numpy as np

from data_prep.products.product import Product
from data_prep.rendering.scene import Camera, look_at

_HALF_VIEW = 0.3
_FILL = 0.9  # of the picture's height that the complete product takes


def around(product: Product, turn: float, above: float) -> Camera:
    """Looks at the complete product from a side.

    Args:
        product: its parts in their right places.
        turn: about it, in radians; 0 is from its front, at −y.
        above: the table, in radians.
    """
    vertices = product.mesh(np.ones(len(product.parts))).vertices
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    radius = float(np.linalg.norm(vertices - middle, axis=1).max())
    flat = np.cos(above)
    way = np.array([np.sin(turn) * flat, -np.cos(turn) * flat, np.sin(above)])
    return look_at(middle + radius / (_HALF_VIEW * _FILL) * way, middle, 0.0, _HALF_VIEW)
