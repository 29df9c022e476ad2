"""The entries of a label file, and its content as text, JSON, XML or a table."""

import dataclasses
import enum
import functools
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import MAX_FOUND, lines_of
from stormpsr_jax.recordings import csvfile, xml_tree

MAX_SECONDS = 1e9
MAX_BYTES = 2**28  # of a file that is not a plain table
_VIDEO = re.compile(
    r"\.(mp4|m4v|mov|avi|mkv|webm|3gp|mpe?g|m?2?ts|wmv|flv|ogv)", re.IGNORECASE | re.ASCII
)
_UPLOADED = re.compile("^[0-9a-f]{8}-")


class Unit(enum.Enum):
    """What an entry's `at` counts, each from 0 at the first picture on."""

    SECONDS = "s"
    FRAMES = "frames"  # of the product's rate, as in PSR label files
    COUNTED = "counted frames"  # of the product's rate too, or of --labels_fps
    PICTURES = "pictures"  # of the video, as they are stored
    TICKS = "ticks"  # of a rate that only the tool knows


@dataclasses.dataclass(frozen=True)
class Entry:
    """A label as it was written: `text` is complete at `at`.

    Attributes:
        text: a step, or a word for one.
        at: seconds, or a number of frames, pictures or ticks.
        unit: of `at`.
        place: where it stands in the file, such as "line 3".
        recordings: names that the tool has for its recording; () if it has none.
    """

    text: str
    at: float
    unit: Unit
    place: str
    recordings: tuple[str, ...] = ()


Item = Entry | list[str]  # or the lines that say what is wrong in the place of some


class Source:
    """A file as its readers see it; each view of it is made once, when it is asked for.

    Attributes:
        labelled: the names of each recording that is labelled, if maybe with nothing, of formats
            that say so; see `Entry.recordings`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.labelled: list[tuple[str, ...]] = []

    @functools.cached_property
    def kind(self) -> str:
        """What kind of file it is: "zip", "xml", "json" or "text"."""
        files.check_regular(self.path, "give a file on a disk")
        try:
            with self.path.open("rb") as file:
                head = file.read(64).removeprefix(b"\xef\xbb\xbf")
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read ({error.strerror})") from error
        if head.startswith(b"PK\x03\x04"):
            return "zip"
        kind = {b"<": "xml", b"{": "json", b"[": "json"}.get(head.lstrip()[:1], "text")
        if kind != "text" and self.path.stat().st_size > MAX_BYTES:
            what = f"is larger than {MAX_BYTES} bytes, the most of a label file"
            raise ValueError(f"{self.path}: {what}")
        return kind

    @functools.cached_property
    def content(self) -> bytes:
        """The bytes of the file."""
        return files.read_bytes(self.path)

    @functools.cached_property
    def text(self) -> str:
        """The text, line ends as they are."""
        return files.text_of(self.content, self.path)

    @functools.cached_property
    def json(self) -> Any:
        """The content of a JSON file."""
        return files.parse_json(self.text, self.path)

    @functools.cached_property
    def xml(self) -> xml_tree.Node:
        """The root of an XML file."""
        return xml_tree.parse(self.text, self.path)

    @functools.cached_property
    def delimiter(self) -> str:
        """What stands between the fields of a table: what its first line has most of."""
        line = self.first_line
        if "\t" in line and line.count("\t") >= line.count(","):
            return "\t"
        return ";" if ";" in line and "," not in line else ","

    @property
    def first_line(self) -> str:
        """The first line with something in it."""
        return self.text.lstrip("\r\n").partition("\n")[0]

    @functools.cached_property
    def rows(self) -> list[csvfile.Row]:
        """The rows of a table."""
        return csvfile.rows_of(self.text, self.path, self.delimiter)

    @functools.cached_property
    def columns(self) -> list[str]:
        """The fields of a table's first row, in small letters."""
        rows = csvfile.rows_of(self.first_line, self.path, self.delimiter)
        return [field.strip().lower() for field in rows[0][1]] if rows else []

    def error(self, place: str, what: str) -> ValueError:
        """Returns the error for one place of the file."""
        return ValueError(f"{self.path}: {place}: {what}")

    def seconds(self, value: Any, place: str, field: str = "time") -> float:
        """Returns a time in seconds that a recording can have; ValueError names the place."""
        return files.number(value, f"{self.path}: {place}: {field}", 0, MAX_SECONDS)

    def whole(
        self, value: Any, place: str, field: str, low: int = 0, high: int = csvfile.MAX_FRAME
    ) -> int:
        """Returns a whole number, given as a number or as text; ValueError names the place."""
        if isinstance(value, str) and re.fullmatch("[0-9]{1,30}", value.strip(), re.ASCII):
            value = int(value)
        return files.whole(value, f"{self.path}: {place}: {field}", low, high)

    def end_of_interval(self, start: float, end: float, place: str) -> float:
        """Returns the end of an interval; ValueError if it is before the start."""
        if end < start:
            raise self.error(place, f"end: {end:g} is before the start, {start:g}")
        return end


def each(parts: Iterable[tuple[Any, ...]], parse: Callable[..., list[Entry]]) -> list[Item]:
    """Returns the entries of each part of a file, parse(*part), or what is wrong with the part.

    After `MAX_FOUND` wrong ones it ends.
    """
    items: list[Item] = []
    wrong = 0
    for part in parts:
        try:
            items += parse(*part)
        except ValueError as error:
            items.append(lines_of(error))
            if (wrong := wrong + 1) == MAX_FOUND:
                break
    return items


def recordings_of(address: str) -> tuple[str, ...]:
    """Returns the names that a recording may have whose video a tool names by a path or address.

    Label Studio puts eight hexadecimal digits in front of what is uploaded to it, and names files
    on its own disk behind `?d=`. In an address, what is no plain letter is written as %C3%BC.
    """
    stem = _path_of(address).stem
    stems = [stem, unicodedata.normalize("NFC", urllib.parse.unquote(stem))]
    names = [name for stem in stems for name in (stem, _UPLOADED.sub("", stem))]
    return tuple(dict.fromkeys(filter(None, names)))


def is_video(address: str) -> bool:
    """Whether a path or address is that of a video, by its ending."""
    return _VIDEO.fullmatch(_path_of(address).suffix) is not None


def _path_of(address: str) -> PurePosixPath:
    path = address.split("?d=")[-1].partition("?")[0]
    return PurePosixPath(path.replace("\\", "/"))
