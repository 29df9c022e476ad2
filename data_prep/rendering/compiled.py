"""Functions that numba compiles: the same numbers on every machine, and compiled once for all."""

from collections.abc import Callable
from typing import Any

import numba


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
