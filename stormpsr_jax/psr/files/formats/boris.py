"""BORIS: its tabular events, as CSV or TSV. Points and stops are steps.

Times in its exports have the observation's time offset added, which stands in a column, or in a
line above the header.
"""

from collections.abc import Mapping

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files import csvfile
from stormpsr_jax.psr.files.formats import form, tables

_TABULAR = ("behavior", "time")
_TYPES = ("behavior type", "status", "type")  # its name in newer, older and oldest versions
_OFFSET = "time offset (s)"
_MEDIA = ("media file name", "media file path", "media file")


def _table(sample: form.Sample) -> list[tuple[csvfile.Line, dict[str, str]]]:
    """The rows below the header, by column."""
    at = sample.header_with(*_TABULAR)
    assert at is not None
    names = form.lowered(sample.rows[at][1])
    # Older exports have lines about the observation above the header.
    above = [row for _, row in sample.rows[:at] if len(row) > 1]
    offset = {name: row[1].strip() for row in above if (name := form.lowered(row)[0]) == _OFFSET}

    def parse(line: csvfile.Line, row: list[str]) -> tuple[csvfile.Line, dict[str, str]]:
        line.check_width(row[: len(names)], names)
        return line, offset | {n: field.strip() for n, field in zip(names, row, strict=False)}

    return for_each(sample.rows[at + 1 :], parse)


def _recordings(row: Mapping[str, str]) -> tuple[str, ...]:
    media = next((row[name] for name in _MEDIA if row.get(name)), "")
    return tuple(filter(None, (row.get("observation id", ""), *form.recordings_of(media))))


def _time(row: Mapping[str, str], sample: form.Sample, line: csvfile.Line) -> float:
    """Returns the seconds of the medium."""
    comma = sample.delimiter != ","
    time = tables.parse_time(row["time"], comma, line, "time")
    offset = row.get(_OFFSET, "")
    if offset in ("", "NA", "None"):
        return time
    offset = offset.replace(",", ".") if comma else offset
    by = line.number(offset, _OFFSET)
    # Both are rounded to milliseconds.
    return sample.seconds(round(time - by, 3) if by else time, f"line {line}", "time")


def _read(sample: form.Sample) -> list[form.Entry]:
    rows = _table(sample)
    kind = next((name for name in _TYPES if rows and name in rows[0][1]), None)
    begun: dict[tuple[str, ...], csvfile.Line] = {}

    def parse(line: csvfile.Line, row: dict[str, str]) -> list[form.Entry]:
        place = f"line {line}"
        entry = form.Entry(
            row["behavior"],
            _time(row, sample, line),
            form.Unit.SECONDS,
            place,
            _recordings(row),
        )
        said = row[kind].upper() if kind else "POINT"
        state = (*entry.recordings, row.get("subject", ""), entry.text)
        if said == "POINT":
            return [entry]
        if said not in ("START", "STOP"):
            raise sample.error(place, f"{kind}: {files.shorten(said)} is not POINT, START or STOP")
        if (said == "START") == (state in begun):
            what = f"{kind}: {files.shorten(entry.text)} "
            what += f"has begun in line {begun[state]}" if said == "START" else "has not begun"
            raise sample.error(place, f"{what}; correct the observation in BORIS")
        if said == "START":
            begun[state] = line
            return []
        del begun[state]
        return [entry]

    entries = [entry for its in for_each(rows, parse) for entry in its]
    if begun:
        state, line = next(iter(begun.items()))
        what = f"{kind}: {files.shorten(state[-1])} has no STOP; correct the observation in BORIS"
        raise sample.error(f"line {line}", what)
    return entries


FORMAT = form.Format(
    key="boris",
    name="BORIS (tabular events, CSV or TSV)",
    clock="seconds of the first medium, to the millisecond, the observation's time offset taken "
    "off; a step is complete at its point, or at the stop of its state",
    forms=(form.Form(form.has_columns(*_TABULAR), _read),),
    others=(
        form.other(
            form.has_columns("behavior", "start (s)", "stop (s)"),
            "a table of BORIS's aggregated events; give the tabular ones instead: "
            "Observations › Export events › Tabular events, as CSV",
        ),
    ),
)
