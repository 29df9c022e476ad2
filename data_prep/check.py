"""Verifies a folder of clip shards, and shows what is in it.

    python -m data_prep.check DIR                 reads all labels and a sample of the pictures
    python -m data_prep.check DIR --all           reads and decodes everything
    python -m data_prep.check DIR --out=PAGE.html

Prints a line for each problem (what is wrong, where, what to do), then the statistics of each
split and how many boxes agree with the step labels, and writes a page with pictures around the
completions and of boxes of each state beside its parts, DIR/check.html unless --out names another
file. Exit code 0: no problem; 1: problems; 2: wrong usage.

Warnings are facts to know that need not be wrong, such as shipped labels that list other steps than
the states do. array_record keeps a checksum of each record and compares it on reading. With
`--all` the files are also compared with the folder's `SHA256SUMS`; if there is none, and there are
no problems, the list is written beside the page. `sha256sum -c SHA256SUMS` checks copies with it.
"""

import argparse
import sys
from pathlib import Path

from data_prep import command
from data_prep.checking.boxes import agreement, find_shift
from data_prep.checking.check_page import write_page
from data_prep.checking.checked import Checked
from data_prep.checking.folder import check_folder, check_sums
from data_prep.checking.statistics import Statistics, split_statistics, table


def statistics(checked: Checked) -> dict[str, Statistics]:
    """The statistics of each split of a checked folder."""
    return {
        split: split_statistics(
            list(recordings.values()), checked.procedure, checked.fps, checked.steps[split]
        )
        for split, recordings in checked.splits.items()
    }


def print_statistics(numbers: dict[str, Statistics]) -> None:
    """Prints the table of statistics, a column per split."""
    rows = [("", list(numbers)), *table(numbers)]
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(numbers))]
    for name, cells in rows:
        columns = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        print(name.ljust(first), *columns, sep="  ")


def check(directory: str | Path, *, everything: bool = False, out: str | Path | None = None) -> int:
    """Checks a folder, prints what is found and writes the page; see the module's docstring.

    Returns:
        The number of problems.

    Raises:
        ValueError: there are no clip shards at `directory`, or its list of checksums is no file.
        OSError: the page cannot be written.
    """
    directory = Path(directory)
    page = Path(out) if out else directory / "check.html"
    checked = check_folder(directory, everything=everything)
    if isinstance(checked, Checked):
        checked.problems += find_shift(checked)
    if everything:
        check_sums(checked, page.parent)
    for problem in checked.problems:
        print(f"problem: {problem}")
    for warning in checked.warnings:
        print(f"warning: {warning}")
    if isinstance(checked, Checked) and checked.splits:
        numbers = statistics(checked)
        print_statistics(numbers)
        if line := agreement(checked):
            print(line)
        write_page(page, checked, numbers)
        print(f"page: {page}")
    pictures = "every picture decoded" if everything else "a sample of pictures decoded"
    print(
        f"{len(checked.problems)} problems, {len(checked.warnings)} warnings "
        f"({checked.num_decoded:,} frames: {pictures})"
    )
    return len(checked.problems)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("directory", metavar="DIR", help="the --out of a data_prep command")
    what = "read and decode every frame"
    add("--all", action="store_true", dest="everything", help=what)
    add("--out", metavar="FILE", help="the page; default DIR/check.html")


main = command.command("check", __doc__, _add_flags, check, failed=bool, interrupted="")

if __name__ == "__main__":
    sys.exit(main())
