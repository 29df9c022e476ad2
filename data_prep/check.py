"""Checks a folder of clip shards, and shows some of its pictures.

    python -m data_prep.check DIR                 opens it, decodes a few pictures a recording
    python -m data_prep.check DIR --all           decodes everything
    python -m data_prep.check DIR --out=SHEET.jpg

Prints a line for each problem (what is wrong, where, what to do) and each split, and how many boxes
agree with the step labels. Warnings are facts to know that need not be wrong. Writes a contact
sheet, DIR/check.jpg unless --out names another file: boxes of each state with its parts, and
pictures around completions. Exit code 0: no problem; 1: problems; 2: wrong usage.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from data_prep import command
from data_prep.checking import contact_sheet
from data_prep.notes import agree


def check(directory: str | Path, *, everything: bool = False, out: str | Path | None = None) -> int:
    """Checks a folder, prints what is found, writes the sheet; returns the number of problems.

    ValueError: there are no clip shards at `directory`, or their preparation was not finished.
    """
    checked = contact_sheet.open_folder(directory)
    contact_sheet.check_pictures(checked, everything)
    of_boxes = _of_boxes(checked)
    for problem in checked.problems:
        print(f"problem: {problem}")
    for warning in checked.warnings:
        print(f"warning: {warning}")
    for line in [*contact_sheet.in_words(checked), *of_boxes]:
        print(line)
    sheet = Path(out) if out else Path(directory, "check.jpg")
    if contact_sheet.write(sheet, checked):
        print(f"contact sheet: {sheet}")
    pictures = "every picture decoded" if everything else "a sample of pictures decoded"
    print(
        f"{len(checked.problems)} problems, {len(checked.warnings)} warnings "
        f"({checked.num_decoded:,} frames: {pictures})"
    )
    return len(checked.problems)


def _of_boxes(checked: contact_sheet.FolderCheck) -> list[str]:
    """Says how many boxes fit the step labels, but for those of renders; [] without boxes."""
    pairs = [np.zeros((2, 0), np.int64)]
    for split, recording in checked.recordings():
        if split != contact_sheet.RENDERS:
            boxed = recording.classes >= 0
            of_states = checked.procedure.state_classes(recording.states[boxed])
            pairs.append(np.stack([recording.classes[boxed], of_states]))
    of_boxes, of_states = np.concatenate(pairs, axis=1)
    if not len(of_boxes):
        return []
    fitting = agree(of_boxes, of_states, checked.procedure).sum()
    return [f"{fitting:,} of {len(of_boxes):,} boxes agree with the step labels of their frames"]


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("directory", metavar="DIR", help="the --out of a data_prep command")
    what = "decode every frame"
    add("--all", action="store_true", dest="everything", help=what)
    add("--out", metavar="FILE", help="the contact sheet, JPEG; default DIR/check.jpg")


main = command.command("check", __doc__, _add_flags, check, failed=bool, interrupted="")

if __name__ == "__main__":
    sys.exit(main())
