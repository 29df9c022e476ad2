"""Products of boxes and of other shapes, without files."""

import numpy as np
import trimesh

from data_prep.products.product import Part, Product
from data_prep.rendering.mesh import Mesh

GREY = (0.25, 0.25, 0.25)


def box(low, high):
    return trimesh.creation.box(bounds=[low, high])


def shell(low, high, wall):
    """A box that is open above: a floor and four walls."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return trimesh.util.concatenate(
        [
            box((x0, y0, z0), (x1, y1, z0 + wall)),
            box((x0, y0, z0 + wall), (x0 + wall, y1, z1)),
            box((x1 - wall, y0, z0 + wall), (x1, y1, z1)),
            box((x0 + wall, y0, z0 + wall), (x1 - wall, y0 + wall, z1)),
            box((x0 + wall, y1 - wall, z0 + wall), (x1 - wall, y1, z1)),
        ]
    )


def product(*meshes, colours=None, **options):
    parts = []
    for k, mesh in enumerate(meshes):
        vertices = np.asarray(mesh.vertices, float)
        pose = np.eye(4)
        pose[:3, 3] = (vertices.min(0) + vertices.max(0)) / 2
        colour = GREY if colours is None else colours[k]
        own = Mesh(
            vertices - pose[:3, 3], np.array(mesh.faces), np.tile(colour, (len(mesh.faces), 1))
        )
        parts.append(Part(own, float(np.ptp(vertices[:, 2])), pose, pose))
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), int), np.zeros((0, 3)))
    return Product(empty, tuple(parts), **options)
