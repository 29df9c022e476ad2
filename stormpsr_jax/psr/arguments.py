"""What functions on arrays take: steps, frames and states. Anything else is refused by name.

Without this a number that is no step or no state would be scored, or be cut to one.
"""

import collections
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Step = tuple[int, int]  # frame, step id
SWAPPED = 3  # so many ids that look like frames, and frames like ids, are no chance


def steps(name: str, values: Iterable[Sequence[Any]] | np.ndarray) -> list[Step]:
    """Returns steps, in the order in which they are given, of rows (frame, step id, …).

    Raises:
        ValueError: `values`, which `name` stands for, are not such rows, or a row has a number
            that is not whole, or below 0.
    """
    rows = values.tolist() if isinstance(values, np.ndarray) else list(values)
    found = numbers([row[:2] if isinstance(row, Sequence) else row for row in rows])
    if rows and (found.ndim != 2 or found.shape[1] < 2):
        raise ValueError(f"{name}: rows are not (frame, step id)")
    found = found[:, :2] if rows else np.zeros((0, 2))
    _check_whole(name, found, ("frame ", "step id "))
    return [(int(frame), int(step_id)) for frame, step_id in found.tolist()]


def truth_and_predicted(
    truth: Iterable[Sequence[Any]] | np.ndarray, predicted: Iterable[Sequence[Any]] | np.ndarray
) -> tuple[list[Step], list[Step]]:
    """Returns both as `steps`, which each may have once at a frame.

    Raises:
        ValueError: as `steps`; a step that is given twice; columns that are exchanged.
    """
    true, found = steps("truth", truth), steps("predicted", predicted)
    for name, its in (("truth", true), ("predicted", found)):
        if len(set(its)) < len(its):
            (frame, step_id), _ = collections.Counter(its).most_common(1)[0]
            raise ValueError(f"{name}: step {step_id} is given twice at frame {frame}")
    first = {frame for frame, _ in found}
    if len(first) >= SWAPPED and true:
        ids = {step_id for _, step_id in true}
        if min(step_id for _, step_id in found) > max(ids) and ids.issuperset(first):
            raise ValueError(
                "predicted: rows are (frame, step id), and its columns look exchanged: what stands "
                "as frame are step ids of truth"
            )
    return true, found


def rate(fps: float) -> float:
    """Returns frames per second; ValueError if they are not a positive number."""
    if not (fps > 0 and math.isfinite(fps)):
        raise ValueError(f"fps={fps} is not a positive number")
    return fps


def frames(name: str, values: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns frame numbers (N,), int64; ValueError if they are not whole, or do not ascend."""
    found = numbers(values)
    if found.shape != (len(values),):
        raise ValueError(f"{name} are not N frame numbers")
    _check_whole(name, found[:, None], ("",))
    if (down := np.flatnonzero(np.diff(found) <= 0)).size:
        at, before = down[0] + 1, found[down[0]]
        raise ValueError(f"{name} do not ascend: row {at} has {found[at]:g} after {before:g}")
    return found.astype(np.int64)


def states(
    name: str,
    values: Iterable[Sequence[Any] | np.ndarray | str] | np.ndarray,
    shape: tuple[int, int | None],
) -> np.ndarray:
    """Returns states (M, K) in {-1, 0, 1}, int8; a row may be a text of 0 and 1.

    `shape` is what they have to have, K None for any. ValueError names the row otherwise.
    """
    rows = [list(row) if isinstance(row, str) else row for row in values]
    found = numbers(rows) if rows else np.zeros((0, shape[1] or 0))
    num = shape[1] if shape[1] is not None or found.ndim < 2 else found.shape[1]
    if found.shape != (shape[0], num):
        wanted = f"({shape[0]}, {'K' if num is None else num})"
        raise ValueError(f"{name} are not states of shape {wanted}")
    if (odd := np.argwhere(~np.isin(found, (-1, 0, 1)))).size:
        row, column = odd[0]
        raise ValueError(
            f"{name}, row {row}: {found[row, column]:g} is not 1 (there), 0 (not there) or -1 "
            "(incorrect); probabilities are no states"
        )
    return found.astype(np.int8)


def numbers(values: Any) -> np.ndarray:
    """Returns an array of floats; of shape (0,) for what is none."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        return np.zeros(0)


def _check_whole(name: str, numbers: np.ndarray, columns: Sequence[str]) -> None:
    whole = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
    if not whole.all():
        row, column = np.argwhere(~whole)[0]
        said = f"{columns[column]}{numbers[row, column]:g}"
        raise ValueError(f"{name}, row {row}: {said} is not a whole number from 0 up")
