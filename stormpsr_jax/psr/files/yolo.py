"""YOLO text files, one per picture: rows class, centre and size in 0…1, maybe a confidence."""

import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from stormpsr_jax.base.mistakes import for_each
from stormpsr_jax.psr.files import csvfile

FIELDS = ["class", "x", "y", "w", "h"]
_T = TypeVar("_T")


class Row(NamedTuple):
    """A box: where it stands, its fields as texts, and cx, cy, w, h as shares of the picture."""

    path: str | os.PathLike
    line: int
    texts: list[str]
    box: tuple[float, ...]

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.path}: line {self.line}"

    def number(self, last: int) -> int:
        """Returns its class; ValueError if that is no number in 0…last."""
        return csvfile.parse_integer(self.texts[0], 0, last, self.path, self.line, "class")


def read(text: str, path: str | os.PathLike, convert: Callable[[Row], _T]) -> list[_T]:
    """Returns what `convert` makes of each row of a file.

    Args:
        text: of the file.
        path: of it, for messages.
        convert: raises ValueError for what the caller cannot use.

    Raises:
        ValueError: every mistake, with file, line and field, those of `convert` too.
    """

    def row(line: int, fields: list[str]) -> _T:
        texts = [text for text in fields if text]
        csvfile.check_width(path, line, texts[: len(FIELDS)], FIELDS)
        named = zip(texts[1:], FIELDS[1:], strict=False)
        box = tuple(csvfile.parse_number(value, path, line, name) for value, name in named)
        return convert(Row(path, line, texts, box))

    rows = csvfile.rows_of(text, path, delimiter=" ")
    return for_each([item for item in rows if any(item[1])], row)
