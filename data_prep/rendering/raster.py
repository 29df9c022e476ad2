"""A rasteriser with a depth buffer, compiled by numba: which face is seen at which samples.

The edge functions and depths are those of 2D homogeneous rasterisation (Olano and Greer, "Triangle
Scan Conversion using 2D Homogeneous Coordinates", 1997): triangles that reach behind the camera
need no clipping, and a sample meets a face exactly if a ray through it does. All of it is in
double precision.

A point of the scene is seen at (U / W, V / W), in pixels from the picture's upper left corner, and
W is its depth: its distance from the camera along the camera's axis.
"""

import math

import numpy as np

from data_prep.rendering.resampled import compiled

# Nothing is nearer to the camera. What lies behind this depth takes no part in finding the pixels
# that a triangle may cover, where a perspective division would fail.
_NEAR = 1e-3
_FLAT = 1e-6  # an edge that rises less than this a pixel says nothing of where a row meets it
_WIDE = 4  # pixels, from which on it pays to find a row's pixels before looking at them
_SLACK = 1e-4  # pixels by which rounding may misplace a bound; the edge functions decide

_SHARP = 5  # times that a highlight's cosine is squared: it is raised to the 32nd power

_STEEP = 0.05  # the sine of the least angle at which the table is seen
# The sine's Taylor series.
_S1, _S3, _S5, _S7, _S9, _S11 = ((-1) ** k / math.factorial(2 * k + 1) for k in range(6))

# Columns of a prepared triangle: three edge functions a u + b v + c, 1 / |determinant|, and the
# pixels, from and to, in which a sample may be.
_INVERSE, _LEFT, _RIGHT, _TOP, _BOTTOM = 9, 10, 11, 12, 13
COLUMNS = 14
_GRID = 4  # lines a pixel, on which all samples lie


