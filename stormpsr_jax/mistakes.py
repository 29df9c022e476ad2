"""Mistakes in what a user gave: all of them at once, a line each."""

from collections.abc import Sequence

MAX_SHOWN = 20


def raise_all(mistakes: Sequence[str]) -> None:
    """Raises one ValueError with a line for each mistake, if there are any.

    Of more than `MAX_SHOWN` the rest is counted.
    """
    if not mistakes:
        return
    lines = list(mistakes[:MAX_SHOWN])
    if (more := len(mistakes) - MAX_SHOWN) > 0:
        lines.append(f"and {more} more mistakes")
    raise ValueError("\n".join(lines))
