"""Label and prediction files as CSV: reading, where errors name file, line and field; texts."""

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stormpsr_jax.base.files import read_text, replacing, shorten

MAX_FRAME = 10**9
_FORMULA = (*"=+-@", *"＝＋－＠")  # what a formula begins with, of both widths
_IMAGE_NAME = re.compile(r"(?:.*[/\\])?[A-Za-z_]*([0-9]+)(?:\.[A-Za-z]\w*)?", re.ASCII)
_ROBOFLOW = re.compile(r"_[A-Za-z]{3,4}\.rf\.[0-9A-Za-z]+(?=(?:\.[A-Za-z]+)?$)", re.ASCII)


class Line(NamedTuple):
    """A line of a file, whose errors name both; as a text its number from 1."""

    path: str | os.PathLike
    number_of: int

    def __str__(self) -> str:
        return str(self.number_of)

    def error(self, field: str, what: str) -> ValueError:
        """Returns the error for one field of the line."""
        return ValueError(f"{self.path}: line {self}: {field}: {what}")

    def check_width(self, row: Sequence[str], names: Sequence[str]) -> None:
        """Raises ValueError if the row of the line does not have one field per name."""
        if len(row) < len(names):
            problem = f"is missing (the row has {len(row)} fields)"
            raise self.error(names[len(row)], problem)
        if len(row) > len(names):
            problem = f"a row has {len(names)} fields, not {len(row)}"
            raise self.error(f"field {len(names) + 1}", problem)

    def integer(self, text: str, low: int, high: int, field: str, meaning: str = "") -> int:
        """Returns a whole number in low…high ("7" and "7.0" alike).

        `meaning` ends the message about a number outside: what low…high are.
        """
        try:
            number = int(text)
        except ValueError:
            value = self.number(text, field)
            number = int(value)
            if value != number:
                raise self.error(field, f"{text.strip()!r} is not whole") from None
        if not low <= number <= high:
            raise self.error(field, f"{shorten(text)} is not in {low}…{high}{meaning}")
        return number

    def frame(self, text: str, field: str = "frame") -> int:
        """Returns the number of a frame."""
        return self.integer(text, 0, MAX_FRAME, field)

    def number(self, text: str, field: str) -> float:
        """Returns a finite number."""
        try:
            number = float(text)
        except ValueError:
            raise self.error(field, f"{shorten(text)} is not a number") from None
        if not math.isfinite(number):
            raise self.error(field, f"{shorten(text)} is not finite")
        return number

    def share(self, text: str, field: str) -> float:
        """Returns a number in 0…1."""
        number = self.number(text, field)
        if not 0 <= number <= 1:
            raise self.error(field, f"{shorten(text)} is not in 0…1")
        return number

    def image(self, text: str) -> int:
        """Returns the frame number in an image's name ("01259.jpg" → 1259)."""
        match = _IMAGE_NAME.fullmatch(named_before(text.strip()))
        if not match or len(match[1]) > 30 or int(match[1]) > MAX_FRAME:
            raise self.error("image", f"{shorten(text)} is not an image name such as 00012.jpg")
        return int(match[1])


def named_before(name: str) -> str:
    """Returns the name of a picture, 10.txt, to which Roboflow added a hash, 10_jpg.rf.5a1f.txt."""
    return _ROBOFLOW.sub("", name)


Row = tuple[Line, list[str]]  # with its fields


def read_rows(path: str | os.PathLike) -> list[Row]:
    """Reads the rows of a CSV file in UTF-8, with or without BOM, with any line ends.

    The last line needs no line end if it is whole.

    Returns:
        [(line, fields)] without the empty lines.

    Raises:
        ValueError: not a readable file, not UTF-8, not CSV, or cut off in its last line.
    """
    return rows_of(read_text(path), path)


def rows_of(text: str, path: str | os.PathLike, delimiter: str = ",") -> list[Row]:
    """Returns the rows of the text of a CSV file; see `read_rows`."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(Line(path, reader.line_num), row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: not CSV ({error})") from error
    if has_open_end(text) and len(rows) > 1:
        (_, above), (line, last) = rows[-2:]
        if len(last) < len(above) or (above[-1].strip() and not last[-1].strip()):
            raise cut_off(line)
    return rows


def write(path: str | os.PathLike, rows: Iterable[Sequence], end: str = "\n") -> None:
    """Writes a CSV file, whole; `end` is that of its lines."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end).writerows(rows)


def plain(text: str) -> str:
    """Returns a text as a field to write: a spreadsheet takes it for a text, not for a formula."""
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def has_open_end(text: str) -> bool:
    """Says whether the last line of a text has no line end."""
    return bool(text) and text[-1] not in "\r\n"


def cut_off(line: Line) -> ValueError:
    """Returns the error for a file that ends in the middle of its last line."""
    return ValueError(
        f"{line.path}: line {line}: the file is cut off here: the line is incomplete and has no "
        "end; write the file anew"
    )