@compiled
def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) float32 unit normals of faces (F, 3) of vertices (V, 3); 0 of faces without area."""
    directions = np.empty((len(faces), 3), np.float32)
    for f in range(len(faces)):
        p, q, r = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        x = (q[1] - p[1]) * (r[2] - p[2]) - (q[2] - p[2]) * (r[1] - p[1])
        y = (q[2] - p[2]) * (r[0] - p[0]) - (q[0] - p[0]) * (r[2] - p[2])
        z = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        length = max(math.sqrt(x * x + y * y + z * z), 1e-12)
        directions[f, 0], directions[f, 1], directions[f, 2] = x / length, y / length, z / length
    return directions


@compiled
def prepare(
    vertices: np.ndarray,
    faces: np.ndarray,
    closed: np.ndarray,
    normals: np.ndarray,
    albedos: np.ndarray,
    pose: np.ndarray,
    world: np.ndarray,
    light: np.ndarray,
    eye: np.ndarray,
    size: int,
    first: int,
    count: int,
    triangles: np.ndarray,
    numbers: np.ndarray,
    colours: np.ndarray,
) -> int:
    """Prepares those of a body's triangles for `draw` that may be seen at a sample.

    Args:
        vertices: (V, 3) float64.
        faces: (F, 3) int32.
        closed: (F,) bool of a face of a closed surface, whose inner side nobody outside can see.
        normals, albedos: (F, 3) float32 of the faces.
        pose: (4, 4) from the vertices' coordinates to the world's.
        world: (3, 4) from the world's coordinates to (U, V, W).
        light: (4, 3) rows: the direction to the light in the world, the ambient light, the
            diffuse one and the highlights' (Blinn and Phong's, one to a face; 0 is none).
        eye: (3,) of the camera in the world.
        size: height and width of the picture.
        first: the number of the first face.
        count: how many triangles there are of other bodies.
        triangles, numbers: (T, COLUMNS), and (T,) int32 of faces; those of this body are added.
        colours: (≥ first + F, 3) float32 linear colours of the faces, by Lambert's law without
            shadows; filled for the triangles that are added.

    Returns:
        How many triangles there are now.
    """
    matrix, towards, camera = np.zeros((3, 4)), np.zeros(3), np.zeros(3)
    for k in range(3):
        for m in range(4):
            for n in range(4):
                matrix[k, m] += world[k, n] * pose[n, m]
        for m in range(3):
            towards[k] += light[0, m] * pose[m, k]
            camera[k] += (eye[m] - pose[m, 3]) * pose[m, k]
    glossy = np.any(light[3] != 0)
    corners = np.empty((len(vertices), 5))  # U, V, W, u, v
    for i in range(len(vertices)):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        for k in range(3):
            corners[i, k] = matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z + matrix[k, 3]
        corners[i, 3] = corners[i, 0] / corners[i, 2]
        corners[i, 4] = corners[i, 1] / corners[i, 2]
    outside = True
    for f in range(len(faces)):
        if closed[f]:
            for k in range(3):
                outside = outside and corners[faces[f, k], 2] > _NEAR
    for f in range(len(faces)):
        p, q, r = faces[f, 0], faces[f, 1], faces[f, 2]
        pu, pv, pw = corners[p, 0], corners[p, 1], corners[p, 2]
        qu, qv, qw = corners[q, 0], corners[q, 1], corners[q, 2]
        ru, rv, rw = corners[r, 0], corners[r, 1], corners[r, 2]
        # Products of two corners: faces with a common edge get exactly opposite numbers for it.
        a0, b0, c0 = qv * rw - qw * rv, qw * ru - qu * rw, qu * rv - qv * ru
        determinant = pu * a0 + pv * b0 + pw * c0
        if determinant == 0 or (determinant > 0 and outside and closed[f]):
            continue  # seen from its side, or from within
        left, right, top, bottom = _bounds(corners, faces[f])
        left, right = max(left - _SLACK, 0.0), min(right + _SLACK, float(size))
        top, bottom = max(top - _SLACK, 0.0), min(bottom + _SLACK, float(size))
        if (
            left > right
            or top > bottom
            or math.ceil(_GRID * left) > _GRID * right
            or math.ceil(_GRID * top) > _GRID * bottom
        ):
            continue
        sign = 1.0 if determinant > 0 else -1.0
        edge1 = rv * pw - rw * pv, rw * pu - ru * pw, ru * pv - rv * pu
        edge2 = pv * qw - pw * qv, pw * qu - pu * qw, pu * qv - pv * qu
        for k, edge in enumerate(((a0, b0, c0), edge1, edge2)):
            for m in range(3):
                triangles[count, 3 * k + m] = sign * edge[m]
        triangles[count, _INVERSE] = sign / determinant
        triangles[count, _LEFT], triangles[count, _RIGHT] = left, right
        triangles[count, _TOP], triangles[count, _BOTTOM] = top, bottom
        numbers[count] = first + f
        count += 1
        cosine = (
            normals[f, 0] * towards[0] + normals[f, 1] * towards[1] + normals[f, 2] * towards[2]
        )
        for k in range(3):
            lit = light[1, k] + max(cosine, 0.0) * light[2, k]
            colours[first + f, k] = albedos[f, k] * lit
        if glossy and cosine > 0:
            x, y, z = (
                camera[0] - vertices[p, 0],
                camera[1] - vertices[p, 1],
                camera[2] - vertices[p, 2],
            )
            far = math.sqrt(x * x + y * y + z * z)
            x, y, z = x / far + towards[0], y / far + towards[1], z / far + towards[2]
            shine = (normals[f, 0] * x + normals[f, 1] * y + normals[f, 2] * z) / max(
                math.sqrt(x * x + y * y + z * z), 1e-12
            )
            shine = max(shine, 0.0)
            for _ in range(_SHARP):
                shine *= shine
            for k in range(3):
                colours[first + f, k] += shine * light[3, k]
    return count


@compiled
def _bounds(corners: np.ndarray, face: np.ndarray) -> tuple[float, float, float, float]:
    """Bounds of what is in front of the camera of a face (3,)."""
    left = top = np.inf
    right = bottom = -np.inf
    for k in range(3):
        p, q = face[k], face[(k + 1) % 3]
        pw, qw = corners[p, 2], corners[q, 2]
        if pw > _NEAR:
            u, v = corners[p, 3], corners[p, 4]
            left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
        if (pw > _NEAR) != (qw > _NEAR):
            share = (_NEAR - pw) / (qw - pw)
            u = (corners[p, 0] + share * (corners[q, 0] - corners[p, 0])) / _NEAR
            v = (corners[p, 1] + share * (corners[q, 1] - corners[p, 1])) / _NEAR
            left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    return left, right, top, bottom


@compiled
def draw(
    triangles: np.ndarray,
    numbers: np.ndarray,
    before: np.ndarray,
    columns: np.ndarray,
    spread: float,
    nearness: np.ndarray,
    face: np.ndarray,
) -> None:
    """Puts triangles into the buffers of N chosen pixels where nothing nearer is.

    Args:
        triangles, numbers: as `prepare` gives them.
        before: (H, W + 1) int32, how many pixels are chosen before a place, row by row; and
        columns: (N,) int32, theirs.
        spread: how far to both sides of a pixel's middle and above and below its samples lie.
        nearness: (N, S) 1 / depth of what is seen, 0 of nothing; S is 4, or 1 where `spread` is 0.
        face: (N, S) int32, its number.
    """
    height, width = before.shape[0], before.shape[1] - 1
    samples = nearness.shape[1]
    for t in range(len(triangles)):
        left = max(0, math.ceil(triangles[t, _LEFT] - 0.5 - spread))
        right = min(width - 1, math.floor(triangles[t, _RIGHT] - 0.5 + spread))
        top = max(0, math.ceil(triangles[t, _TOP] - 0.5 - spread))
        bottom = min(height - 1, math.floor(triangles[t, _BOTTOM] - 0.5 + spread))
        if left > right or top > bottom:
            continue
        a0, b0, c0 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        a1, b1, c1 = triangles[t, 3], triangles[t, 4], triangles[t, 5]
        a2, b2, c2 = triangles[t, 6], triangles[t, 7], triangles[t, 8]
        inverse = triangles[t, _INVERSE]
        # The most by which an edge function is larger at a sample than in the pixel's middle.
        m0, m1 = spread * (abs(a0) + abs(b0)), spread * (abs(a1) + abs(b1))
        m2 = spread * (abs(a2) + abs(b2))
        wide = right - left >= _WIDE
        if wide:
            from0, to0, slope0 = _line(a0, b0, c0 + m0)
            from1, to1, slope1 = _line(a1, b1, c1 + m1)
            from2, to2, slope2 = _line(a2, b2, c2 + m2)
        for i in range(top, bottom + 1):
            v = i + 0.5
            begin, end = left, right
            if wide:
                low = max(from0 + slope0 * v, from1 + slope1 * v, from2 + slope2 * v, float(left))
                high = min(to0 + slope0 * v, to1 + slope1 * v, to2 + slope2 * v, float(right))
                if low > high:
                    continue
                begin, end = math.ceil(low), math.floor(high)
            r0, r1, r2 = b0 * v + c0, b1 * v + c1, b2 * v + c2
            for n in range(before[i, begin], before[i, end + 1]):
                u = columns[n] + 0.5
                e0, e1, e2 = a0 * u + r0, a1 * u + r1, a2 * u + r2
                if e0 < -m0 or e1 < -m1 or e2 < -m2:
                    continue
                for s in range(samples):
                    right_by, down_by = (2 * (s & 1) - 1) * spread, ((s & 2) - 1) * spread
                    d0 = e0 + (a0 * right_by + b0 * down_by)
                    d1 = e1 + (a1 * right_by + b1 * down_by)
                    d2 = e2 + (a2 * right_by + b2 * down_by)
                    near = (d0 + d1 + d2) * inverse
                    if d0 >= 0 and d1 >= 0 and d2 >= 0 and near > nearness[n, s]:
                        nearness[n, s] = near
                        face[n, s] = numbers[t]


@compiled
def _line(a: float, b: float, c: float) -> tuple[float, float, float]:
    """Where a u + b v + c may be at least 0: for columns j + 0.5 from … to, each plus slope v."""
    if abs(a) < _FLAT * abs(b) or a == 0:
        return -np.inf, np.inf, 0.0  # all of a row, as good as
    at = -c / a - 0.5
    return (at - _SLACK, np.inf, -b / a) if a > 0 else (-np.inf, at + _SLACK, -b / a)


@compiled
def colour(
    before: np.ndarray,
    columns: np.ndarray,
    spread: float,
    face: np.ndarray,
    colours: np.ndarray,
    view: np.ndarray,
    position: np.ndarray,
    ground: np.ndarray,
    waves: np.ndarray,
    backdrop: np.ndarray,
    picture: np.ndarray,
) -> None:
    """Fills the chosen pixels with the mean colour of their samples.

    Args:
        before, columns, spread: as in `draw`.
        face: (N, S) that `draw` has filled.
        colours: (F, 3) float32 linear colours of the faces.
        view: (3, 3) from (u, v, 1) to the direction in which a point of the picture is seen.
        position: (3,) of the camera.
        ground: (2, 3) the two colours of the table where nothing is seen.
        waves: (2, 3) of its grain, see `scene.Tabletop`; all 0 of one that has none.
        backdrop: (H, W, 3) float32 linear colours, seen there instead of the table; (0, 0, 3) is
            none.
        picture: (H, W, 3) float32.
    """
    samples = face.shape[1]
    grained = np.any(waves != 0)
    total = np.empty(3)
    for i in range(len(before)):
        for n in range(before[i, 0], before[i, -1]):
            j = columns[n]
            total[:] = 0
            for s in range(samples):
                f = face[n, s]
                if f >= 0:
                    for k in range(3):
                        total[k] += colours[f, k]
                    continue
                if len(backdrop):
                    for k in range(3):
                        total[k] += backdrop[i, j, k]
                    continue
                mix = 0.5
                if grained:
                    u = j + 0.5 + (2 * (s & 1) - 1) * spread
                    v = i + 0.5 + ((s & 2) - 1) * spread
                    x = view[0, 0] * u + view[0, 1] * v + view[0, 2]
                    y = view[1, 0] * u + view[1, 1] * v + view[1, 2]
                    z = view[2, 0] * u + view[2, 1] * v + view[2, 2]
                    if z > 0 or z * z < _STEEP**2 * (x * x + y * y + z * z):
                        # The horizon or what is above it: the table is far away.
                        z = -_STEEP * math.sqrt(x * x + y * y + z * z)
                    far = -position[2] / z
                    x, y = position[0] + far * x, position[1] + far * y
                    bend = _sine(waves[1, 0] * x + waves[1, 1] * y + waves[1, 2])
                    grain = _sine(waves[0, 0] * x + waves[0, 1] * y + waves[0, 2] + 2 * bend)
                    mix = 0.5 + 0.5 * grain
                for k in range(3):
                    total[k] += ground[0, k] + mix * (ground[1, k] - ground[0, k])
            for k in range(3):
                picture[i, j, k] = total[k] / samples


@compiled
def _sine(x: float) -> float:
    """The sine to 1e-7, of any machine the same: a Taylor series within a quarter turn."""
    turns = x * (0.5 / math.pi) - 0.25
    y = math.pi * (2 * abs(turns - math.floor(turns) - 0.5) - 0.5)  # of the same sine as x
    z = y * y
    return y * (_S1 + z * (_S3 + z * (_S5 + z * (_S7 + z * (_S9 + z * _S11)))))


@compiled
def choose_edges(
    picture: np.ndarray, contrast: float, before: np.ndarray, columns: np.ndarray
) -> int:
    """Chooses the pixels that differ from a neighbour beside, above or below by over `contrast`.

    The difference is of display values, summed over the channels.

    Args:
        picture: (H, W, 3) linear colours.
        before, columns: (H, W + 1) and (H * W,) as in `draw`, which are filled.

    Returns:
        How many there are.
    """
    height, width = picture.shape[:2]
    brightness = np.sqrt(picture)
    right = np.zeros((height, width), np.bool_)
    below = np.zeros((height, width), np.bool_)
    for i in range(height):
        for j in range(width - 1):
            right[i, j] = _differ(brightness[i, j], brightness[i, j + 1]) > contrast
    for i in range(height - 1):
        for j in range(width):
            below[i, j] = _differ(brightness[i, j], brightness[i + 1, j]) > contrast
    count = 0
    for i in range(height):
        for j in range(width):
            before[i, j] = count
            columns[count] = j
            chosen = right[i, j] | below[i, j]
            count += chosen | (j > 0 and right[i, j - 1]) | (i > 0 and below[i - 1, j])
        before[i, width] = count
    return count


@compiled
def _differ(a: np.ndarray, b: np.ndarray) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(a[2] - b[2])
