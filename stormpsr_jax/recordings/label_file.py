"""The labels of a recording: a folder of PSR files, or a file that says when, by clock or picture.

What a file is, is known by its content, whatever it is called. A table has the header `time,step`,
`start,end,step` or `frame,step`, as CSV or tab-separated text. Its times are seconds, or m:ss or
h:mm:ss with a decimal point; rows may be in any order, other columns are not read, and files that a
spreadsheet has saved with semicolons and decimal commas are understood. With the header alone there
are no labels in it.

A step is its id or its name as `stormpsr_jax.procedure show` prints it, in any case, or a word that
--words maps to one.
"""

import csv
import dataclasses
import functools
import math
import re
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import for_each, note, raise_all
from stormpsr_jax.base.folders import printable
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.label_tools import TOOLS, Content, Entries, Entry, Unit, parse_xml
from stormpsr_jax.recordings.labels import (
    PSR_FILES,
    VALUES,
    Labels,
    Step,
    read_folder,
    states_to_steps,
    steps_to_states,
)
from stormpsr_jax.recordings.pictures import Pictures, Timestamps
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.words import Steps, Terms

# Files with these endings are labels, in a form that is read or not; those with `MAYBE` are if
# their content is.
CERTAIN = (".csv", ".tsv", ".eaf", ".srt", ".vtt", ".xlsx")
MAYBE = (".json", ".xml", ".txt")
MAX_BYTES = 2**28
FORMATS = (
    "CSV or tab-separated text with the header time,step or start,end,step or frame,step",
    *(tool.name for tool in TOOLS),
)
_COLUMNS = (("start", "end"), ("time",), ("frame",))
# At most nine digits: no recording is as long, and no frame number is too large. Behind a colon are
# two, as nobody knows whether 5:2 is 5:02 or 5:20.
_TIME = re.compile(
    r"(?:([0-9]{1,9}):(?=[0-9]{2}:))?(?:([0-9]{1,9}):(?=[0-9]{2}\b))?([0-9]{1,9}(?:\.[0-9]*)?)",
    re.ASCII,
)


class UnknownFormatError(ValueError):
    """A file is of no format that is read."""


@dataclasses.dataclass(frozen=True)
class TimedStep:
    """A label: step `step_id` is complete at `at`, which counts what `unit` says.

    Attributes:
        at: seconds, or a number of frames or pictures, from 0.
        place: where it stands in its file.
        unit: SECONDS, FRAMES or PICTURES.
        tolerance: seconds by which a time may be too late.
    """

    at: float
    place: str
    step_id: int
    unit: Unit = Unit.SECONDS
    tolerance: float = 0.0

    @property
    def when(self) -> str:
        """For messages."""
        return (
            f"{self.at:g} s" if self.unit is Unit.SECONDS else f"{self.unit.value[:-1]} {self.at:g}"
        )


