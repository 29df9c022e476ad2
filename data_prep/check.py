"""Shows what is in a folder of clip shards, with its errors and warnings.

    python -m data_prep.check DIR                 opens it, decodes a few pictures a recording
    python -m data_prep.check DIR --all           decodes everything
    python -m data_prep.check DIR --out=PAGE.html

Prints a line for each problem (what is wrong, where, what to do), then the statistics of each
split and how many boxes agree with the step labels, and writes a page with pictures around the
completions and of boxes of each state beside its parts, DIR/check.html unless --out names another
file. Exit code 0: no problem; 1: problems; 2: wrong usage.

Warnings are facts to know that need not be wrong, such as a step before another that precedes it.
array_record keeps a checksum of each record and compares it on reading.
"""

import argparse
import sys
from pathlib import Path

from data_prep import command
from data_prep.checking import folder
from data_prep.checking.boxes import agreement, find_shift
from data_prep.checking.check_page import write_page
from data_prep.checking.statistics import Statistics, split_statistics, table


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
        ValueError: there are no clip shards at `directory`, or their preparation was not finished.
        OSError: the page cannot be written.
    """
    checked = folder.open_folder(directory)
    folder.check_pictures(checked, everything)
    checked.problems += find_shift(checked)
    for problem in checked.problems:
        print(f"problem: {problem}")
    for warning in checked.warnings:
        print(f"warning: {warning}")
    numbers = {
        split: split_statistics(
            list(source.recordings.values()), checked.procedure, source.fps, checked.steps[split]
        )
        for split, source in checked.sources.items()
    }
    if numbers:
        print_statistics(numbers)
        if line := agreement(checked):
            print(line)
        page = Path(out) if out else Path(directory, "check.html")
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
    what = "decode every frame"
    add("--all", action="store_true", dest="everything", help=what)
    add("--out", metavar="FILE", help="the page; default DIR/check.html")


main = command.command("check", __doc__, _add_flags, check, failed=bool, interrupted="")

if __name__ == "__main__":
    sys.exit(main())
