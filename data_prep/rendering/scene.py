"""Ray-traced pictures of a product on a table: first hits, flat shading, visible fraction, box.

World coordinates: the table is z = 0, z points up. Each rigid body has one ray-tracing scene for
its lifetime; a picture turns the rays into the body's coordinates instead of rebuilding it.
"""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np

from data_prep.rendering.product import Mesh

# Pixels that differ from a neighbour by more than this (display values, summed over the channels)
# get four more rays.
EDGE_CONTRAST = 0.15
# A box is annotated where the object is almost wholly visible, as in the real data sets.
BOX_VISIBLE = 0.9


class Body:
    """A rigid mesh that rays can hit."""

    def __init__(self, mesh: Mesh):
        # Here, as flags and --help do without them.
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        triangles = mesh.vertices[mesh.faces]
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        self.normals = (normals / np.maximum(length, 1e-12)).astype(np.float32)
        self.colours = mesh.colours.astype(np.float32)
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))

    def painted(self, colours: np.ndarray) -> "Body":
        """The same body with other albedos (F, 3)."""
        body = copy.copy(self)
        body.colours = np.asarray(colours, np.float32)
        return body

    def first_hits(
        self, pose: np.ndarray, origin: np.ndarray, directions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nearest hits of rays from one point (3,) along directions (N, 3), world coordinates.

        Returns:
            Distance in units of the direction's length (N,), inf without a hit, and face (N,),
            -1 without one.
        """
        rotation = pose[:3, :3].astype(np.float32)
        local = np.ascontiguousarray(directions @ rotation)
        start = ((origin - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)
        hits = self._scene.run(np.tile(start, (len(local), 1)), local, output=1)
        return np.where(hits["primID"] >= 0, hits["tfar"], np.inf), hits["primID"]


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera: position (3,), rotation (3, 3) camera to world, half the view's height.

    The camera looks along its -z, x right, y up; `half_height` is a tangent.
    """

    position: np.ndarray
    rotation: np.ndarray
    half_height: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) where points (N, 3) in front of the camera are seen, in -1..1, y up."""
        local = (points - self.position) @ self.rotation
        return local[:, :2] / (-local[:, 2:] * self.half_height)

    def rays(self, xy: np.ndarray) -> np.ndarray:
        """(N, 3) float32 unit directions through picture points xy (N, 2), each in -1..1."""
        directions = np.column_stack([xy * self.half_height, np.full(len(xy), -1.0)])
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return (directions @ self.rotation.T).astype(np.float32)


def look_at(position: np.ndarray, target: np.ndarray, roll: float, half_height: float) -> Camera:
    """A camera at `position` that looks at `target`, turned by `roll` radians about its axis."""
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    rotation = np.stack(
        [np.cos(roll) * right + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * right, back],
        axis=1,
    )
    return Camera(position, rotation, half_height)


@dataclasses.dataclass(frozen=True)
class Light:
    """One distant light without shadows.

    Attributes:
        direction: (3,) unit, towards the light.
        ambient: (3,) and
        diffuse: (3,), linear RGB.
    """

    direction: np.ndarray
    ambient: np.ndarray
    diffuse: np.ndarray

    def shade(self, normals: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """(F, 3) linear RGB of faces with world normals and albedos (F, 3)."""
        cosine = np.maximum(normals @ self.direction.astype(np.float32), 0.0)
        return colours * (self.ambient + cosine[:, None] * self.diffuse).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Table:
    """A plane z = 0 with a soft grain between two colours.

    Attributes:
        colours: (2, 3) linear albedo.
        waves: (2, 3): frequency x, frequency y and phase of the grain and of what bends it.
    """

    colours: np.ndarray
    waves: np.ndarray

    def albedo(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(N, 3) at table points."""
        (ax, ay, ap), (bx, by, bp) = self.waves
        grain = np.sin(ax * x + ay * y + ap + 2 * np.sin(bx * x + by * y + bp))
        mix = (0.5 + 0.5 * grain)[:, None].astype(np.float32)
        return self.colours[0] + mix * (self.colours[1] - self.colours[0])


@dataclasses.dataclass(frozen=True)
class Placed:
    """A body at a pose (4, 4), body to world."""

    body: Body
    pose: np.ndarray


@dataclasses.dataclass(frozen=True)
class Picture:
    """What a camera sees.

    Attributes:
        image: (H, W, 3) float32 display RGB in 0..1.
        visible: share of the product's pixels in view that nothing hides; 0 if none is in view.
        box: (4,) cx, cy, w, h in 0..1 of the product's unhidden extent in view; NaN where the
            visible share is not above BOX_VISIBLE.
    """

    image: np.ndarray
    visible: float
    box: np.ndarray


def _grid(size: int) -> np.ndarray:
    """(size * size, 2) picture points of the pixels' centres, row by row from the top."""
    step = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(step, -step)
    return np.column_stack([x.ravel(), y.ravel()])


