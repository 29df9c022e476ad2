"""Looks at labels before they are trained on, and maps words that are not the steps'.

    python -m data_prep.labels check DIR --procedure=FILE
    python -m data_prep.labels map --procedure=FILE --labels=DIR --out=words.csv

The labels may be of any format that --labels takes elsewhere. `check` counts what happened to each
part, and warns of what looks wrong and of what there is too little of (docs/own-product.md).
Warnings are no errors: the exit status is 0.

`map` drafts a file that says which steps the words in labels stand for. It has a line
`word,step,how` for every different word in them: a word that is a step's name or id stands for that
step, any other for a step of the component whose name is in it; without one, `step` is empty.
Correct that column (leave it empty for words that are no step, such as those of another tier), then
give the file as --words.
"""

import argparse
import contextlib
import csv
import itertools
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from absl import logging

from data_prep import command
from data_prep.notes import ENOUGH_VIDEOS, ENOUGH_WRONG
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each, one_line
from stormpsr_jax.psr import monitor
from stormpsr_jax.psr.cli import add_label_flags
from stormpsr_jax.recordings import csvfile, find, words
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.words import Terms

WINDOW = 64  # frames of a clip in configs/own.py
# What says, beside a component's name, that it is put on wrong, or taken off.
_WRONG = frozenset("wrong wrongly incorrect incorrectly bad badly misplaced crooked".split())
_OFF = frozenset(
    "off out remove removed removing removal detach detached disassemble disassembled "
    "unscrew unscrewed loosen loosened dismount dismounted".split()
)


def check(
    procedure: Procedure, labels: str | Path, terms: Terms, window: int
) -> tuple[list[str], list[str]]:
    """Reads all labels, counts what is in them and warns of what looks wrong.

    Returns the table of recordings and of each part's steps, and the warnings, a line each;
    ValueError has all errors in the labels.
    """
    recordings, steps = Counter[str](), Counter[int]()
    warnings_of: list[tuple[str, monitor.LabelWarning]] = []
    empty: list[str] = []

    def look(name: str, place: LabelPlace) -> None:
        variant = procedure.variant_for(name)
        read = place.read(procedure, variant, terms=terms, recording=name)
        recordings[variant.name] += 1
        steps.update(step for _, step in read.with_errors)
        warnings = monitor.check_labels(procedure, variant, read, window)
        warnings_of.extend((name, warning) for warning in warnings)
        empty.extend(monitor.without_steps(variant, read, place))

    for_each(find.find(labels).items(), look)
    lines = empty + _never_seen(procedure, recordings, steps)
    lines += monitor.group_warnings(warnings_of, procedure.fps)
    lines += _too_few(procedure, recordings, steps)
    return _table(procedure, recordings, steps), lines


def _never_seen(procedure: Procedure, recordings: Counter[str], steps: Counter[int]) -> list[str]:
    expected = {step: None for name in recordings for step in procedure.variants[name].expected}
    lines = [
        f"variant {name} has no recording" for name in procedure.variants if name not in recordings
    ]
    unseen = [procedure.step_name(step) for step in sorted(expected) if not steps[step]]
    if unseen:
        lines.append(f"expected, but in no recording: {', '.join(unseen)}")
    return lines


def _too_few(procedure: Procedure, recordings: Counter[str], steps: Counter[int]) -> list[str]:
    lines = []
    if recordings.total() < ENOUGH_VIDEOS:
        lines.append(f"{recordings.total()} recordings; our measurements suggest {ENOUGH_VIDEOS}")
    few = {
        name: steps[3 * k + 1]
        for k, name in enumerate(procedure.components)
        if steps[3 * k + 1] < ENOUGH_WRONG
    }
    if few:
        named = ", ".join(f"{name} {count}" for name, count in few.items())
        lines.append(
            f"few incorrect installations of {named}; our measurements suggest {ENOUGH_WRONG} or "
            "more of each part: film rehearsals"
        )
    return lines


