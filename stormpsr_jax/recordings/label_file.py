"""A file of labels that say when, by the clock or by pictures: a table, or that of a tool.

What a file is, is known by its content, whatever it is called. A table has the header `time,step`,
`start,end,step` or `frame,step`, as CSV or tab-separated text. Its times are seconds, or m:ss or
h:mm:ss with a decimal point; rows may be in any order, other columns are not read, and files that a
spreadsheet has saved with semicolons and decimal commas are understood. With the header alone there
are no labels in it.

A step is its id or its name as `stormpsr_jax.procedure show` prints it, in any case, or a word that
--words maps to one.
"""

import functools
import re
import zlib
from collections.abc import Sequence

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import lines_of, note, raise_all
from stormpsr_jax.base.folders import printable
from stormpsr_jax.recordings import csvfile, label_times
from stormpsr_jax.recordings.label_entries import MAX_BYTES, Entry, Item, Source, Unit, each
from stormpsr_jax.recordings.label_times import TimedStep
from stormpsr_jax.recordings.label_tools import TOOLS
from stormpsr_jax.recordings.labels import Labels
from stormpsr_jax.recordings.pictures import Pictures
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.steps import states_to_steps, steps_to_states
from stormpsr_jax.recordings.words import Steps, Terms

TABLE = "CSV or tab-separated text with the header time,step or start,end,step or frame,step"
FORMATS = (TABLE, *(tool.name for tool in TOOLS))
# Files with these endings are labels, in a form that is read or not; those with `MAYBE` are if
# their content is.
CERTAIN = (".csv", ".tsv", ".eaf", ".srt", ".vtt", ".xlsx")
MAYBE = (".json", ".xml", ".txt")
# Seconds: tools round times, most of them to milliseconds, as containers of videos do.
ROUNDED = 1e-3
# At most nine digits: no recording is as long, and no frame number is too large. Behind a colon are
# two, as nobody knows whether 5:2 is 5:02 or 5:20.
_TIME = re.compile(
    r"(?:([0-9]{1,9}):(?=[0-9]{2}:))?(?:([0-9]{1,9}):(?=[0-9]{2}\b))?([0-9]{1,9}(?:\.[0-9]*)?)",
    re.ASCII,
)
_COLUMNS = (("start", "end"), ("time",), ("frame",))


class UnknownFormatError(ValueError):
    """A file is of no format that is read."""


