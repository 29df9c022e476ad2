"""Errors in what a user gave: all of them at once, a line each, whoever wrote what is in it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

MAX_LINE = 2000  # characters
MAX_SHOWN = 20
MAX_FOUND = 1000  # then nobody looks for more
MAX_PER_FILE = 5  # where there are several files: one must not hide what is wrong with the others


class Errors(ValueError):
    """One or more errors: a line for each, of more than `MAX_SHOWN` the rest is counted."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        # One of them may be the text of several.
        shown = [one_line(line) for text in lines[:MAX_SHOWN] for line in text.split("\n")]
        if (rest := len(lines) - MAX_SHOWN) > 0:
            shown.append(f"and {_count(rest)}")
        super().__init__("\n".join(shown))

    def __reduce__(self) -> tuple[type[Errors], tuple[tuple[str, ...]]]:
        return type(self), (self.lines,)


def visible(text: str) -> str:
    """Returns a text that a terminal shows as it is, whoever wrote it.

    What cannot be seen is written out, such as \\x1b: escape sequences, line ends, marks that turn
    the direction of writing, halves of characters.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(text: str, length: int = MAX_LINE) -> str:
    """Returns a text as a `visible` line of at most `length` characters, then it ends in "…".

    White space becomes single spaces.
    """
    shown = visible(" ".join(text[: length + 1].split()))
    return shown if len(text) <= length >= len(shown) else f"{shown[: length - 1]}…"


def tell(kind: str, text: str) -> None:
    """Prints a line "kind: text" on stderr; where that is gone, or its disk is full, nothing."""
    with contextlib.suppress(OSError):  # nobody can be told, and whoever tells has to go on
        print(f"{kind}: {one_line(text)}", file=sys.stderr, flush=True)


def raise_all(errors: Sequence[str]) -> None:
    """Raises `Errors`, a ValueError with a line for each error, if there are any."""
    if errors:
        raise Errors(errors)


def first_of(error: ValueError, place: object) -> list[str]:
    """Returns the first `MAX_PER_FILE` mistakes of a file, and in a line the number of the rest."""
    lines = lines_of(error)
    if (rest := len(lines) - MAX_PER_FILE) > 0:
        return [*lines[:MAX_PER_FILE], f"{place}: {_count(rest)}"]
    return lines


def lines_of(error: Exception) -> list[str]:
    """Returns the errors of an error, those that its text only counts too."""
    return list(error.lines) if isinstance(error, Errors) else [str(error)]


@contextlib.contextmanager
def gathering(errors: list[str]) -> Iterator[None]:
    """Adds what a ValueError inside says to the errors, and goes on behind the block."""
    try:
        yield
    except ValueError as error:
        errors += lines_of(error)


def message_of(error: BaseException) -> str:
    """Returns what an error says to people: an OSError the file and why, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _count(rest: int) -> str:
    least = "at least " if rest > MAX_FOUND - 2 * MAX_SHOWN else ""
    return f"{least}{rest} more error{'s' if rest > 1 else ''}"


def note(errors: list[str], error: ValueError) -> None:
    """Adds the lines of an error; raises all of them once there are `MAX_FOUND`."""
    errors += lines_of(error)
    if len(errors) >= MAX_FOUND:
        raise_all(errors)


def for_each(items: Iterable[tuple[Any, ...]], action: Callable[..., T]) -> list[T]:
    """Returns action(*item) for each item; raises the errors of all together, up to `MAX_FOUND`."""
    results: list[T] = []
    errors: list[str] = []
    for item in items:
        try:
            results.append(action(*item))
        except ValueError as error:
            note(errors, error)
    raise_all(errors)
    return results