@dataclasses.dataclass(frozen=True)
class LabelPlace:
    """Where labels are: a folder of PSR files, or a file that says when, which is read once."""

    path: Path

    def __str__(self) -> str:
        return printable(self.path)

    @property
    def is_file(self) -> bool:
        """Whether it is a file, of one recording or of several."""
        return self.path.is_file()

    @property
    def is_certain(self) -> bool:
        """Whether a file's ending says that it has labels, in a form that is read or not."""
        return self.path.name.lower().endswith(CERTAIN)

    @property
    def is_candidate(self) -> bool:
        """Whether a file may have labels, by its ending."""
        maybe = self.path.name.lower().endswith(MAYBE)
        return maybe or self.is_certain or folders.is_archive(self.path)

    @functools.cached_property
    def _data(self) -> bytes:
        return files.read_bytes(self.path)

    @functools.cached_property
    def _content(self) -> Entries:
        if folders.is_archive(self.path):
            what = "archives are not read; unpack it, and give what is in it"
            raise UnknownFormatError(f"{self.path}: {what}")
        return _entries(self._data, self.path)

    @property
    def entries(self) -> list[Entry]:
        """What a file says.

        Raises:
            UnknownFormatError: it is of no format that is read; names those that there are.
            ValueError: all errors, as far as they are known without a procedure.
        """
        return [entry for entries in self._content.values() for entry in entries]

    def recordings(self, own_name: str, pictured: Collection[str]) -> list[str]:
        """Returns the recordings whose labels are in a file; errors as of `entries`.

        That of a file of one is `own_name`, which it is called like, but if `pictured` has another
        name that the tool gives it. Of several, the names are those that `pictured` has, or else
        the tool's.
        """
        if self.path.name in PSR_FILES:
            raise ValueError(f"{self}: belongs into a folder of the recording's name")
        groups = [*self._content]
        if len(groups) < 2:
            names = [own_name, *(name for group in groups for name in group)]
            return [next((name for name in names if name in pictured), own_name)]
        if () in groups:
            raise ValueError(
                f"{self}: has labels of several recordings, and labels that name none of them; "
                "give each task its video in the labelling tool, or export the recordings one by "
                "one"
            )
        return [next((n for n in group if n in pictured), group[-1]) for group in groups]

    def timed(
        self, procedure: Procedure, terms: Terms, recording: str, with_pictures: bool = False
    ) -> list[TimedStep]:
        """Returns the steps of a recording that a file has, in order of their times.

        Args:
            terms: words for steps, and the rate of the tool's frames.
            recording: whose labels are wanted, of a file with several.
            with_pictures: whether those of the recording are at hand, so that numbers of pictures
                go by these and not by the tool's rate.

        Raises:
            ValueError: all errors of the file, each with its line (or entry) and field.
        """
        steps = Steps(procedure, terms.words)

        def parse(entry: Entry) -> TimedStep | None:
            step_id = steps.find(entry.text, f"{self.path}: {entry.place}: step")
            at, unit = self._when(entry, terms.fps, with_pictures)
            if step_id is None:
                return None
            return TimedStep(at, entry.place, step_id, unit, entry.tolerance)

        timed = for_each([(entry,) for entry in self._of_recording(recording)], parse)
        return sorted(filter(None, timed), key=lambda step: step.at)

    def _of_recording(self, name: str) -> list[Entry]:
        groups = self._content
        if len(groups) < 2:
            return self.entries
        if any(name in group for group in groups):
            return [e for group, entries in groups.items() if name in group for e in entries]
        some = ", ".join(files.shorten(g[-1] if g else "(none)") for g in [*groups][:10])
        raise ValueError(
            f"{self.path}: has labels of several recordings ({some}), none of them "
            f"{files.shorten(name)}; put the file beside the labels of other recordings, in no "
            "folder that is one's"
        )

    def _when(self, entry: Entry, fps: float | None, with_pictures: bool) -> tuple[float, Unit]:
        """When an entry is complete, by what this recording counts."""
        if entry.unit is Unit.SECONDS or (entry.unit is Unit.PICTURES and with_pictures):
            return entry.at, entry.unit
        if fps is not None:
            return entry.at / fps, Unit.SECONDS
        if entry.unit is Unit.TICKS:
            raise ValueError(
                f"{self.path}: {entry.place}: time: counts frames at the rate set in the tool, "
                "which the file does not say; give --labels_fps=F"
            )
        return entry.at, entry.unit

    def read(
        self,
        procedure: Procedure,
        variant: Variant | None,
        *,
        terms: Terms | None = None,
        recording: str | None = None,
        needed: str | None = None,
        video: Pictures | None = None,
        early_start: bool = False,
    ) -> Labels:
        """Returns the labels of a recording; frames count from 0, or from the video's first one.

        Args:
            variant: of the recording, whose initial state a file's labels start from; None if it is
                not known, which leaves their changes unchecked and the result empty.
            terms: what a file calls steps, and the rate at which it counts frames.
            recording: its name, of a file with several; None if the file has it.
            needed: of a folder, the file with steps that is wanted, `STEPS` or `WITH_ERRORS`.
            video: of the recording, in which all labels have to lie; None if it is not at hand.
            early_start: of a folder, whether the first state may be from before the video.

        Raises:
            ValueError: all errors, with file, line and field; of a file those of `timed` and of
                `to_frames`.
        """
        if not self.is_file:
            span = None
            if video is not None:
                span = range(video.first_frame, video.first_frame + video.num_frames)
            return read_folder(self.path, procedure, needed, span, early_start)
        terms = terms or Terms()
        timed = self.timed(procedure, terms, recording or self.path.stem, video is not None)
        if variant is None:
            states = procedure.states[:0]
            return Labels([], [], states[:, 0].astype(int), states)
        first_state, changes = to_frames(self.path, timed, variant.initial_state, procedure, video)
        first = 0 if video is None else video.first_frame
        frames, states = steps_to_states(changes, first_state, first)
        data = self._data
        if len(self._content) > 1:  # those of others may change
            data = repr([(step.at, step.unit.value, step.step_id) for step in timed]).encode()
        digest = zlib.crc32(terms.fingerprint.encode(), zlib.crc32(data))
        steps, with_errors = (states_to_steps(frames, states, wrong) for wrong in (False, True))
        counts = any(entry.unit is not Unit.SECONDS for entry in self.entries)
        return Labels(steps, with_errors, frames, states, {}, digest, counts)


