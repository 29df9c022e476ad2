"""A camera that has a whole product or part in view."""

import numpy as np

from data_prep.rendering.mesh import Mesh
from data_prep.rendering.scene import Camera, look_at

_HALF_VIEW = 0.3
_FILL = 0.9  # of the picture's height that it takes


def around(mesh: Mesh, turn: float, above: float) -> Camera:
    """Looks at it, `turn` radians about it (0 is at −y) and `above` radians over the table."""
    middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    radius = float(np.linalg.norm(mesh.vertices - middle, axis=1).max())
    flat = np.cos(above)
    way = np.array([np.sin(turn) * flat, -np.cos(turn) * flat, np.sin(above)])
    return look_at(middle + radius / (_HALF_VIEW * _FILL) * way, middle, 0.0, _HALF_VIEW)
