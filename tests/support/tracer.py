"""The reference of the rasteriser: Embree traces every ray to every body by itself."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from data_prep.rendering.scene import Body, Camera, Light, Placed, Table


class Traced:
    """A body that rays can hit."""

    def __init__(self, body: Body):
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, body.vertices.astype(np.float32), body.faces)

    def first_hits(
        self, pose: np.ndarray, origin: np.ndarray, directions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nearest hits of rays from one point (3,) along directions (N, 3), world coordinates.

        Returns:
            Distance in units of the direction's length (N,), inf without a hit, and face (N,),
            -1 without one.
        """
        local = np.ascontiguousarray(directions @ pose[:3, :3].astype(np.float32))
        start = ((origin - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)
        hits = self._scene.run(np.tile(start, (len(local), 1)), local, output=1)
        return np.where(hits["primID"] >= 0, hits["tfar"], np.inf), hits["primID"]


def rays(camera: Camera, xy: np.ndarray) -> np.ndarray:
    """(N, 3) float32 unit directions through picture points xy (N, 2), each in -1..1, y up."""
    directions = np.column_stack([xy * camera.half_height, np.full(len(xy), -1.0)])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (directions @ camera.rotation.T).astype(np.float32)


def grid(size: int) -> np.ndarray:
    """(size * size, 2) picture points of the pixels' centres, row by row from the top."""
    step = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(step, -step)
    return np.column_stack([x.ravel(), y.ravel()])


@dataclasses.dataclass(frozen=True)
class Hits:
    """What N rays meet.

    Attributes:
        colours: (N, 3) linear.
        depth: (N,) along the camera's axis, inf of nothing.
        face: (N,) counted over all bodies, -1 of nothing.
        meets: (bodies, N) whether a ray meets a body, hidden or not.
        bodies: (N,) the body that is seen, -1 of none.
    """

    colours: np.ndarray
    depth: np.ndarray
    face: np.ndarray
    meets: np.ndarray
    bodies: np.ndarray


def trace(
    xy: np.ndarray,
    camera: Camera,
    placed: Sequence[Placed],
    light: Light,
    ground: Table | np.ndarray,
) -> Hits:
    """Traces rays through picture points (N, 2)."""
    directions = rays(camera, xy)
    distance, face = np.full(len(xy), np.inf), np.full(len(xy), -1)
    bodies, meets, shaded = face.copy(), [], []
    for i, (body, pose) in enumerate((p.body, p.pose) for p in placed):
        far, hit = Traced(body).first_hits(pose, camera.position, directions)
        nearer = far < distance
        face[nearer] = hit[nearer] + sum(map(len, shaded))
        distance[nearer], bodies[nearer] = far[nearer], i
        meets.append(hit >= 0)
        normals = body.normals @ pose[:3, :3].T.astype(np.float32)
        shaded.append(lambert(normals, body.colours, light))
    colours = np.concatenate(shaded)[face]
    colours[face < 0] = background(directions[face < 0], camera, light, ground)
    depth = distance * -(directions @ camera.rotation[:, 2])
    return Hits(colours, depth, face, np.stack(meets), bodies)


def lambert(normals: np.ndarray, colours: np.ndarray, light: Light) -> np.ndarray:
    """(F, 3) linear RGB of faces with world normals and albedos (F, 3)."""
    cosine = np.maximum(normals @ light.direction, 0.0)
    return colours * (light.ambient + cosine[:, None] * light.diffuse)


def background(
    directions: np.ndarray, camera: Camera, light: Light, ground: Table | np.ndarray
) -> np.ndarray:
    """(N, 3) linear colours where rays along directions (N, 3) meet nothing."""
    if not isinstance(ground, Table):
        return np.broadcast_to(ground, directions.shape)
    # Rays to the horizon or above it see the table far away.
    distance = -camera.position[2] / np.minimum(directions[:, 2], -0.05)
    x, y = (camera.position[:2] + distance[:, None] * directions[:, :2]).T
    (ax, ay, ap), (bx, by, bp) = ground.waves
    mix = 0.5 + 0.5 * np.sin(ax * x + ay * y + ap + 2 * np.sin(bx * x + by * y + bp))
    albedo = ground.colours[0] + mix[:, None] * (ground.colours[1] - ground.colours[0])
    return albedo * lambert(np.array([[0.0, 0.0, 1.0]]), np.ones((1, 3)), light)
