"""Mistakes in what a user gave: all of them at once, a line each."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

MAX_SHOWN = 20


class Mistakes(ValueError):
    """One or more mistakes: a line for each, of more than `MAX_SHOWN` the rest is counted."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        shown = list(lines[:MAX_SHOWN])
        if (more := len(lines) - MAX_SHOWN) > 0:
            shown.append(f"and {more} more mistakes")
        super().__init__("\n".join(shown))

    def __reduce__(self):
        return type(self), (self.lines,)


def raise_all(mistakes: Sequence[str]) -> None:
    """Raises `Mistakes`, a ValueError with a line for each mistake, if there are any."""
    if mistakes:
        raise Mistakes(mistakes)


def lines_of(error: ValueError) -> list[str]:
    """Returns the mistakes of an error, those that its text only counts too."""
    return list(error.lines) if isinstance(error, Mistakes) else [str(error)]


def for_each(items: Iterable[tuple[Any, ...]], action: Callable[..., Any]) -> list[Any]:
    """Returns action(*item) for each item; raises the mistakes of all of them together."""
    results, mistakes = [], []
    for item in items:
        try:
            results.append(action(*item))
        except ValueError as error:
            mistakes += lines_of(error)
    raise_all(mistakes)
    return results
