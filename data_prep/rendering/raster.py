"""A rasteriser with a depth buffer, compiled by numba: which face is seen at which samples.

The edge functions and depths are those of 2D homogeneous rasterisation (Olano and Greer, "Triangle
Scan Conversion using 2D Homogeneous Coordinates", 1997): triangles that reach behind the camera
need no clipping, and a sample meets a face exactly if a ray through it does. All of it is double
precision without fused or reordered operations, so that every machine finds the same.

A point of the scene is seen at (U / W, V / W), in pixels from the picture's upper left corner, and
W is its depth: its distance from the camera along the camera's axis.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# Nothing is nearer to the camera. What lies behind this depth takes no part in finding the pixels
# that a triangle may cover, where a perspective division would fail.
_NEAR = 1e-3
_SLACK = 1e-6  # pixels by which rounding may misplace a bound; the edge functions decide

# Columns of a prepared triangle: three edge functions a u + b v + c, 1 / |determinant|, and bounds.
_INVERSE, _LEFT, _RIGHT, _TOP, _BOTTOM = 9, 10, 11, 12, 13
COLUMNS = 14


def _compiled(function: Callable) -> Any:
    """Compiles it when it is called first, for all processes: numba keeps the result in a file.

    That lies beside this module, else in the user's cache folder (NUMBA_CACHE_DIR names another).
    Where no such folder can be written, each process compiles for itself.
    """
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder
        return numba.njit(error_model="numpy")(function)


@_compiled
def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) float32 unit normals of faces (F, 3) of vertices (V, 3); 0 of faces without area."""
    found = np.empty((len(faces), 3), np.float32)
    for f in range(len(faces)):
        p, q, r = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        x = (q[1] - p[1]) * (r[2] - p[2]) - (q[2] - p[2]) * (r[1] - p[1])
        y = (q[2] - p[2]) * (r[0] - p[0]) - (q[0] - p[0]) * (r[2] - p[2])
        z = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        length = max(math.sqrt(x * x + y * y + z * z), 1e-12)
        found[f, 0], found[f, 1], found[f, 2] = x / length, y / length, z / length
    return found


@_compiled
def prepare(
    vertices: np.ndarray, faces: np.ndarray, matrix: np.ndarray, triangles: np.ndarray
) -> None:
    """Prepares a body's triangles for `draw`.

    Args:
        vertices: (V, 3) float64.
        faces: (F, 3) int32.
        matrix: (3, 4) from the vertices' coordinates to (U, V, W).
        triangles: (F, COLUMNS), which is filled.
    """
    seen = np.empty((len(vertices), 3))
    for i in range(len(vertices)):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        for k in range(3):
            seen[i, k] = matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z + matrix[k, 3]
    for f in range(len(faces)):
        triangle = triangles[f]
        left = top = np.inf
        right = bottom = -np.inf
        for k in range(3):
            p, q = seen[faces[f, k]], seen[faces[f, (k + 1) % 3]]
            if p[2] > _NEAR:
                u, v = p[0] / p[2], p[1] / p[2]
                left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
            if (p[2] > _NEAR) != (q[2] > _NEAR):
                share = (_NEAR - p[2]) / (q[2] - p[2])
                u = (p[0] + share * (q[0] - p[0])) / _NEAR
                v = (p[1] + share * (q[1] - p[1])) / _NEAR
                left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
        triangle[_LEFT], triangle[_RIGHT] = left - _SLACK, right + _SLACK
        triangle[_TOP], triangle[_BOTTOM] = top - _SLACK, bottom + _SLACK
        p, q, r = seen[faces[f, 0]], seen[faces[f, 1]], seen[faces[f, 2]]
        # The corner products: two faces with a common edge get exactly opposite numbers for it.
        a, b, c = q[1] * r[2] - q[2] * r[1], q[2] * r[0] - q[0] * r[2], q[0] * r[1] - q[1] * r[0]
        determinant = p[0] * a + p[1] * b + p[2] * c
        if determinant == 0:  # seen from its side
            triangle[_LEFT], triangle[_RIGHT] = np.inf, -np.inf
            continue
        sign = 1.0 if determinant > 0 else -1.0
        triangle[0], triangle[1], triangle[2] = sign * a, sign * b, sign * c
        triangle[3] = sign * (r[1] * p[2] - r[2] * p[1])
        triangle[4] = sign * (r[2] * p[0] - r[0] * p[2])
        triangle[5] = sign * (r[0] * p[1] - r[1] * p[0])
        triangle[6] = sign * (p[1] * q[2] - p[2] * q[1])
        triangle[7] = sign * (p[2] * q[0] - p[0] * q[2])
        triangle[8] = sign * (p[0] * q[1] - p[1] * q[0])
        triangle[_INVERSE] = sign / determinant


