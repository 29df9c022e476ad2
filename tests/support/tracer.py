"""The reference of the rasteriser: Embree traces rays to each body by itself.

This drew the pictures before there was a rasteriser.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from data_prep.rendering import scene
from data_prep.rendering.scene import Body, Camera, Light, Picture, Placed, Tabletop


class Traced:
    def __init__(self, body: Body):
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, body.vertices.astype(np.float32), body.faces)

    def first_hits(
        self, pose: np.ndarray, origin: np.ndarray, directions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances (N,), inf without a hit, and faces (N,), -1 without one, along world rays."""
        local = np.ascontiguousarray(directions @ pose[:3, :3].astype(np.float32))
        start = ((origin - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)
        hits = self._scene.run(np.tile(start, (len(local), 1)), local, output=1)
        return np.where(hits["primID"] >= 0, hits["tfar"], np.inf), hits["primID"]


_traced = functools.lru_cache(64)(Traced)


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
    """What N rays meet."""

    colours: np.ndarray  # (N, 3) float32, linear
    depth: np.ndarray  # (N,) along the camera's axis, inf of nothing
    face: np.ndarray  # (N,) counted over all bodies, -1 of nothing
    meets: np.ndarray  # (bodies, N) whether a ray meets a body, hidden or not


@dataclasses.dataclass(frozen=True)
class Scene:
    """What `scene.render` draws."""

    camera: Camera
    placed: Sequence[Placed]
    light: Light
    ground: Tabletop | np.ndarray

    def trace(self, xy: np.ndarray) -> Hits:
        """Rays through picture points (N, 2)."""
        directions = rays(self.camera, xy)
        depth, face = np.full(len(xy), np.inf, np.float32), np.full(len(xy), -1)
        meets, shaded, count = np.zeros((len(self.placed), len(xy)), bool), [], 0
        for i, (body, pose) in enumerate((p.body, p.pose) for p in self.placed):
            far, hit = _traced(body).first_hits(pose, self.camera.position, directions)
            meets[i] = hit >= 0
            nearer = far < depth
            depth = np.where(nearer, far, depth)
            face = np.where(nearer, hit + count, face)
            normals = body.normals @ pose[:3, :3].T.astype(np.float32)
            shaded.append(lambert(normals, body.colours, self.light))
            count += len(body.faces)
        colours = np.concatenate(shaded)[face]
        missed = np.flatnonzero(face < 0)
        colours[missed] = self._background(directions[missed])
        depth *= -(directions @ self.camera.rotation[:, 2].astype(np.float32))
        return Hits(colours, depth, face, meets)

    def _background(self, directions: np.ndarray) -> np.ndarray:
        if not isinstance(self.ground, Tabletop):
            return np.broadcast_to(self.ground, directions.shape)
        position = self.camera.position
        # Rays to the horizon or above it see the table far away.
        distance = -position[2] / np.minimum(directions[:, 2], -0.05)
        x, y = (position[:2] + distance[:, None] * directions[:, :2]).T
        (ax, ay, ap), (bx, by, bp) = self.ground.waves
        grain = np.sin(ax * x + ay * y + ap + 2 * np.sin(bx * x + by * y + bp))
        mix = (0.5 + 0.5 * grain)[:, None].astype(np.float32)
        albedo = self.ground.colours[0] + mix * (self.ground.colours[1] - self.ground.colours[0])
        return albedo * lambert(np.array([[0.0, 0.0, 1.0]]), np.ones((1, 3)), self.light)


def lambert(normals: np.ndarray, colours: np.ndarray, light: Light) -> np.ndarray:
    """(F, 3) linear RGB of faces with world normals and albedos (F, 3)."""
    cosine = np.maximum(normals @ light.direction.astype(np.float32), 0.0)
    return colours * (light.ambient + cosine[:, None] * light.diffuse).astype(np.float32)


def render(product, others, camera, light, ground, size) -> Picture:
    """The same as `scene.render`, one ray a pixel and four more at edges."""
    rays_of = Scene(camera, [product, *others], light, ground).trace
    points = grid(size)
    hits = rays_of(points)
    colours, meets = hits.colours, hits.meets.reshape(-1, size, size)
    edges = np.flatnonzero(find_edges(np.sqrt(colours).reshape(size, size, 3)))
    if len(edges):
        offsets = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) / (2 * size)
        finer = (points[edges] + offsets[:, None]).reshape(-1, 2)
        colours[edges] = rays_of(finer).colours.reshape(4, -1, 3).mean(0)
    image = np.sqrt(np.clip(colours, 0, 1)).reshape(size, size, 3)
    seen = (hits.face >= 0) & (hits.face < len(product.body.faces))
    visible = seen.sum() / max(meets[0].sum(), 1)
    box = np.full(4, np.nan, np.float32)
    if visible > scene.BOX_VISIBLE:
        rows, columns = np.flatnonzero(meets[0].any(1)), np.flatnonzero(meets[0].any(0))
        (x0, y0), (x1, y1) = (columns[0], rows[0]), (columns[-1] + 1, rows[-1] + 1)
        box = np.array([x0 + x1, y0 + y1, 2 * (x1 - x0), 2 * (y1 - y0)], np.float32) / (2 * size)
    return Picture(image, float(visible), box)


def find_edges(image: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of a display image that differ from a neighbour."""
    edges = np.zeros(image.shape[:2], bool)
    across = np.abs(image[:, 1:] - image[:, :-1]).sum(-1) > scene.EDGE_CONTRAST
    down = np.abs(image[1:] - image[:-1]).sum(-1) > scene.EDGE_CONTRAST
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges
