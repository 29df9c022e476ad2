"""How far points are from others."""

import math

import numpy as np

from data_prep.rendering.compiled import compiled


@compiled
def mean_to_nearest(few: np.ndarray, others: np.ndarray) -> float:
    """The mean distance of points (P, 3) to the nearest of others (Q, 3)."""
    total = 0.0
    for i in range(len(few)):
        least = np.inf
        for j in range(len(others)):
            x, y, z = few[i, 0] - others[j, 0], few[i, 1] - others[j, 1], few[i, 2] - others[j, 2]
            least = min(least, x * x + y * y + z * z)
        total += math.sqrt(least)
    return total / len(few)


@compiled
def all_near(few: np.ndarray, others: np.ndarray, near: float) -> bool:
    """Whether each of points (P, 3) has one of others (Q, 3) nearer than `near`."""
    for i in range(len(few)):
        found = False
        for j in range(len(others)):
            x, y, z = few[i, 0] - others[j, 0], few[i, 1] - others[j, 1], few[i, 2] - others[j, 2]
            if x * x + y * y + z * z < near * near:
                found = True
                break
        if not found:
            return False
    return True
