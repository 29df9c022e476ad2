"""Tables by people: `time,step`, `start,end,step` or `frame,step`, as CSV or tab-separated text.

Times are seconds, or m:ss or h:mm:ss with a decimal point. Rows may be in any order, other columns
are not read, and files that a spreadsheet has saved with semicolons and decimal commas are
understood. With the header alone there are no labels in it.
"""

import re
from collections.abc import Sequence

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.formats.sample import Entry, Format, Sample, Unit, lowered

# At most nine digits: no recording is as long, and no frame number is too large. Behind a colon are
# two, as nobody knows whether 5:2 is 5:02 or 5:20.
_TIME = re.compile(
    r"(?:([0-9]{1,9}):(?=[0-9]{2}:))?(?:([0-9]{1,9}):(?=[0-9]{2}\b))?([0-9]{1,9}(?:\.[0-9]*)?)",
    re.ASCII,
)
_KINDS = (("start", "end"), ("time",), ("frame",))


def _kind_of(names: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of a table that say when; None if its header is none of ours."""
    if "step" not in names or ("time" in names and "end" in names):
        return None
    return next((kind for kind in _KINDS if set(kind) <= set(names)), None)


def _read(sample: Sample) -> list[Entry]:
    names, decimal_comma = lowered(sample.rows[0][1]), sample.delimiter != ","
    time_names = _kind_of(names) or ()

    def parse(line: csvfile.Line, row: list[str]) -> Entry:
        line.check_width(row[: len(names)], names)
        field = dict(zip(names, row, strict=False))
        place = f"line {line}"
        if time_names == ("frame",):
            frame = line.frame(field["frame"])
            return Entry(field["step"].strip(), frame, Unit.COUNTED, place)
        times = [_seconds(field[n], decimal_comma, line, n) for n in time_names]
        if times[0] > times[-1]:
            what = f"{field['end'].strip()} is before the start, {field['start'].strip()}"
            raise line.error("end", what)
        return Entry(field["step"].strip(), times[-1], Unit.SECONDS, place)

    def checked(line: csvfile.Line, row: list[str]) -> Entry:
        sample.check(entry := parse(line, row))
        return entry

    return for_each([row for row in sample.rows[1:] if any(map(str.strip, row[1]))], checked)


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


FORMAT = Format(
    "CSV or tab-separated text with the header time,step or start,end,step or frame,step",
    lambda sample: sample.kind == "text" and _kind_of(sample.columns) is not None,
    _read,
    tolerance=0.0,
)
