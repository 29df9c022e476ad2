"""Pictures of a product on a table: flat shading, visible fraction, box.

World coordinates: the table is z = 0, z points up.
"""

import copy
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from data_prep.rendering.grounds import REACH, Texture
from data_prep.rendering.mesh import Mesh, cross, join

# Pixels that differ from a neighbour by more than this (display values, summed over the channels)
# get four samples.
EDGE_CONTRAST = 0.15
# A box is annotated where the object is almost wholly visible, as in the real data sets.
BOX_VISIBLE = 0.9
_HALF_VIEW, _FILL = 0.3, 0.9  # of `around`: the view's tangent, and how much of it is filled


class Body:
    """Meshes to be seen that move as one."""

    def __init__(self, *meshes: Mesh):
        from data_prep.rendering import raster  # here and below, as flags and --help do without

        mesh = join(meshes)
        self.vertices = np.ascontiguousarray(mesh.vertices, np.float64)
        self.faces = np.ascontiguousarray(mesh.faces, np.int32)
        self.closed = np.repeat([m.closed for m in meshes], [len(m.faces) for m in meshes])
        self.normals = raster.normals(self.vertices, self.faces)
        self.colours = np.ascontiguousarray(mesh.colours, np.float32)

    def painted(self, colours: np.ndarray, size: float = 1.0) -> "Body":
        """The same body with other albedos (F, 3), `size` times as large."""
        body = copy.copy(self)
        body.vertices = size * self.vertices
        body.colours = np.ascontiguousarray(colours, np.float32)
        return body


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

    def pixels(self, size: int) -> np.ndarray:
        """(3, 4) from world coordinates to (U, V, W) of `raster`, in a picture of `size` pixels."""
        right, up, back = self.rotation.T
        across = (
            size / 2 * np.array([right / self.half_height - back, -up / self.half_height - back])
        )
        axes = np.vstack([across, -back])
        return np.column_stack([axes, -axes @ self.position])

    def view(self, size: int) -> np.ndarray:
        """(3, 3) from (u, v, 1), in pixels from the upper left corner, to the direction there."""
        step = 2 * self.half_height / size
        right, up, back = self.rotation.T
        corner = self.half_height * (up - right) - back
        return np.column_stack([step * right, -step * up, corner])


def look_at(position: np.ndarray, target: np.ndarray, roll: float, half_height: float) -> Camera:
    """A camera at `position` that looks at `target`, turned by `roll` radians about its axis."""
    back = position - target
    back = back / np.linalg.norm(back)
    right = cross(np.array([0.0, 0.0, 1.0]), back)
    right /= np.linalg.norm(right)
    up = cross(back, right)
    rotation = np.stack(
        [np.cos(roll) * right + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * right, back],
        axis=1,
    )
    return Camera(position, rotation, half_height)


def around(mesh: Mesh, turn: float, above: float) -> Camera:
    """Has a mesh in view, `turn` radians about it (0 is at −y) and `above` over the table."""
    middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    radius = float(np.linalg.norm(mesh.vertices - middle, axis=1).max())
    flat = np.cos(above)
    way = np.array([np.sin(turn) * flat, -np.cos(turn) * flat, np.sin(above)])
    return look_at(middle + radius / (_HALF_VIEW * _FILL) * way, middle, 0.0, _HALF_VIEW)


@dataclasses.dataclass(frozen=True)
class Light:
    """One distant light without shadows.

    Attributes:
        direction: (3,) unit, towards the light.
        ambient: (3,) and
        diffuse: (3,), linear RGB.
        gloss: of surfaces: how bright highlights are, of `diffuse`.
    """

    direction: np.ndarray
    ambient: np.ndarray
    diffuse: np.ndarray
    gloss: float = 0.0


@dataclasses.dataclass(frozen=True)
class Tabletop:
    """A plane z = 0 with a soft grain between two colours.

    Attributes:
        colours: (2, 3) linear albedo.
        waves: (2, 3): frequency x, frequency y and phase of the grain and of what bends it.
    """

    colours: np.ndarray
    waves: np.ndarray


Ground = Tabletop | Texture | np.ndarray


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


# The pixels that are drawn, in the words of `raster.draw`: before, columns and spread.
_Pixels = tuple[np.ndarray, np.ndarray, float]


