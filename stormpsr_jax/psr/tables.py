"""Tables as text, CSV and Markdown."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.base.errors import visible
from stormpsr_jax.recordings import csvfile

FORMATS = ("text", "csv", "markdown")
FLAG: dict[str, Any] = {"choices": FORMATS, "default": "text"}  # of commands that print tables


def format_rows(rows: Sequence[Mapping[str, Any]], form: str = "text") -> str:
    """Returns a table with a column per key of the first row.

    Args:
        rows: one mapping per row, all with the same keys; None is shown as a dash, in CSV as an
            empty field; fractions with three decimals, in CSV in full.
            Texts of outside cannot become formulas or escape sequences.
        form: "text", "csv" (for programs) or "markdown"; ValueError for another.
    """
    if form not in FORMATS:
        raise ValueError(f"form={form} is not one of {', '.join(FORMATS)}")
    if not rows:
        return ""
    header = list(rows[0])
    numeric = [all(isinstance(row[key], int | float | None) for row in rows) for key in header]
    if form == "csv":
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_field(row[key]) for key in header] for row in rows)
        return file.getvalue().rstrip("\n")
    cells = [[_cell(row[key]) for key in header] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    aligned = [
        [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        for row in [header, *cells]
    ]
    if form == "text":
        return "\n".join("  ".join(row).rstrip() for row in aligned)
    rule = ["-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numeric, strict=True)]
    aligned = [[c.replace("|", r"\|") for c in row] for row in aligned]
    return "\n".join(f"| {' | '.join(row)} |" for row in [aligned[0], rule, *aligned[1:]])


def _field(value: Any) -> Any:
    """Of CSV: a name that would be a formula in a spreadsheet is a text there too."""
    if value is None:
        return ""
    return visible(csvfile.plain(value)) if isinstance(value, str) else value


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else visible(str(value))
