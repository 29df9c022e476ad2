from collections.abc import Callable
from pathlib import Path

import numpy as np


def rewrite(path: Path, **changes: Callable | None) -> None:
    """Changes arrays of an .npz file: to what a function makes of a copy; None removes one."""
    with np.load(path) as file:
        arrays = dict(file)
    for name, change in changes.items():
        array = arrays.pop(name)
        if change is not None:
            arrays[name] = change(array.copy())
    np.savez(path, **arrays)


def filled(index, value) -> Callable:
    def change(array):
        array[index] = value
        return array

    return change