@functools.lru_cache(2)
def _every_pixel(size: int) -> _Pixels:
    columns = np.arange(size, dtype=np.int32)
    before = np.arange(size + 1, dtype=np.int32) + size * columns[:, None]
    return before, np.tile(columns, size), 0.0


def render(
    product: Placed,
    others: Sequence[Placed],
    camera: Camera,
    light: Light,
    ground: Ground,
    size: int,
    lens: float = 0.0,
) -> Picture:
    """Renders a square picture of `size` pixels.

    The middle of a pixel tells what is visible; pixels at edges get four samples for their colour.

    Args:
        product: the object whose visible share and box are measured.
        others: everything that may hide it.
        ground: a table, or one linear RGB colour (3,) or a picture behind everything.
        lens: its distortion, see `sensor`; 0 of a pinhole camera.
    """
    from data_prep.rendering import raster

    placed = [product, *others]
    total = sum(len(p.body.faces) for p in placed)
    triangles, numbers = np.empty((total, raster.COLUMNS)), np.empty(total, np.int32)
    colours = np.empty((total, 3), np.float32)
    lights = np.stack([light.direction, light.ambient, light.diffuse, light.gloss * light.diffuse])
    first = count = of_product = 0
    for body, pose in ((p.body, p.pose) for p in placed):
        count = raster.prepare(
            *(body.vertices, body.faces, body.closed, body.normals, body.colours),
            *(pose, camera.pixels(size), lights, camera.position, size, first, count),
            *(triangles, numbers, colours),
        )
        of_product = of_product if first else count
        first += len(body.faces)
    view = camera.view(size), camera.position
    behind = _seen_ground(ground, light, *view, size)
    picture = np.empty((size, size, 3), np.float32)

    def draw(chosen: _Pixels, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        """Colours N pixels; faces (N, S) at their samples, −1 of nothing, and where the product is.

        Faces are counted over all bodies; the product may be hidden there.
        """
        nearness, face = np.zeros(shape), np.full(shape, -1, np.int32)
        raster.draw(triangles[:of_product], numbers[:of_product], *chosen, nearness, face)
        whole = face >= 0
        others = slice(of_product, count)
        raster.draw(triangles[others], numbers[others], *chosen, nearness, face)
        raster.colour(*chosen, face, colours, *view, *behind, picture)
        return face, whole

    face, whole = draw(_every_pixel(size), size * size, 1)
    before, columns = np.empty((size, size + 1), np.int32), np.empty(size * size, np.int32)
    edges = raster.choose_edges(picture, EDGE_CONTRAST, before, columns)
    draw((before, columns, 0.25), edges, 4)
    seen = int(np.count_nonzero((face >= 0) & (face < len(product.body.faces))))
    visible = seen / max(int(np.count_nonzero(whole)), 1)
    whole = whole.reshape(size, size)
    np.clip(picture, 0, 1, out=picture)
    if lens:
        from data_prep.rendering.sensor import bend

        picture, whole = bend(picture, whole, lens)
    box = np.full(4, np.nan, np.float32)
    if visible > BOX_VISIBLE and whole.any():
        box = _extent_box(whole)
    np.sqrt(picture, out=picture)
    return Picture(picture, visible, box)


def _seen_ground(
    ground: Ground, light: Light, view: np.ndarray, position: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is behind everything: two colours (2, 3), the waves (2, 3) between them, a backdrop."""
    colours, waves = np.zeros((2, 3)), np.zeros((2, 3))
    backdrop = np.zeros((0, 0, 3), np.float32)
    level = light.ambient + max(light.direction[2], 0.0) * light.diffuse
    if isinstance(ground, Tabletop):
        colours, waves = ground.colours * level, ground.waves
    elif isinstance(ground, Texture):
        from data_prep.rendering.resampled import lay

        backdrop = np.empty((size, size, 3), np.float32)
        lay(ground.albedo, ground.fine / (2 * REACH), view, position, level, backdrop)
    else:
        colours = np.tile(np.asarray(ground, np.float64), (2, 1))
    return colours, waves, backdrop


def _extent_box(mask: np.ndarray) -> np.ndarray:
    """(4,) cx, cy, w, h in 0..1 around the True pixels of a mask (H, W)."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, x1 = columns[0] / width, (columns[-1] + 1) / width
    y0, y1 = rows[0] / height, (rows[-1] + 1) / height
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], np.float32)