@_compiled
def draw(
    triangles: np.ndarray,
    first: int,
    row_of: np.ndarray,
    offsets: np.ndarray,
    nearness: np.ndarray,
    face: np.ndarray,
) -> None:
    """Puts triangles into the buffers where nothing nearer is.

    Args:
        triangles: (F, COLUMNS) that `prepare` has filled.
        first: the number of the first of them; the others follow.
        row_of: (H, W) int32, the buffers' row of a pixel; -1 of pixels that have none.
        offsets: (S, 2) the samples of a pixel, right and down from its centre, in pixels.
        nearness: (N, S) 1 / depth of what is seen, 0 of nothing.
        face: (N, S) int32, its number.
    """
    height, width = row_of.shape
    reach_u, reach_v = np.abs(offsets[:, 0]).max(), np.abs(offsets[:, 1]).max()
    for t in range(len(triangles)):
        triangle = triangles[t]
        left = max(0.0, math.ceil(triangle[_LEFT] - 0.5 - reach_u))
        right = min(width - 1.0, math.floor(triangle[_RIGHT] - 0.5 + reach_u))
        top = max(0.0, math.ceil(triangle[_TOP] - 0.5 - reach_v))
        bottom = min(height - 1.0, math.floor(triangle[_BOTTOM] - 0.5 + reach_v))
        if right < left or bottom < top:
            continue
        a0, b0, c0 = triangle[0], triangle[1], triangle[2]
        a1, b1, c1 = triangle[3], triangle[4], triangle[5]
        a2, b2, c2 = triangle[6], triangle[7], triangle[8]
        inverse = triangle[_INVERSE]
        for i in range(int(top), int(bottom) + 1):
            low, high = left, right
            # Where the edge functions change their sign in this row of pixels.
            for k in range(0, _INVERSE, 3):
                a, b = triangle[k], triangle[k + 1]
                most = b * (i + 0.5) + triangle[k + 2] + abs(b) * reach_v
                if a > 0:
                    low = max(low, -most / a - 0.5 - reach_u - _SLACK)
                elif a < 0:
                    high = min(high, -most / a - 0.5 + reach_u + _SLACK)
                elif most < 0:
                    high = -1.0
            if low > high:
                continue
            for j in range(math.ceil(low), math.floor(high) + 1):
                row = row_of[i, j]
                if row < 0:
                    continue
                for s in range(len(offsets)):
                    u, v = j + 0.5 + offsets[s, 0], i + 0.5 + offsets[s, 1]
                    e0 = a0 * u + (b0 * v + c0)
                    e1 = a1 * u + (b1 * v + c1)
                    e2 = a2 * u + (b2 * v + c2)
                    if e0 >= 0 and e1 >= 0 and e2 >= 0:
                        near = (e0 + e1 + e2) * inverse
                        if near > nearness[row, s]:
                            nearness[row, s] = near
                            face[row, s] = first + t


@_compiled
def light(
    normals: np.ndarray,
    albedos: np.ndarray,
    direction: np.ndarray,
    ambient: np.ndarray,
    diffuse: np.ndarray,
    colours: np.ndarray,
) -> None:
    """Fills the linear colours (F, 3) of a body's faces: Lambert's law, without shadows.

    Args:
        normals: (F, 3) float32 and
        albedos: (F, 3) float32 of the faces.
        direction: (3,) towards the light, in the coordinates of the normals.
        ambient: (3,) and
        diffuse: (3,) light.
        colours: (F, 3) float32, which is filled.
    """
    x, y, z = direction[0], direction[1], direction[2]
    for f in range(len(normals)):
        cosine = max(normals[f, 0] * x + normals[f, 1] * y + normals[f, 2] * z, 0.0)
        for k in range(3):
            colours[f, k] = albedos[f, k] * (ambient[k] + cosine * diffuse[k])


