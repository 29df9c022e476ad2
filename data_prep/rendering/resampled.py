"""Pictures seen from elsewhere: on a table, or at given places; compiled by numba."""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def compiled(function: Callable) -> Any:
    """Compiles it when it is called first, for all processes: numba keeps the result in a file.

    That lies beside the function's module, else in the user's cache folder (NUMBA_CACHE_DIR names
    another). Where no such folder can be written, each process compiles for itself. Nothing is
    reordered or fused, so results do not depend on the processor.
    """
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder
        return numba.njit(error_model="numpy")(function)


_FAR = 40.0  # from the table's middle, where it ends


@compiled
def lay(
    texture: np.ndarray,
    repeats: float,
    view: np.ndarray,
    position: np.ndarray,
    level: np.ndarray,
    seen: np.ndarray,
) -> None:
    """Fills a picture with the table z = 0, on which a texture lies.

    Args:
        texture: (T, T, 3) float32 linear albedos; its middle is where x = y = 0, and beyond its
            edges it is mirrored.
        repeats: of it in a length of 1.
        view: (3, 3) from (u, v, 1) to the direction in which a point of the picture is seen.
        position: (3,) of the camera.
        level: (3,) how bright the light makes it.
        seen: (H, W, 3) float32.
    """
    side = texture.shape[0]
    scale = repeats * side
    for i in range(seen.shape[0]):
        for j in range(seen.shape[1]):
            u, v = j + 0.5, i + 0.5
            dx = view[0, 0] * u + view[0, 1] * v + view[0, 2]
            dy = view[1, 0] * u + view[1, 1] * v + view[1, 2]
            dz = view[2, 0] * u + view[2, 1] * v + view[2, 2]
            # The horizon and what is above it show the table's far end.
            far = -position[2] / min(dz, -1e-9)
            most = _FAR / math.sqrt(dx * dx + dy * dy + 1e-12)
            far = min(far, most)
            x = (position[0] + far * dx) * scale + side / 2 - 0.5
            y = (position[1] + far * dy) * scale + side / 2 - 0.5
            _mix(texture, x, y, seen[i, j])
            for k in range(3):
                seen[i, j, k] *= level[k]


@compiled
def resample(picture: np.ndarray, x: np.ndarray, y: np.ndarray, seen: np.ndarray) -> None:
    """Fills `seen` (H, W, 3) with a picture (h, w, 3) at places x, y (H, W), in pixels of it.

    Bilinear; a pixel's middle is a whole number. Beyond its edges the picture is mirrored.
    """
    for i in range(seen.shape[0]):
        for j in range(seen.shape[1]):
            _mix(picture, x[i, j], y[i, j], seen[i, j])


@compiled
def _mix(picture: np.ndarray, x: float, y: float, out: np.ndarray) -> None:
    height, width = picture.shape[0], picture.shape[1]
    left, top = math.floor(x), math.floor(y)
    u, v = x - left, y - top
    j0, j1 = _mirrored(left, width), _mirrored(left + 1, width)
    i0, i1 = _mirrored(top, height), _mirrored(top + 1, height)
    for k in range(3):
        upper = (1 - u) * picture[i0, j0, k] + u * picture[i0, j1, k]
        lower = (1 - u) * picture[i1, j0, k] + u * picture[i1, j1, k]
        out[k] = (1 - v) * upper + v * lower


@compiled
def _mirrored(place: float, side: int) -> int:
    at = int(place) % (2 * side)
    return at if at < side else 2 * side - 1 - at
