"""Tables by people: `time,step`, `start,end,step` or `frame,step`, as CSV or tab-separated text.

Times are seconds, or m:ss or h:mm:ss with a decimal point. Rows may be in any order, other columns
are not read, and files that a spreadsheet has saved with semicolons and decimal commas are
understood. With the header alone there are no labels in it.

In a spreadsheet (.xlsx) the first sheet is such a table. Formulas are refused.
"""

import datetime
import re
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

from stormpsr_jax.base import files, installed
from stormpsr_jax.base.errors import for_each, one_line
from stormpsr_jax.psr.files import csvfile
from stormpsr_jax.psr.files.formats import form, xml_tree

# At most nine digits: no recording is as long, and no frame number is too large. Behind a colon are
# two, as nobody knows whether 5:2 is 5:02 or 5:20.
_TIME = re.compile(
    r"(?:([0-9]{1,9}):(?=[0-9]{2}:))?(?:([0-9]{1,9}):(?=[0-9]{2}\b))?([0-9]{1,9}(?:\.[0-9]*)?)",
    re.ASCII,
)
_KINDS = (("start", "end"), ("time",), ("frame",))


def kind_of(names: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of a table that say when; None if its header is none of ours."""
    if "step" not in names or ("time" in names and "end" in names):
        return None
    return next((kind for kind in _KINDS if set(kind) <= set(names)), None)


def read_rows(
    rows: Sequence[csvfile.Row], sample: form.Sample, decimal_comma: bool
) -> list[form.Entry]:
    """Reads the rows of a table with a header of ours.

    Raises:
        ValueError: all errors, each with file, line and field.
    """
    names = form.lowered(rows[0][1])
    time_names = kind_of(names) or ()

    def parse(line: csvfile.Line, row: list[str]) -> form.Entry:
        line.check_width(row[: len(names)], names)
        field = dict(zip(names, row, strict=False))
        place = f"line {line}"
        if time_names == ("frame",):
            frame = line.frame(field["frame"])
            return form.Entry(field["step"].strip(), frame, form.Unit.COUNTED, place)
        times = [parse_time(field[n], decimal_comma, line, n) for n in time_names]
        if times[0] > times[-1]:
            what = f"{field['end'].strip()} is before the start, {field['start'].strip()}"
            raise line.error("end", what)
        return form.Entry(field["step"].strip(), times[-1], form.Unit.SECONDS, place)

    def checked(line: csvfile.Line, row: list[str]) -> form.Entry:
        sample.check(entry := parse(line, row))
        return entry

    return for_each([row for row in rows[1:] if any(map(str.strip, row[1]))], checked)


def parse_time(text: str, decimal_comma: bool, line: csvfile.Line, field: str) -> float:
    """Returns the seconds of 75.5, 1:15.5 or 0:01:15.5."""
    text = text.strip()
    match = _TIME.fullmatch(text.replace(",", ".") if decimal_comma else text)
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0, 0, 0)
    wrong = match and ((match[2] and seconds >= 60) or (match[1] and minutes >= 60))
    if not match or wrong:
        what = f"{files.shorten(text)} is not a time such as 75.5, 1:15.5 or 0:01:15.5"
        what += ", with two digits behind a colon" * (":" in text)
        raise line.error(field, what)
    return 3600 * hours + 60 * minutes + seconds


def _read(sample: form.Sample) -> list[form.Entry]:
    return read_rows(sample.rows, sample, sample.delimiter != ",")


FORMAT = form.Format(
    key="csv",
    name="CSV or tab-separated text with the header time,step or start,end,step or frame,step",
    clock="seconds as they stand; `frame` is a frame of the product, as in PSR label files, or "
    "counts at --labels_fps",
    forms=(
        form.Form(
            (form.IS_TABLE, form.Mark("such a header", lambda s: kind_of(s.columns) is not None)),
            _read,
        ),
    ),
    tolerance=0.0,
)


# --- Spreadsheets ---------------------------------------------------------------------------------


MAX_UNPACKED = 2**27  # bytes of all parts of a file
MAX_ROWS = 100_000
_MAX_COLUMNS = 100


def _is_spreadsheet(sample: form.Sample) -> bool:
    try:
        with zipfile.ZipFile(sample.path) as file:
            return "xl/workbook.xml" in file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _read_sheet(sample: form.Sample) -> list[form.Entry]:
    sample.check_size()
    try:
        import openpyxl
    except ImportError as missing:
        raise ValueError(
            f"{sample.path}: needs openpyxl: {installed.extra('labels')} (or save it as CSV)"
        ) from missing
    try:
        _check_parts(sample)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and the like
            book = openpyxl.load_workbook(sample.path, read_only=True)
            rows = _rows(book.worksheets[0], sample) if book.worksheets else []
    # What openpyxl raises of a damaged file depends on where it is damaged.
    except Exception as wrong:
        if isinstance(wrong, ValueError) and str(wrong).startswith(str(sample.path)):
            raise
        what = one_line(f"{type(wrong).__name__}: {wrong}", 200)
        raise ValueError(f"{sample.path}: no spreadsheet that can be read ({what})") from wrong
    names = form.lowered(rows[0][1]) if rows else []
    if kind_of(names) is None:
        found = files.shorten(",".join(names))
        what = f"header: {found} is neither time,step nor start,end,step nor frame,step"
        raise sample.error("line 1", f"{what}; put the one that fits into the first row")
    return read_rows(rows, sample, False)


def _check_parts(sample: form.Sample) -> None:
    """Raises ValueError if the parts are too large, or have document types and so entities."""
    with zipfile.ZipFile(sample.path) as file:
        if (size := sum(part.file_size for part in file.infolist())) > MAX_UNPACKED:
            raise ValueError(
                f"{sample.path}: has {size} bytes unpacked, more than {MAX_UNPACKED}; save the "
                "labels in a file of their own"
            )
        for part in file.namelist():  # whatever it is called, the workbook may name it as a sheet
            xml_tree.check_without_types(file.read(part), f"{sample.path}: {part}")


def _rows(sheet: Any, sample: form.Sample) -> list[csvfile.Row]:
    """The rows that are not empty, as texts, each as long as the header."""
    sheet.reset_dimensions()  # what a file says of them need not be true
    rows: list[csvfile.Row] = []
    width = 0
    for number, cells in enumerate(sheet.iter_rows(max_col=_MAX_COLUMNS), start=1):
        line = csvfile.Line(sample.path, number)
        if number > MAX_ROWS:
            raise ValueError(f"{sample.path}: a sheet of labels has {MAX_ROWS} rows at most")
        texts = [_text(cell, line) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        if texts:
            width = width or len(texts)
            rows.append((line, texts + [""] * (width - len(texts))))
    return rows


def _text(cell: Any, line: csvfile.Line) -> str:
    """A cell as in a CSV file: Excel makes a time of day of 0:05, with or without its own help."""
    value = cell.value
    if cell.data_type == "f":
        raise line.error(f"cell {cell.coordinate}", "holds a formula; paste its value instead")
    if isinstance(value, datetime.time):
        value = datetime.datetime.combine(datetime.date.min, value) - datetime.datetime.min
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value).strip()


SPREADSHEET = form.Format(
    key="xlsx",
    name="a spreadsheet (.xlsx) with the same header in its first sheet",
    clock="as in CSV; a cell with a time of day is that long after the first picture",
    forms=(
        form.Form(
            (
                form.Mark("a zip file", lambda sample: sample.kind == "zip"),
                form.Mark("a workbook in it", _is_spreadsheet),
            ),
            _read_sheet,
        ),
    ),
    tolerance=0.0,
)
