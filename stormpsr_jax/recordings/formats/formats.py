"""The label formats, and how a file finds its own: by what is in it, whatever it is called."""

import os
from collections.abc import Callable
from typing import NamedTuple

from stormpsr_jax.base import files, folders
from stormpsr_jax.recordings.formats import cvat, elan, label_studio, tables
from stormpsr_jax.recordings.formats.sample import Entry, Format, Sample

FORMATS = (tables.FORMAT, label_studio.FORMAT, cvat.FORMAT, elan.FORMAT)
_TOOLS = ", ".join(form.name for form in FORMATS if form is not tables.FORMAT)
# Files with these endings are labels, in a form that is read or not; those with `MAYBE` are if a
# format recognises them.
CERTAIN = (".csv", ".tsv", ".eaf", ".srt", ".vtt", ".xlsx")
MAYBE = (".json", ".xml", ".txt")


class Parsed(NamedTuple):
    """What a label file says.

    Attributes:
        entries: in the order of the file.
        recordings: the names of each recording whose labels it has; () of one without a name.
    """

    format: Format
    entries: list[Entry]
    recordings: list[tuple[str, ...]]


class UnknownFormatError(ValueError):
    """A file is of no format that is read."""


def read(path: str | os.PathLike, check: Callable[[Entry], object] | None = None) -> Parsed:
    """Reads a label file of any format; `check` as of `Sample`.

    Raises:
        UnknownFormatError: it is of none; names those that there are.
        ValueError: all errors, each with file and line or entry.
    """
    if folders.is_archive(path):
        what = "archives are not read; unpack it, and give what is in it"
        raise UnknownFormatError(f"{path}: {what}")
    sample = Sample(path, check)
    form = next((form for form in FORMATS if form.recognises(sample)), None)
    if form is None:
        raise UnknownFormatError(_unknown(sample))
    entries = form.read(sample)
    groups = dict.fromkeys([*sample.recordings, *(entry.recordings for entry in entries)])
    return Parsed(form, entries, list(groups))


def is_prose(path: str | os.PathLike) -> bool:
    """Whether a text is no table, such as a README; ValueError if it cannot be read."""
    return not any(sign in Sample(path).text[:4096].partition("\n")[0] for sign in "\t,;")


def _unknown(sample: Sample) -> str:
    if sample.kind != "text":
        what = f"{tables.FORMAT.name}, PSR_labels.csv, {_TOOLS}"
        pack = " (save a spreadsheet as CSV)" * (sample.kind == "zip")
        return f"{sample.path}: is of no label format that is read: {what}{pack}"
    found = files.shorten(",".join(sample.columns))
    return (
        f"{sample.path}: line 1: header: {found} is neither time,step nor start,end,step nor "
        "frame,step; put the one that fits as the first line (or give PSR_labels.csv in a folder "
        f"of the recording's name), or give a file of {_TOOLS}"
    )