def _table(procedure: Procedure, recordings: Counter[str], steps: Counter[int]) -> list[str]:
    named = ", ".join(f"{name} {count}" for name, count in sorted(recordings.items()))
    width = max(map(len, procedure.components))
    lines = [
        f"{recordings.total()} recordings ({named}), {steps.total()} steps",
        f"{'part':<{width}}  installed  incorrect  removed",
    ]
    for k, name in enumerate(procedure.components):
        counts = [steps[3 * k + i] for i in range(3)]
        lines.append(f"{name:<{width}}  {counts[0]:>9}  {counts[1]:>9}  {counts[2]:>7}")
    return lines


# --- Words ----------------------------------------------------------------------------------------


def draft(procedure: Procedure, labels: str | Path, out: str | Path) -> int:
    """Writes the words of all labels, each with a guess of its step; returns how many there are.

    ValueError: all errors in the labels; there are no words; `out` exists.
    """
    if os.path.lexists(out):
        raise ValueError(f"--out={out}: exists; give another name, so that no correction is lost")
    places = {at: None for at in find.find(labels).values() if at.is_file}
    entries = for_each([(place,) for place in places], lambda place: place.entries)
    texts = {entry.text.casefold(): entry.text for entry in itertools.chain(*entries)}
    if not texts:
        raise ValueError(f"--labels={labels}: holds PSR label files alone, which have no words")
    with files.replacing(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*words.HEADER, "how"])
        for word in sorted(texts.values(), key=str.casefold):
            table.writerow([csvfile.plain(word), *_guess(word, procedure)])
    return len(texts)


def _guess(word: str, procedure: Procedure) -> tuple[str, str]:
    """The step of a word and how it was found: the one component whose name is in it."""
    with contextlib.suppress(ValueError):
        step = words.Steps(procedure).of_procedure(word, "")
        return procedure.step_name(step), "is a step"
    spaced = f" {_spaced(word)} "
    parts = {
        _spaced(name): k
        for k, name in enumerate(procedure.components)
        if any(f" {_spaced(name)}{s} " in spaced for s in ("", "s"))
    }
    longest = max(parts, key=len, default="")
    if not longest or any(name not in longest for name in parts):
        return "", "none found"
    rest = set(spaced.replace(longest, " ").split())
    step = 3 * parts[longest] + (1 if rest & _WRONG else 2 if rest & _OFF else 0)
    return procedure.step_name(step), "by its component"


def _spaced(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().casefold()


def _act(action: str, procedure: Procedure, labels: str, **given: Any) -> None:
    if action == "map":
        count = draft(procedure, labels, given["out"])
        logging.info("%s: %d words; correct them, then use it as --words", given["out"], count)
        return
    terms = words.terms(given["words"], given["labels_fps"], procedure)
    lines, warnings = check(procedure, labels, terms, given["window"])
    lines += [f"warning: {one_line(warning)}" for warning in warnings]
    print("\n".join(lines if warnings else [*lines, "no warnings"]))


def _add_flags(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("check", help="count steps, and warn of what looks wrong").add_argument
    add("labels", metavar="DIR", help="folder of the labels")
    add("--procedure", required=True, metavar="FILE", help="procedure file of the product")
    what = "frames of a clip, the config's window.frames (%(default)s)"
    add("--window", type=command.at_least(1), default=WINDOW, metavar="N", help=what)
    add_label_flags(add)
    add = actions.add_parser(
        "map", help="draft the steps that words in labels stand for"
    ).add_argument
    add("--procedure", required=True, metavar="FILE", help="procedure file of the product")
    add("--labels", required=True, metavar="DIR", help="folder of the labels")
    add("--out", required=True, metavar="FILE", help="the CSV file to write")


main = command.command("labels", __doc__, _add_flags, _act, interrupted="")

if __name__ == "__main__":
    sys.exit(main(None))
