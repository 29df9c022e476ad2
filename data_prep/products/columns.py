"""Solids as columns, compiled by numba: where a grid of parallel lines runs inside a mesh.

A line enters a solid through a face that looks against it and leaves it through one that looks
along it. What is between two crossings is inside if more of those before it enter than leave, or
more of those behind it leave than enter. Of a closed mesh both are the same, also where solids
reach into each other; a missing face costs no more than what is behind it.
"""

import numpy as np

from data_prep.rendering.compiled import compiled


@compiled
def intervals(
    vertices: np.ndarray,
    faces: np.ndarray,
    axes: np.ndarray,
    corner: np.ndarray,
    step: np.ndarray,
    count: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where lines along an axis are inside a mesh.

    Args:
        vertices: (V, 3) float64.
        faces: (F, 3) int64, counter-clockwise from outside.
        axes: (3,) int64: the two across the lines, then the one along them, right-handed.
        corner: (2,) where the first line is, across.
        step: (2,) from line to line.
        count: N, of the lines along either axis.

    Returns:
        starts (N² + 1) int64, of the intervals of line i N + j (place i of the first axis), and
        (M,) their lower and (M,) their upper ends.
    """
    u, v, w = axes[0], axes[1], axes[2]
    starts = np.zeros(count * count + 1, np.int64)
    total = 0
    heights = np.empty(0, np.float64)
    leaves = np.empty(0, np.bool_)
    filled = np.zeros(count * count, np.int64)
    for turn in range(2):  # first to count crossings, then to note them
        for f in range(len(faces)):
            p, q, r = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
            area = (q[u] - p[u]) * (r[v] - p[v]) - (q[v] - p[v]) * (r[u] - p[u])
            if area == 0:
                continue
            first = max(0, int(np.ceil((min(p[u], q[u], r[u]) - corner[0]) / step[0])))
            last = min(count - 1, int(np.floor((max(p[u], q[u], r[u]) - corner[0]) / step[0])))
            low = max(0, int(np.ceil((min(p[v], q[v], r[v]) - corner[1]) / step[1])))
            high = min(count - 1, int(np.floor((max(p[v], q[v], r[v]) - corner[1]) / step[1])))
            for i in range(first, last + 1):
                x = corner[0] + i * step[0]
                for j in range(low, high + 1):
                    y = corner[1] + j * step[1]
                    a = ((q[u] - x) * (r[v] - y) - (q[v] - y) * (r[u] - x)) / area
                    b = ((r[u] - x) * (p[v] - y) - (r[v] - y) * (p[u] - x)) / area
                    c = 1 - a - b
                    if a < 0 or b < 0 or c < 0:
                        continue
                    line = i * count + j
                    if turn:
                        at = starts[line] + filled[line]
                        heights[at] = a * p[w] + b * q[w] + c * r[w]
                        leaves[at] = area > 0
                        filled[line] += 1
                    else:
                        starts[line + 1] += 1
                        total += 1
        if not turn:
            starts = np.cumsum(starts)
            heights, leaves = np.empty(total, np.float64), np.empty(total, np.bool_)
    found = np.zeros(count * count + 1, np.int64)
    lower, upper = np.empty(total, np.float64), np.empty(total, np.float64)
    number = 0
    for line in range(count * count):
        begin, end = starts[line], starts[line + 1]
        order = np.argsort(heights[begin:end])
        entered, to_leave = 0, 0
        for k in range(begin, end):
            to_leave += 1 if leaves[k] else -1
        opened = False
        for k in range(end - begin - 1):
            here, there = begin + order[k], begin + order[k + 1]
            change = -1 if leaves[here] else 1
            entered, to_leave = entered + change, to_leave + change
            if entered <= 0 and to_leave <= 0:
                opened = False
            elif opened:
                upper[number - 1] = heights[there]
            else:
                lower[number], upper[number] = heights[here], heights[there]
                number += 1
                opened = True
        found[line + 1] = number
    return found, lower[:number], upper[:number]


@compiled
def compare(
    a_starts: np.ndarray,
    a_lower: np.ndarray,
    a_upper: np.ndarray,
    b_starts: np.ndarray,
    b_lower: np.ndarray,
    b_upper: np.ndarray,
    near: float,
) -> np.ndarray:
    """Compares two solids line by line.

    Args:
        a_starts, a_lower, a_upper: of `intervals`, of one solid, and
        b_starts, b_lower, b_upper: of the other, with the same lines.
        near: how close is touching, and how deep is in each other.

    Returns:
        (N², 5) float64 of each line: the length that is inside both; whether A lies on B, and
        whether B lies on A; whether B is in A's way along the axis, and against it. Where they are
        in each other already, nothing is in the way: one of them is drawn too large there.
    """
    lines = len(a_starts) - 1
    found = np.zeros((lines, 5))
    for line in range(lines):
        a_begin, a_end = a_starts[line], a_starts[line + 1]
        b_begin, b_end = b_starts[line], b_starts[line + 1]
        if a_begin == a_end or b_begin == b_end:
            continue
        for i in range(a_begin, a_end):
            for j in range(b_begin, b_end):
                common = min(a_upper[i], b_upper[j]) - max(a_lower[i], b_lower[j])
                found[line, 0] += max(common, 0.0)
                if abs(a_lower[i] - b_upper[j]) <= near:
                    found[line, 1] = 1
                if abs(b_lower[j] - a_upper[i]) <= near:
                    found[line, 2] = 1
        if found[line, 0] <= near:
            found[line, 3] = b_upper[b_end - 1] > a_lower[a_begin] + near
            found[line, 4] = b_lower[b_begin] < a_upper[a_end - 1] - near
    return found
