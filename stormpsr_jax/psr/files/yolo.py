"""YOLO text files, one per picture: rows class, centre and size in 0…1, maybe a confidence."""

import os
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files import csvfile

FIELDS = ["class", "x", "y", "w", "h"]
_WIDEST = len(FIELDS) + 1  # with a confidence
_FRAME = re.compile(r"(?:.*[^0-9])?([0-9]{1,12})\.txt", re.ASCII | re.IGNORECASE | re.DOTALL)
# What tools put beside the files of pictures: lists of classes and of pictures, and remarks.
_NOTES = re.compile(
    r"((predefined_)?classes|labels|names|data|notes|train|val|valid|test|readme.*)\.txt",
    re.IGNORECASE,
)
_T = TypeVar("_T")


class Row(NamedTuple):
    """A box: where it stands, its fields as texts, and cx, cy, w, h as shares of the picture."""

    line: csvfile.Line
    texts: list[str]
    box: tuple[float, ...]

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.line.path}: line {self.line}"

    def number(self, last: int) -> int:
        """Returns its class; ValueError if that is no number in 0…last."""
        return self.line.integer(self.texts[0], 0, last, "class")


def is_of_picture(name: str) -> bool:
    """Whether a file's name is that of a picture's rows: a text file, and no note of a tool."""
    return name.lower().endswith(".txt") and not _NOTES.fullmatch(name)


def frame_of(name: str, place: str) -> int:
    """Returns the frame's number that ends a file's name; ValueError, from `place`, if none does.

    Roboflow ends names in a hash, `000010_jpg.rf.5a1f8c0d93e4.txt`, whose last digits are none.
    """
    match = _FRAME.fullmatch(csvfile.named_before(name))
    if not match or int(match[1]) > csvfile.MAX_FRAME:
        raise ValueError(
            f"{place}: its name does not end in a frame's number, such as 000010.txt; rename it"
        )
    return int(match[1])


def read(text: str, path: str | os.PathLike, convert: Callable[[Row], _T]) -> list[_T]:
    """Returns what `convert` makes of each row of a file.

    Args:
        convert: raises ValueError for what the caller cannot use.

    Raises:
        ValueError: every error, with file, line and field, those of `convert` too.
    """

    def row(line: csvfile.Line, fields: list[str]) -> _T:
        texts = [text for text in fields if text]
        if len(texts) > _WIDEST:  # corners, of which the first two are no centre and size
            what = (
                f"the row has {len(texts)} fields, as polygons and rotated boxes have; export "
                f"upright boxes: {', '.join(FIELDS)} and maybe a confidence"
            )
            raise line.error(f"field {_WIDEST + 1}", what)
        line.check_width(texts[: len(FIELDS)], FIELDS)
        named = zip(texts[1:], FIELDS[1:], strict=False)
        box = tuple(line.number(value, name) for value, name in named)
        return convert(Row(line, texts, box))

    rows = csvfile.rows_of(text, path, delimiter=" ")
    return for_each([item for item in rows if any(item[1])], row)
