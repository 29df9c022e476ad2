"""What a label format is: the marks by which a file is recognised, and what is read from it.

A format is one value in one file of this room. It reads a `Sample` into `Entry` values: what the
tool says, and when. Nobody but `timed_labels` turns these into steps and frames.
"""

import contextlib
import dataclasses
import enum
import functools
import os
import pathlib
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

from stormpsr_jax.base import files, trees
from stormpsr_jax.psr.files import csvfile
from stormpsr_jax.psr.files.formats import xml_tree

MAX_SECONDS = 1e9
MAX_BYTES = 2**28  # of a file that is not a plain table
# Tools round times, most of them to milliseconds, and so do containers of videos.
ROUNDED = 1e-3
CVAT_FILE = "annotations.xml"  # in the zip file that CVAT exports
_VIDEO = re.compile(
    r"\.(mp4|m4v|mov|avi|mkv|webm|3gp|mpe?g|m?2?ts|wmv|flv|ogv)", re.IGNORECASE | re.ASCII
)
_UPLOADED = re.compile("^[0-9a-f]{8}-")
_HEADER_WITHIN = 60  # lines: BORIS writes some about the observation above its header


class Unit(enum.Enum):
    """What an entry's `at` counts, each from 0 at the first picture on."""

    SECONDS = "s"
    FRAMES = "frames"  # of the product's rate, as in PSR label files
    COUNTED = "counted frames"  # of the product's rate too, or of --labels_fps
    PICTURES = "pictures"  # of the video, as they are stored
    TICKS = "ticks"  # of a rate that only the tool knows


@dataclasses.dataclass(frozen=True)
class Entry:
    """A label as the tool wrote it: `text` is complete at `at`.

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


class Sample:
    """A file as its formats see it; each view of it is made once, when it is asked for.

    Attributes:
        check: raises ValueError for an entry that its reader will not take, so that a table's
            mistakes of all kinds come in the order of its lines.
        recordings: the names of each recording that is labelled, if maybe with nothing, of forms
            that say so; see `Entry.recordings`.
        unlabelled: those of further recordings, of which nobody knows whether somebody labelled
            them.
    """

    def __init__(self, path: str | os.PathLike, check: Callable[[Entry], object] | None = None):
        self.path = pathlib.Path(path)
        self.check = check or (lambda entry: None)
        self.recordings: list[tuple[str, ...]] = []
        self.unlabelled: list[tuple[str, ...]] = []

    @functools.cached_property
    def head(self) -> bytes:
        """The first bytes, without a byte order mark."""
        files.check_regular(self.path, "give a file on a disk")
        try:
            with self.path.open("rb") as file:
                return file.read(64).removeprefix(b"\xef\xbb\xbf")
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read ({error.strerror})") from error

    @functools.cached_property
    def kind(self) -> str:
        """What kind of file it is: "zip", "xml", "json" or "text"; by CVAT's file in its zip."""
        if self._is_zip:
            with contextlib.suppress(ValueError):
                if trees.zip_of(self.path).exists(CVAT_FILE):
                    return "xml"
            return "zip"
        start = self.head.lstrip()[:1]
        return {b"<": "xml", b"{": "json", b"[": "json"}.get(start, "text")

    @property
    def _is_zip(self) -> bool:
        return self.head.startswith(b"PK\x03\x04")

    @functools.cached_property
    def text(self) -> str:
        """The text, line ends as they are."""
        if self.kind != "text":
            self.check_size()
        if not self._is_zip:
            return files.read_text(self.path)
        with trees.zip_of(self.path).on_disk(CVAT_FILE) as path:
            return files.read_text(path)

    def check_size(self) -> None:
        """Raises ValueError if the file is larger than `MAX_BYTES`."""
        if self.path.stat().st_size > MAX_BYTES:
            raise ValueError(
                f"{self.path}: is larger than {MAX_BYTES} bytes, the most of a label file"
            )

    @functools.cached_property
    def json(self) -> Any:
        """The content of a JSON file."""
        self.check_size()
        return files.read_json(self.path)

    @functools.cached_property
    def xml(self) -> xml_tree.Node:
        """The root of an XML file."""
        return xml_tree.parse(self.text, self.path)

    @functools.cached_property
    def delimiter(self) -> str:
        """What stands between the fields of a table: what its first line has most of."""
        line = self.text.lstrip("\r\n").partition("\n")[0]
        if "\t" in line and line.count("\t") >= line.count(","):
            return "\t"
        return ";" if ";" in line and "," not in line else ","

    @functools.cached_property
    def rows(self) -> list[csvfile.Row]:
        """The rows of a table."""
        return csvfile.rows_of(self.text, self.path, self.delimiter)

    @functools.cached_property
    def columns(self) -> list[str]:
        """The fields of a table's first row, in small letters."""
        return lowered(self.rows[0][1]) if self.rows else []

    def header_with(self, *names: str) -> int | None:
        """The number of the first row of a table that has all these columns; None without one."""
        for i, (_, row) in enumerate(self.rows[:_HEADER_WITHIN]):
            if set(names) <= set(lowered(row)):
                return i
        return None

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

    def ordered(self, start: float, end: float, place: str) -> float:
        """Returns the end of an interval; ValueError if it is before the start."""
        if end < start:
            raise self.error(place, f"end: {end:g} is before the start, {start:g}")
        return end


