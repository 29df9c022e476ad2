"""The label formats, and how a file finds its own: by what is in it, whatever it is called."""

import os
from typing import NamedTuple

from stormpsr_jax.base import files
from stormpsr_jax.psr.files.formats import (
    boris,
    cvat,
    elan,
    label_studio,
    subtitles,
    tables,
    via,
)
from stormpsr_jax.psr.files.formats.form import Entry, Format, Sample

# In a comment of VIA's CSV stands JSON, which cannot be read as a table: it is looked for first.
# Then come tables of people: a column more does not make them a tool's.
FORMATS = (
    label_studio.FORMAT,
    via.FORMAT,
    tables.FORMAT,
    tables.SPREADSHEET,
    elan.FORMAT,
    boris.FORMAT,
    cvat.FORMAT,
    subtitles.FORMAT,
)
WRITTEN = {form.key: form for form in FORMATS if form.write is not None}
# Files with these endings are labels; those with `MAYBE` are if a format recognises them.
CERTAIN = (".csv", ".tsv", ".eaf", ".srt", ".vtt", ".xlsx")
MAYBE = (".json", ".xml", ".txt", ".zip")


class Parsed(NamedTuple):
    """What a label file says.

    Attributes:
        entries: in the order of the file.
        recordings: the names of each recording whose labels it has; () of one without a name.
        unlabelled: see `Sample`.
    """

    format: Format
    entries: list[Entry]
    recordings: list[tuple[str, ...]]
    unlabelled: list[tuple[str, ...]]


def is_label_file(sample: Sample) -> bool:
    """Says whether a file has labels; ValueError: it seems to have, but cannot be read."""
    name = str(sample.path).lower()
    if name.endswith(".txt"):
        text = Sample(sample.path)
        if _is_prose(text):
            return False
        text.text += "\n"  # whether its last line is whole, a reader says
        return find(text) is not None
    return name.endswith(CERTAIN) or (name.endswith(MAYBE) and find(sample) is not None)


def _is_prose(sample: Sample) -> bool:
    """Whether a text is no table and no subtitles, such as a README."""
    head = sample.text[:4096]
    return not any(sign in head.partition("\n")[0] for sign in "\t,;") and "-->" not in head


def find(sample: Sample) -> Format | None:
    """The format of a file; None if it has none of them."""
    return next((form for form in FORMATS if form.recognises(sample)), None)


def read(file: Sample | str | os.PathLike) -> Parsed:
    """Reads a label file of any format.

    Raises:
        ValueError: all errors, each with file and line or entry; of a file that is of no format,
            the formats and what it lacks of the one that comes closest.
    """
    sample = file if isinstance(file, Sample) else Sample(file)
    for format_ in FORMATS:
        if (form := format_.recognises(sample)) is not None:
            entries = form.read(sample)
            groups = dict.fromkeys([*sample.recordings, *(entry.recordings for entry in entries)])
            return Parsed(format_, entries, list(groups), sample.unlabelled)
    raise ValueError(_unknown(sample))


def _unknown(sample: Sample) -> str:
    tools = [form for form in FORMATS if form is not tables.FORMAT]
    names = ", ".join(form.name for form in tools)
    closest = max(tools, key=lambda form: form.closest(sample)[0])
    _, held, missing = closest.closest(sample)
    # That a file is a text says nothing yet.
    says = held > (sample.kind == "text")
    near = f"; closest is {closest.name}, but it lacks {missing}" if says else ""
    if sample.kind == "text":
        found = files.shorten(",".join(sample.columns))
        return (
            f"{sample.path}: line 1: header: {found} is neither time,step nor start,end,step nor "
            f"frame,step; put the one that fits as the first line (or give PSR_labels.csv in a "
            f"folder of the recording's name), or give a file of {names}{near}"
        )
    return (
        f"{sample.path}: is of no label format that is known: {names}, {tables.FORMAT.name}{near}"
    )