def _entries(data: bytes, path: Path) -> Entries:
    """Returns what a file says; ValueError has all errors."""
    table, *tools = FORMATS
    unknown = f"{path}: is of no label format that is read: {table}, PSR_labels.csv, "
    unknown += ", ".join(tools)
    if data.startswith(b"PK\x03\x04"):
        raise UnknownFormatError(f"{unknown} (save a spreadsheet as CSV)")
    if len(data) > MAX_BYTES:
        raise UnknownFormatError(
            f"{path}: is larger than {MAX_BYTES} bytes, the most of a label file"
        )
    text = files.text_of(data, path)
    content: Content = text
    if text.lstrip().startswith("<"):
        content = parse_xml(text, path)
    elif text.lstrip().startswith(("{", "[")):
        content = files.parse_json(text, path)
    elif _header(text).times:
        return {(): _read_table(text, path)}
    for tool in TOOLS:
        if tool.recognises(content):
            return tool.read(content, path)
    if not isinstance(content, str):
        raise UnknownFormatError(unknown)
    names = files.shorten(",".join(_header(text).names))
    raise UnknownFormatError(
        f"{path}: line 1: header: {names} is neither time,step "
        "nor start,end,step nor frame,step; put the one that fits as the first line (or give "
        "PSR_labels.csv in a folder of the recording's name), or give a file of "
        f"{', '.join(tools)}"
    )


class _Header(NamedTuple):
    """The first line of a table: its columns, those that say when (of no table of ours none)."""

    delimiter: str
    names: list[str]
    times: tuple[str, ...]


def _header(text: str) -> _Header:
    line = text.lstrip("\r\n").partition("\n")[0][:4096]
    delimiter = ";" if ";" in line and "," not in line else ","
    if "\t" in line and line.count("\t") >= line.count(","):
        delimiter = "\t"
    fields = next(csv.reader([line], delimiter=delimiter), [])
    names = [name.strip().lower() for name in fields]
    times: tuple[str, ...] = ()
    if "step" in names and not ("time" in names and "end" in names):
        times = next((columns for columns in _COLUMNS if set(columns) <= set(names)), ())
    return _Header(delimiter, names, times)


def _read_table(text: str, path: Path) -> list[Entry]:
    delimiter, names, columns = _header(text)

    def read(line: csvfile.Line, row: list[str]) -> Entry:
        line.check_width(row[: len(names)], names)
        field = dict(zip(names, row, strict=False))
        text, place = field["step"].strip(), f"line {line}"
        if columns == ("frame",):
            return Entry(text, line.frame(field["frame"]), Unit.FRAMES, place, 0.0)
        times = [_seconds(field[name], delimiter != ",", line, name) for name in columns]
        if times[0] > times[-1]:
            what = f"{field['end'].strip()} is before the start, {field['start'].strip()}"
            raise line.error("end", what)
        return Entry(text, times[-1], Unit.SECONDS, place, 0.0)

    rows = csvfile.rows_of(text, path, delimiter)[1:]
    return for_each([row for row in rows if any(map(str.strip, row[1]))], read)


def _seconds(text: str, decimal_comma: bool, line: csvfile.Line, field: str) -> float:
    """The seconds of 75.5, 1:15.5 or 0:01:15.5."""
    text = text.strip()
    match = _TIME.fullmatch(text.replace(",", ".") if decimal_comma else text)
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0, 0, 0)
    wrong = match and ((match[2] and seconds >= 60) or (match[1] and minutes >= 60))
    if not match or wrong:
        what = f"{files.shorten(text)} is not a time such as 75.5, 1:15.5 or 0:01:15.5"
        what += ", with two digits behind a colon" * (":" in text)
        raise line.error(field, what)
    return 3600 * hours + 60 * minutes + seconds


