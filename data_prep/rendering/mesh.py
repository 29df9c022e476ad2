"""Triangles in colours, and the matrices that move them."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

Vector = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Triangles with one colour per face.

    Attributes:
        faces: (F, 3) int.
        colours: (F, 3) float, linear RGB albedo in 0..1.
        closed: they enclose one or several volumes and look outwards, so that nobody outside sees
            their other sides. What is not known to be so is drawn from both sides.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    closed: bool = False

    def moved(self, matrix: np.ndarray) -> "Mesh":
        """This mesh under a (4, 4) affine transformation."""
        vertices = self.vertices @ matrix[:3, :3].T + matrix[:3, 3]
        # Mirrored faces would look inwards, and be lit from the other side.
        mirrored = cross(matrix[0, :3], matrix[1, :3]) @ matrix[2, :3] < 0
        faces = self.faces[:, ::-1] if mirrored else self.faces
        return Mesh(vertices, faces, self.colours, self.closed)

    def volume(self) -> float:
        """What it encloses, counted along z; below 0 if it looks inwards."""
        corners = self.vertices[self.faces] - self.vertices.mean(axis=0)
        triple = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
        return float(triple.sum()) / 6


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cross product of two vectors (3,); `np.cross` takes ten times as long."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def join(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh out of several."""
    if len(meshes) == 1:
        return meshes[0]
    offsets = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=True)]),
        np.concatenate([m.colours for m in meshes]),
        all(m.closed for m in meshes),
    )


def affine(
    angles: Vector = (0.0, 0.0, 0.0),
    translation: Vector = (0.0, 0.0, 0.0),
    scale: float = 1.0,
) -> np.ndarray:
    """(4, 4): scale, then turn about x, y and z (radians, in this order), then move."""
    (si, ci), (sj, cj), (sk, ck) = [(math.sin(angle), math.cos(angle)) for angle in angles]
    x, y, z = translation
    matrix = np.array(
        [
            [cj * ck, sj * (si * ck) - ci * sk, sj * (ci * ck) + si * sk, x],
            [cj * sk, sj * (si * sk) + ci * ck, sj * (ci * sk) - si * ck, y],
            [-sj, cj * si, cj * ci, z],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    matrix[:3, :3] *= scale
    return matrix


def linear(matrix: np.ndarray) -> np.ndarray:
    """(4, 4) of a (3, 3) matrix."""
    whole = np.eye(4)
    whole[:3, :3] = matrix
    return whole
