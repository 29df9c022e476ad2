"""Spreadsheets (.xlsx), whose first sheet is a table as in `tables`. Formulas are refused."""

import datetime
import warnings
import zipfile
from typing import Any

from stormpsr_jax.base import files, installed
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.psr.files import csvfile
from stormpsr_jax.psr.files.formats import form, tables, xml_tree

MAX_UNPACKED = 2**27  # bytes of all parts of a file
MAX_ROWS = 100_000
_MAX_COLUMNS = 100


def _is_spreadsheet(sample: form.Sample) -> bool:
    try:
        with zipfile.ZipFile(sample.path) as file:
            return "xl/workbook.xml" in file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _read(sample: form.Sample) -> list[form.Entry]:
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
    if tables.kind_of(names) is None:
        found = files.shorten(",".join(names))
        what = f"header: {found} is neither time,step nor start,end,step nor frame,step"
        raise sample.error("line 1", f"{what}; put the one that fits into the first row")
    return tables.read_rows(rows, sample, False)


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


FORMAT = form.Format(
    key="xlsx",
    name="a spreadsheet (.xlsx) with the same header in its first sheet",
    clock="as in CSV; a cell with a time of day is that long after the first picture",
    forms=(
        form.Form(
            (
                form.Mark("a zip file", lambda sample: sample.kind == "zip"),
                form.Mark("a workbook in it", _is_spreadsheet),
            ),
            _read,
        ),
    ),
    tolerance=0.0,
)