class _Tracer:
    """The scene of one picture, ready for rays."""

    def __init__(
        self,
        camera: Camera,
        placed: Sequence[Placed],
        light: Light,
        ground: Table | np.ndarray,
    ):
        self._camera, self._placed, self._light, self._ground = camera, placed, light, ground
        shaded = [
            light.shade(p.body.normals @ p.pose[:3, :3].T.astype(np.float32), p.body.colours)
            for p in placed
        ]
        self._shaded = np.concatenate(shaded)
        self._first_face = np.cumsum([0] + [len(s) for s in shaded])

    def trace(
        self, xy: np.ndarray, near: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rays through picture points (N, 2).

        Args:
            xy: the points.
            near: (bodies, N) bool, the bodies that a ray can meet; all by default.

        Returns:
            (N, 3) linear colours, (bodies, N) whether a ray meets a body, (N,) whether the first
            one is what it sees.
        """
        directions = self._camera.rays(xy)
        depth = np.full(len(xy), np.inf, np.float32)
        face = np.full(len(xy), -1)
        meets = np.zeros((len(self._placed), len(xy)), bool)
        for i, placed in enumerate(self._placed):
            rays = slice(None) if near is None else np.flatnonzero(near[i])
            distance, hit = placed.body.first_hits(
                placed.pose, self._camera.position, directions[rays]
            )
            meets[i, rays] = hit >= 0
            nearer = distance < depth[rays]
            depth[rays] = np.where(nearer, distance, depth[rays])
            face[rays] = np.where(nearer, hit + self._first_face[i], face[rays])
        colours = self._shaded[face]
        seen = (face >= 0) & (face < self._first_face[1])
        missed = np.flatnonzero(face < 0)
        colours[missed] = self._background(directions[missed])
        return colours, meets, seen

    def _background(self, directions: np.ndarray) -> np.ndarray:
        if not isinstance(self._ground, Table):
            return np.broadcast_to(self._ground, directions.shape)
        position = self._camera.position
        # Rays to the horizon or above it see the table far away.
        distance = -position[2] / np.minimum(directions[:, 2], -0.05)
        x, y = (position[:2] + distance[:, None] * directions[:, :2]).T
        level = self._light.shade(np.array([[0.0, 0.0, 1.0]], np.float32), np.ones((1, 3)))
        return self._ground.albedo(x, y) * level


def render(
    product: Placed,
    others: Sequence[Placed],
    camera: Camera,
    light: Light,
    ground: Table | np.ndarray,
    size: int,
) -> Picture:
    """Renders a square picture of `size` pixels.

    One ray a pixel tells what is visible; pixels at edges get four more for their colour.

    Args:
        product: the object whose visible share and box are measured.
        others: everything that may hide it.
        camera: where it is seen from.
        light: of the whole scene.
        ground: a table, or one linear RGB colour (3,) behind everything.
        size: H = W.
    """
    tracer = _Tracer(camera, [product, *others], light, ground)
    points = _grid(size)
    colours, meets, seen = tracer.trace(points)
    meets = meets.reshape(-1, size, size)
    edges = np.flatnonzero(_edges(np.sqrt(colours).reshape(size, size, 3)))
    if len(edges):
        offsets = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) / (2 * size)
        finer = (points[edges] + offsets[:, None]).reshape(-1, 2)
        # A body is within a pixel of where it is met: what misses it there is not looked for.
        near = _grown(meets).reshape(len(meets), -1)[:, edges]
        colours[edges] = tracer.trace(finer, np.tile(near, 4))[0].reshape(4, -1, 3).mean(0)
    image = np.sqrt(np.clip(colours, 0, 1)).reshape(size, size, 3)
    visible = seen.sum() / max(meets[0].sum(), 1)
    box = np.full(4, np.nan, np.float32)
    if visible > BOX_VISIBLE:
        box = _extent_box(meets[0])
    return Picture(image, float(visible), box)


def _grown(masks: np.ndarray) -> np.ndarray:
    """(N, H, W) bool: pixels of masks (N, H, W) and all that touch them."""
    grown = masks.copy()
    grown[:, 1:] |= masks[:, :-1]
    grown[:, :-1] |= masks[:, 1:]
    across = grown.copy()
    grown[:, :, 1:] |= across[:, :, :-1]
    grown[:, :, :-1] |= across[:, :, 1:]
    return grown


def _edges(image: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that differ from a neighbour."""
    edges = np.zeros(image.shape[:2], bool)
    add_channels = np.ones(3, np.float32)
    across = np.abs(image[:, 1:] - image[:, :-1]) @ add_channels > EDGE_CONTRAST
    down = np.abs(image[1:] - image[:-1]) @ add_channels > EDGE_CONTRAST
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def _extent_box(mask: np.ndarray) -> np.ndarray:
    """(4,) cx, cy, w, h in 0..1 around the True pixels of a mask (H, W)."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, x1 = columns[0] / width, (columns[-1] + 1) / width
    y0, y1 = rows[0] / height, (rows[-1] + 1) / height
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], np.float32)
