"""Solids as columns: where a grid of parallel lines runs inside a mesh.

A line enters a solid through a face that looks against it and leaves it through one that looks
along it. What is between two crossings is inside if more of those before it enter than leave, or
more of those behind it leave than enter. Of a closed mesh both are the same, also where solids
reach into each other; a missing face costs no more than what is behind it.
"""

import dataclasses

import numpy as np

from data_prep.rendering.compiled import compiled


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where N² lines along an axis are inside a mesh; line i N + j is at place i of the first axis.

    Attributes:
        starts: (N² + 1) int, of the intervals of each line in the others:
        lower, upper: (M,) their ends, in order.
    """

    starts: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def columns(
    vertices: np.ndarray,
    faces: np.ndarray,
    axes: np.ndarray,
    corner: np.ndarray,
    step: np.ndarray,
    count: int,
) -> Columns:
    """Runs lines through a mesh.

    Args:
        faces: (F, 3), counter-clockwise from outside.
        axes: (3,) the two across the lines, then the one along them, right-handed.
        corner: (2,) where the first line is, across.
        step: (2,) from line to line.
        count: N, of the lines along either axis.
    """
    corners = np.ascontiguousarray(vertices[faces][:, :, axes], np.float64)
    found = np.array(_crossings(corners, corner, step, count)).reshape(-1, 3)
    line, height, change = found[np.lexsort((found[:, 1], found[:, 0]))].T
    line = line.astype(int)
    entered = np.cumsum(change)
    total = np.bincount(line, change, count * count)
    entered -= (np.cumsum(total) - total)[line]  # from the first crossing of the line on
    inside = (entered > 0) | (entered > total[line])
    inside[np.flatnonzero(np.diff(line, append=-1))] = False  # behind the last one
    opens = inside & ~np.roll(inside, 1)
    closes = np.roll(inside, 1) & ~inside
    starts = np.searchsorted(line[opens], np.arange(count * count + 1))
    return Columns(starts, height[opens], height[closes])


@compiled
def _crossings(
    corners: np.ndarray, corner: np.ndarray, step: np.ndarray, count: int
) -> list[tuple[float, float, float]]:
    """Line, height, and 1 or −1, of each place where lines enter or leave triangles (F, 3, 3)."""
    found = [(0.0, 0.0, 0.0) for _ in range(0)]
    for f in range(len(corners)):
        p, q, r = corners[f, 0], corners[f, 1], corners[f, 2]
        area = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        if area == 0:
            continue
        first = max(0, int(np.ceil((min(p[0], q[0], r[0]) - corner[0]) / step[0])))
        last = min(count - 1, int(np.floor((max(p[0], q[0], r[0]) - corner[0]) / step[0])))
        low = max(0, int(np.ceil((min(p[1], q[1], r[1]) - corner[1]) / step[1])))
        high = min(count - 1, int(np.floor((max(p[1], q[1], r[1]) - corner[1]) / step[1])))
        for i in range(first, last + 1):
            x = corner[0] + i * step[0]
            for j in range(low, high + 1):
                y = corner[1] + j * step[1]
                a = ((q[0] - x) * (r[1] - y) - (q[1] - y) * (r[0] - x)) / area
                b = ((r[0] - x) * (p[1] - y) - (r[1] - y) * (p[0] - x)) / area
                c = 1 - a - b
                if a >= 0 and b >= 0 and c >= 0:
                    height = a * p[2] + b * q[2] + c * r[2]
                    found.append((float(i * count + j), height, -1.0 if area > 0 else 1.0))
    return found


def compare(a: Columns, b: Columns, near: float) -> np.ndarray:
    """Compares two solids line by line.

    Args:
        a, b: of the same lines.
        near: how close is touching, and how deep is in each other.

    Returns:
        (N², 5) float64 of each line: the length that is inside both; whether A lies on B, and
        whether B lies on A; whether B is in A's way along the axis, and against it. Where they are
        in each other already, nothing is in the way: one of them is drawn too large there.
    """
    counts = np.diff(a.starts), np.diff(b.starts)
    lines = np.repeat(np.arange(len(counts[0])), counts[0])  # of A's intervals
    of_each = counts[1][lines]  # how many of B are on the line of each of them
    i = np.repeat(np.arange(len(lines)), of_each)
    j = np.arange(len(i)) + np.repeat(b.starts[lines] - np.cumsum(of_each) + of_each, of_each)
    common = np.minimum(a.upper[i], b.upper[j]) - np.maximum(a.lower[i], b.lower[j])
    found = np.zeros((len(counts[0]), 5))
    on, under = a.lower[i] - b.upper[j], b.lower[j] - a.upper[i]
    for k, each in enumerate((np.maximum(common, 0), np.abs(on) <= near, np.abs(under) <= near)):
        found[:, k] = np.bincount(lines[i], each, len(found))
    found[:, 1:3] = found[:, 1:3] > 0
    free = np.flatnonzero((counts[0] > 0) & (counts[1] > 0) & (found[:, 0] <= near))
    found[free, 3] = b.upper[b.starts[free + 1] - 1] > a.lower[a.starts[free]] + near
    found[free, 4] = b.lower[b.starts[free]] < a.upper[a.starts[free + 1] - 1] - near
    return found