# --- From times to frames -------------------------------------------------------------------------
# An interval is complete at its end. A completion counts from the first frame at or after its time;
# the last frame stands for one that comes less than a frame after it. What the first frame shows
# was done before it: a step there is part of the state that the recording begins with, and no
# completion in it. Times of tools are rounded: one that is up to a millisecond, but less than half
# a frame, after a frame belongs to it, and where the video is at hand, to the picture that is as
# near. A number of a picture counts from the first frame that shows this picture or a later one.

_ALREADY = {1: "installed", -1: "incorrectly installed", 0: "absent"}


def to_frames(
    path: object,
    timed: Sequence[TimedStep],
    initial_state: Sequence[int],
    procedure: Procedure,
    video: Pictures | None = None,
) -> tuple[tuple[int, ...], list[Step]]:
    """Converts times to frames, and checks that each step changes its component.

    Args:
        path: of the file, for messages.
        timed: in order of the times.
        initial_state: K values before the first step.
        video: of the recording; None without it, which begins at frame 0 then.

    Returns:
        the state at the first frame, which is the initial one but for steps at that frame, and the
        steps after it, [(frame, step id)] in order of time.

    Raises:
        ValueError: all labels that are no frame of the recording, or that change nothing.
    """
    fps, first, num = procedure.fps, 0, None
    if video is not None:
        first, num = video.first_frame, video.num_frames
    last = csvfile.MAX_FRAME if num is None else first + num - 1
    state, first_state = list(initial_state), list(initial_state)
    since: dict[int, tuple[str, int | float | None]]
    since = dict.fromkeys(range(len(state)), ("from the start", None))
    steps: list[Step] = []
    errors: list[str] = []
    needed = any(step.unit is Unit.PICTURES or step.tolerance for step in timed)
    timestamps = video.timestamps(fps) if video is not None and needed else None
    for step in timed:
        try:
            frame = frame_of(step, fps, first, timestamps, path)
        except ValueError as error:
            note(errors, error)
            continue
        k, value = step.step_id // 3, VALUES[step.step_id % 3]
        when, at = since[k]
        name = f"{step.step_id} ({procedure.step_name(step.step_id)})"
        field, problem = "step", ""
        if frame > csvfile.MAX_FRAME:
            field = "time"
            problem = f"{step.when} is after frame {csvfile.MAX_FRAME:,}, the last there may be"
        elif num is not None and frame > last + 1:
            field = "time"
            problem = f"{step.when} is after the end of the recording, {num / fps:.1f} s"
            if step.unit is Unit.FRAMES:
                problem += "; do they count at another rate, give it as --labels_fps"
        elif frame < first:
            field = "time"
            problem = f"{step.when} is before the first picture, {first}"
        elif value == state[k]:
            problem = f"{name} changes nothing: it is {_ALREADY[value]} {when}"
        elif min(frame, last) == at:
            problem = f"{name} falls into the same frame as the one of the same component {when}"
        if problem:
            note(errors, ValueError(f"{path}: {step.place}: {field}: {problem}"))
            continue
        frame = int(min(frame, last))
        state[k], since[k] = value, (f"since {step.place}", frame)
        if frame == first:
            first_state[k] = value
        else:
            steps.append((frame, step.step_id))
    raise_all(errors)
    return tuple(first_state), steps


def frame_of(
    step: TimedStep, fps: float, first_frame: int, timestamps: Timestamps | None, path: object
) -> int:
    """Returns the frame that a step counts from; it may be one after the last.

    `timestamps` are the recording's pictures; without them ValueError where a step counts pictures.
    """
    if step.unit is Unit.FRAMES:
        return int(step.at)
    if step.unit is Unit.PICTURES:
        if timestamps is None:
            raise ValueError(
                f"{path}: {step.place}: time: counts the pictures of the video, which is not "
                "available here; give --labels_fps=F, the rate of a video whose rate is constant"
            )
        if step.at >= len(timestamps.frames):
            raise ValueError(
                f"{path}: {step.place}: time: {step.when} is after the last of "
                f"{len(timestamps.frames)} pictures of the video"
            )
        return first_frame + int(timestamps.frames[int(step.at)])
    tolerance = min(step.tolerance, 0.5 / fps)
    if tolerance and timestamps is not None:
        near = int(np.searchsorted(timestamps.times, step.at - tolerance))
        if near < len(timestamps.times) and abs(timestamps.times[near] - step.at) <= tolerance:
            return first_frame + int(timestamps.frames[near])
    # A millionth: 2.2 · 5 = 11.000000000000002.
    return first_frame + max(0, math.ceil((step.at - tolerance) * fps - 1e-6))