@_compiled
def colour(
    row_of: np.ndarray,
    offsets: np.ndarray,
    face: np.ndarray,
    faces: np.ndarray,
    view: np.ndarray,
    position: np.ndarray,
    ground: np.ndarray,
    waves: np.ndarray,
    picture: np.ndarray,
) -> None:
    """Fills the pixels that have a row with the mean colour of their samples.

    Args:
        row_of: (H, W) as in `draw`.
        offsets: (S, 2) as in `draw`.
        face: (N, S) that `draw` has filled.
        faces: (F, 3) float32 linear colours of the faces.
        view: (3, 3) from (u, v, 1) to the direction in which a point of the picture is seen.
        position: (3,) of the camera.
        ground: (2, 3) the two colours of the table where nothing is seen.
        waves: (2, 3) of its grain, see `scene.Table`; all 0 of one that has none.
        picture: (H, W, 3) float32.
    """
    height, width = row_of.shape
    samples = len(offsets)
    grained = np.any(waves != 0)
    for i in range(height):
        for j in range(width):
            row = row_of[i, j]
            if row < 0:
                continue
            red = green = blue = 0.0
            for s in range(samples):
                f = face[row, s]
                if f >= 0:
                    red, green, blue = red + faces[f, 0], green + faces[f, 1], blue + faces[f, 2]
                    continue
                mix = 0.5
                if grained:
                    u, v = j + 0.5 + offsets[s, 0], i + 0.5 + offsets[s, 1]
                    x = view[0, 0] * u + view[0, 1] * v + view[0, 2]
                    y = view[1, 0] * u + view[1, 1] * v + view[1, 2]
                    z = view[2, 0] * u + view[2, 1] * v + view[2, 2]
                    # Where the horizon or what is above it is seen, the table is far away.
                    steep = min(z, -0.05 * math.sqrt(x * x + y * y + z * z))
                    x, y = position[0] - position[2] / steep * x, position[1] - position[2] / steep * y
                    bend = math.sin(waves[1, 0] * x + waves[1, 1] * y + waves[1, 2])
                    grain = math.sin(waves[0, 0] * x + waves[0, 1] * y + waves[0, 2] + 2 * bend)
                    mix = 0.5 + 0.5 * grain
                red += ground[0, 0] + mix * (ground[1, 0] - ground[0, 0])
                green += ground[0, 1] + mix * (ground[1, 1] - ground[0, 1])
                blue += ground[0, 2] + mix * (ground[1, 2] - ground[0, 2])
            picture[i, j, 0] = red / samples
            picture[i, j, 1] = green / samples
            picture[i, j, 2] = blue / samples


@_compiled
def number_edges(picture: np.ndarray, contrast: float, row_of: np.ndarray) -> int:
    """Numbers the pixels that differ from a neighbour beside, above or below by over `contrast`.

    The difference is of display values, summed over the channels.

    Args:
        picture: (H, W, 3) linear colours.
        contrast: the bound.
        row_of: (H, W) int32, filled with numbers from 0 on; −1 of the other pixels.

    Returns:
        How many there are.
    """
    height, width = row_of.shape
    shown = np.sqrt(picture)
    row_of[:] = -1
    for i in range(height):
        for j in range(width):
            for k, m in ((i, j + 1), (i + 1, j)):
                if k < height and m < width:
                    total = 0.0
                    for channel in range(3):
                        total += abs(shown[i, j, channel] - shown[k, m, channel])
                    if total > contrast:
                        row_of[i, j] = row_of[k, m] = 0
    count = 0
    for i in range(height):
        for j in range(width):
            if row_of[i, j] == 0:
                row_of[i, j] = count
                count += 1
    return count
