"""Drafts a file that says which steps the words in labels stand for.

    python -m data_prep.labels map --procedure=FILE --labels=DIR --out=words.csv

The labels may be of any format that --labels takes elsewhere. The file that is made has a line
`word,step,how` for every different word in them: a word that is a step's name or id stands for that
step, any other for the step whose name is most like it. Correct the column `step` (leave it empty
for words that are no step, such as those of another tier), then give the file as --words.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

from absl import logging

from data_prep import command
from stormpsr_jax.base import files
from stormpsr_jax.base.mistakes import first_of, raise_all
from stormpsr_jax.psr.files import csvfile, label_files, words
from stormpsr_jax.psr.files.formats import formats
from stormpsr_jax.psr.procedure import Procedure


def draft(procedure: Procedure, labels: str | Path, out: str | Path) -> int:
    """Writes the words of all labels, each with the nearest step; see the module's docstring.

    Args:
        procedure: whose steps they are.
        labels: folder of labels. Those of PSR files are numbers, and have no words.
        out: the CSV file to write, which must not exist.

    Returns:
        the number of words.

    Raises:
        ValueError: all mistakes in the labels; there are no words; `out` exists.
    """
    if os.path.lexists(out):
        raise ValueError(f"--out={out}: exists; give another name, so that no correction is lost")
    texts: list[str] = []
    mistakes: list[str] = []
    for place in label_files.find(labels).values():
        if place.is_dir():
            continue
        try:
            texts += [entry.text for entry in formats.read(place)[1]]
        except ValueError as error:
            mistakes += first_of(error, place)
    raise_all(mistakes)
    rows = words.draft(texts, procedure)
    if not rows:
        raise ValueError(f"--labels={labels}: no words are in it, PSR label files alone")
    with files.replacing(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*words.HEADER, "how"])
        table.writerows([csvfile.plain(word), step, how] for word, step, how in rows)
    return len(rows)


def _act(action: str, procedure: Procedure, labels: str, out: str) -> None:
    del action  # there is one
    logging.info(
        "%s: %d words; correct them, then give it as --words", out, draft(procedure, labels, out)
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser(
        "map", help="draft the steps that words in labels stand for"
    ).add_argument
    add("--procedure", required=True, metavar="FILE", help="procedure file of the product")
    add("--labels", required=True, metavar="DIR", help="folder of the labels")
    add("--out", required=True, metavar="FILE", help="the CSV file to write")


main = command.command("labels", __doc__, _add_flags, _act, interrupted="")

if __name__ == "__main__":
    sys.exit(main(None))