class LabelFile(Source):
    """A file of labels of one recording or of several; it is read once, when it is asked for."""

    def __str__(self) -> str:
        return printable(self.path)

    @property
    def is_certain(self) -> bool:
        """Whether its ending says that it has labels, in a form that is read or not."""
        return self.path.name.lower().endswith(CERTAIN)

    @property
    def is_candidate(self) -> bool:
        """Whether it may have labels, by its ending and its size."""
        if self.path.name.lower().endswith(MAYBE):
            return self.path.stat().st_size <= MAX_BYTES
        return self.is_certain or folders.is_archive(self.path)

    @property
    def is_prose(self) -> bool:
        """Whether it is a text but no table, such as a README; ValueError if it cannot be read."""
        signs = self.text[:4096].partition("\n")[0]
        return self.path.suffix.lower() == ".txt" and not any(sign in signs for sign in "\t,;")

    @functools.cached_property
    def items(self) -> list[Item]:
        """What the file says, in its order, or what is wrong with it.

        Raises:
            UnknownFormatError: it is of no format that is read; names those that there are.
        """
        if folders.is_archive(self.path):
            what = "archives are not read; unpack it, and give what is in it"
            raise UnknownFormatError(f"{self.path}: {what}")
        try:
            if self._is_table:
                return _read_table(self)
            tool = next((tool for tool in TOOLS if tool.recognises(self)), None)
            if tool is not None:
                return tool.read(self)
        except ValueError as error:
            return [lines_of(error)]
        raise UnknownFormatError(self._unknown())

    @property
    def _is_table(self) -> bool:
        return self.kind == "text" and _time_columns(self.columns) is not None

    def _unknown(self) -> str:
        _, *tools = FORMATS
        if self.kind != "text":
            what = f"{TABLE}, PSR_labels.csv, {', '.join(tools)}"
            pack = " (save a spreadsheet as CSV)" * (self.kind == "zip")
            return f"{self.path}: is of no label format that is read: {what}{pack}"
        found = files.shorten(",".join(self.columns))
        return (
            f"{self.path}: line 1: header: {found} is neither time,step nor start,end,step nor "
            "frame,step; put the one that fits as the first line (or give PSR_labels.csv in a "
            f"folder of the recording's name), or give a file of {', '.join(tools)}"
        )

    @property
    def errors(self) -> list[str]:
        """What is wrong with the file, as far as that is known without a procedure."""
        return [line for item in self.items if isinstance(item, list) for line in item]

    @property
    def entries(self) -> list[Entry]:
        """What the file says; ValueError has all errors."""
        raise_all(self.errors)
        return [item for item in self.items if isinstance(item, Entry)]

    @functools.cached_property
    def names(self) -> list[tuple[str, ...]]:
        """The names of each recording whose labels it has; () of one without a name."""
        entries = [item.recordings for item in self.items if isinstance(item, Entry)]
        return list(dict.fromkeys([*self.labelled, *entries]))

    def timed(
        self, procedure: Procedure, terms: Terms, recording: str, with_pictures: bool = False
    ) -> list[TimedStep]:
        """Returns the steps of a recording, in order of their times.

        Args:
            terms: words for steps, and the rate of the tool's frames.
            recording: whose labels are wanted, of a file with several.
            with_pictures: whether those of the recording are at hand, so that numbers of pictures
                go by these and not by the tool's rate.

        Raises:
            ValueError: all errors of the file, each with its line (or entry) and field.
        """
        steps, errors, found = Steps(procedure, terms.words), list[str](), list[TimedStep]()
        tolerance = 0.0 if self._is_table else ROUNDED
        for item in self._of_recording(recording):
            if isinstance(item, list):
                errors += item
                continue
            try:
                step_id = steps.find(item.text, f"{self.path}: {item.place}: step")
                at, unit = self._when(item, terms, with_pictures)
            except ValueError as error:
                note(errors, error)
                continue
            if step_id is not None:
                found.append(TimedStep(at, item.place, step_id, unit, tolerance))
        raise_all(errors)
        return sorted(found, key=lambda step: step.at)

    def _of_recording(self, name: str) -> Sequence[Item]:
        """What is said of a recording, where a tool has put several into a file."""
        if len(self.names) < 2:
            return self.items
        if any(name in group for group in self.names):
            return [i for i in self.items if isinstance(i, list) or name in i.recordings]
        groups = self.names[:10]
        found = ", ".join(files.shorten(group[-1] if group else "(none)") for group in groups)
        raise ValueError(
            f"{self.path}: has labels of several recordings ({found}), none of them "
            f"{files.shorten(name)}; put the file beside the labels of other recordings, in no "
            "folder that is one's"
        )

    def _when(self, entry: Entry, terms: Terms, with_pictures: bool) -> tuple[float, Unit]:
        """When an entry is complete, by what this recording counts."""
        of_tool = entry.unit in (Unit.TICKS, Unit.COUNTED)
        if entry.unit is Unit.PICTURES:
            of_tool = not with_pictures
        if of_tool and terms.fps is not None:
            return entry.at / terms.fps, Unit.SECONDS
        if entry.unit is Unit.TICKS:
            raise ValueError(
                f"{self.path}: {entry.place}: time: counts frames at the rate set in the tool, "
                "which the file does not say; give --labels_fps=F"
            )
        return entry.at, Unit.FRAMES if entry.unit is Unit.COUNTED else entry.unit

    def read(
        self,
        procedure: Procedure,
        variant: Variant | None,
        terms: Terms,
        recording: str,
        video: Pictures | None = None,
    ) -> Labels:
        """Returns the labels of a recording; frames count from 0, or from the video's first one.

        Args:
            variant: of the recording, whose initial state labels start from; None if it is not
                known, which leaves their changes unchecked and the result empty.
            video: of the recording, by whose pictures labels go; None if it is not at hand.

        Raises:
            ValueError: of `timed` and of `label_times.to_frames`.
        """
        timed = self.timed(procedure, terms, recording, video is not None)
        if variant is None:
            states = procedure.states[:0]
            return Labels([], [], states[:, 0].astype(int), states)
        initial = variant.initial_state
        first_state, changes = label_times.to_frames(self.path, timed, initial, procedure, video)
        first = 0 if video is None else video.first_frame
        frames, states = steps_to_states(changes, first_state, first)
        said = self.content
        if len(self.names) > 1:  # those of others may change
            said = repr([(step.at, step.unit.value, step.step_id) for step in timed]).encode()
        digest = zlib.crc32(terms.fingerprint.encode(), zlib.crc32(said))
        steps, with_errors = (states_to_steps(frames, states, wrong) for wrong in (False, True))
        return Labels(steps, with_errors, frames, states, {}, digest)


# --- Tables ---------------------------------------------------------------------------------------


def _time_columns(names: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of a table that say when; None if its header is none of ours."""
    if "step" not in names or ("time" in names and "end" in names):
        return None
    return next((columns for columns in _COLUMNS if set(columns) <= set(names)), None)


def _read_table(source: Source) -> list[Item]:
    names = [field.strip().lower() for field in source.rows[0][1]]
    decimal_comma, columns = source.delimiter != ",", _time_columns(names) or ()

    def parse(line: csvfile.Line, row: list[str]) -> list[Entry]:
        line.check_width(row[: len(names)], names)
        field = dict(zip(names, row, strict=False))
        text, place = field["step"].strip(), f"line {line}"
        if columns == ("frame",):
            return [Entry(text, line.frame(field["frame"]), Unit.COUNTED, place)]
        times = [_seconds(field[name], decimal_comma, line, name) for name in columns]
        if times[0] > times[-1]:
            what = f"{field['end'].strip()} is before the start, {field['start'].strip()}"
            raise line.error("end", what)
        return [Entry(text, times[-1], Unit.SECONDS, place)]

    return each([row for row in source.rows[1:] if any(map(str.strip, row[1]))], parse)


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