def lowered(row: Sequence[str]) -> list[str]:
    """The fields of a header in small letters, without white space around them."""
    return [field.strip().lower() for field in row]


@dataclasses.dataclass(frozen=True)
class Mark:
    """Something that a file of a form has: `holds` is asked only if the marks before it hold."""

    says: str
    holds: Callable[[Sample], bool]


IS_JSON = Mark("JSON", lambda sample: sample.kind == "json")
IS_XML = Mark("XML", lambda sample: sample.kind == "xml")
IS_TABLE = Mark("a table", lambda sample: sample.kind == "text")


def has_columns(*names: str) -> tuple[Mark, ...]:
    """The marks of a table with these columns, in any of its first rows."""

    def has(name: str) -> Callable[[Sample], bool]:
        return lambda sample: sample.header_with(name) is not None

    together = Mark(
        f"{' and '.join(names)} in one header", lambda s: s.header_with(*names) is not None
    )
    return (IS_TABLE, *(Mark(f"a column {name!r}", has(name)) for name in names), together)


@dataclasses.dataclass(frozen=True)
class Form:
    """A form in which a tool writes its labels: a file with all `marks` is `read`."""

    marks: tuple[Mark, ...]
    read: Callable[[Sample], list[Entry]]


def other(marks: tuple[Mark, ...], says: str) -> Form:
    """A form that is not read: its error `says` what it is, and what to give instead."""

    def read(sample: Sample) -> list[Entry]:
        raise ValueError(f"{sample.path}: is {says}")

    return Form(marks, read)


@dataclasses.dataclass(frozen=True)
class Written:
    """A completed step, to be written.

    Attributes:
        frame: counted from 0 at the recording's first one.
        number: of the same frame; another where pictures are numbered otherwise.
    """

    frame: int
    number: int
    step_id: int
    name: str


# write(path, steps in order of time, the video or folder of pictures, frames per second)
Write = Callable[[pathlib.Path, Sequence[Written], pathlib.Path, float], None]


@dataclasses.dataclass(frozen=True)
class Format:
    """A label format.

    Attributes:
        key: its name on a command line.
        name: as people call it.
        clock: how its times become frames; docs/formats.md has the same sentence.
        forms: the forms that are read.
        others: further ones of the tool, whose errors name what is read.
        tolerance: seconds by which a time may be off its picture's.
        ending: of the files that `write` writes.
        write: writes labels; None of a format that is only read.
    """

    key: str
    name: str
    clock: str
    forms: tuple[Form, ...]
    others: tuple[Form, ...] = ()
    tolerance: float = ROUNDED
    ending: str = ""
    write: Write | None = None

    def recognises(self, sample: Sample) -> Form | None:
        """The form that a file has; None if it is none of this format."""
        forms = (*self.forms, *self.others)
        return next((form for form in forms if _held(form, sample) == len(form.marks)), None)

    def closest(self, sample: Sample) -> tuple[float, int, str]:
        """How much of a form a file has, as a share and in marks, and the first that it lacks."""
        shares = []
        for form in self.forms:
            held = _held(form, sample)
            missing = form.marks[held].says if held < len(form.marks) else ""
            shares.append((held / len(form.marks), held, missing))
        return max(shares, key=lambda share: share[0])


def _held(form: Form, sample: Sample) -> int:
    """How many marks hold, up to the first that does not."""
    for i, mark in enumerate(form.marks):
        if not mark.holds(sample):
            return i
    return len(form.marks)


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


def _path_of(address: str) -> pathlib.PurePosixPath:
    path = address.split("?d=")[-1].partition("?")[0]
    return pathlib.PurePosixPath(path.replace("\\", "/"))
