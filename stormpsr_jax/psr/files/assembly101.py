"""Mistake annotations of Assembly101 as PSR labels: a pair of joined parts is a component.

An annotation file has no header: ``start,end,verb,this,that,label,remark``, with frames at 30 a
second; some rows have no remark. ``attach`` joins two kinds of parts, ``detach`` takes them apart,
and the label says whether that was correct, a mistake or the correction of one. There are 48 toys,
whose number is in a recording's name (``…_9011-b06b_…`` is of toy b06). Each has the pairs that
occur in its recordings, in either order of the two parts. A row counts from its end on:

* ``attach`` that is correct or a correction: the pair is installed (1);
* ``attach`` that is a mistake: it is incorrect (-1), whatever the remark says;
* ``detach``, whatever its label: it is absent (0).
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files import csvfile, labels
from stormpsr_jax.psr.procedure import Procedure

FPS = 30
MAX_ROWS = 10_000  # of a file; the longest shipped one has 56
MAX_PAIRS = 500  # of a toy
_FIELDS = ["start", "end", "verb", "this", "that", "label", "remark"]
_VERBS = ("attach", "detach")
_LABELS = ("correct", "mistake", "correction")
_TOY = re.compile(r"(?:^|_)[0-9]+-([a-z][0-9]+)[a-z]?_", re.ASCII)
Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Change:
    """What a row says of a pair from a frame on: 1, 0 or -1."""

    frame: int
    pair: Pair
    value: int


def read(
    folder: str | os.PathLike, skip: bool = False
) -> tuple[dict[str, dict[str, list[Change]]], list[str]]:
    """Reads all ``*.csv`` files of a folder; `skip` leaves out rows that are malformed.

    Returns:
        By toy and recording, the changes in their order; and a line for each row left out.

    Raises:
        ValueError: no files; names without a toy; every mistake, with file, line and field.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: is not a folder; --annotations takes one")
    paths = sorted(root.glob("*.csv"))
    if not paths:
        raise ValueError(f"{root}: has no CSV files; --annotations is the folder 'annots'")
    toys: dict[str, dict[str, list[Change]]] = {}
    left_out: list[str] = []

    def one(path: pathlib.Path) -> tuple[str, str, list[Change]]:
        name = files.check_name(path.stem, str(path))
        match = _TOY.search(name)
        if not match:
            raise ValueError(
                f"{path}: the name has no toy, which is the b06b of …_9011-b06b_…; rename the file"
            )
        return match[1], name, _read_file(path, skip, left_out)

    for toy, name, changes in for_each([(path,) for path in paths], one):
        toys.setdefault(toy, {})[name] = changes
    for toy, recordings in toys.items():
        if (number := len(pairs_of(recordings))) > MAX_PAIRS:
            raise ValueError(f"{root}: toy {toy} has {number} pairs, more than {MAX_PAIRS}")
    return toys, left_out


def _read_file(path: pathlib.Path, skip: bool, left_out: list[str]) -> list[Change]:
    # A last line without an end is whole here: a row may lack its remark.
    rows = csvfile.rows_of(files.read_text(path) + "\n", path)
    if len(rows) > MAX_ROWS:
        raise ValueError(f"{path}: has {len(rows):,} rows, more than {MAX_ROWS:,}")

    def parse(line: csvfile.Line, row: list[str]) -> Change | None:
        try:
            return _change(line, row)
        except ValueError as error:
            if not skip:
                raise ValueError(f"{error}; fix the row, or leave it out with --skip") from error
            left_out.append(str(error))
            return None

    return sorted(
        (change for change in for_each(rows, parse) if change is not None),
        key=lambda change: change.frame,
    )


def _change(line: csvfile.Line, row: list[str]) -> Change:
    if len(row) == len(_FIELDS) - 1:
        row = [*row, ""]
    line.check_width(row, _FIELDS)
    start, end = (line.frame(row[i], _FIELDS[i]) for i in (0, 1))
    if end < max(start, 1):
        what = f"frame {end} is before the start, {start}" if end < start else "is frame 0"
        raise line.error("end", what)
    words = [text.strip().lower() for text in row]
    for i, known in ((2, _VERBS), (5, _LABELS)):
        if words[i] not in known:
            what = f"{files.shorten(row[i])} is none of {', '.join(known)}"
            raise line.error(_FIELDS[i], what)
    first, second = sorted(words[3:5])
    for field, name in (("this", words[3]), ("that", words[4]), ("that", f"{first} + {second}")):
        if wrong := files.name_error(name):
            raise line.error(field, f"{files.shorten(name)} {wrong}")
    joined = -1 if words[5] == "mistake" else 1
    return Change(end, (first, second), joined if words[2] == "attach" else 0)


def pairs_of(recordings: Mapping[str, Iterable[Change]]) -> list[Pair]:
    """Returns the pairs of a toy's recordings, sorted: its components."""
    return sorted({change.pair for changes in recordings.values() for change in changes})


def states(changes: Sequence[Change], pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the states of a recording, in which all K pairs are absent at frame 0.

    Of several changes of a pair at one frame, the last one holds. Frames (M,) int64 and states (M,
    K) int8 have a row for each frame at which something changes.
    """
    last = {(change.frame, change.pair): change.value for change in changes}
    steps = [(f, 3 * pairs.index(pair) + {1: 0, -1: 1, 0: 2}[v]) for (f, pair), v in last.items()]
    return labels.steps_to_states(steps, [0] * len(pairs), 0)


def procedure(toy: str, recordings: Mapping[str, Sequence[Change]]) -> Procedure:
    """Returns the product that a toy, such as b06, is, and how it is assembled.

    What occurs without an incorrect part is a catalogued state, and so is the whole. Pairs
    that are joined at the end of more than half of the recordings are expected (all, where none
    is), and every other step is allowed.
    """
    pairs = pairs_of(recordings)
    num = len(pairs)
    rows = [states(changes, pairs)[1] for changes in recordings.values()]
    sound = {tuple(row) for row in np.concatenate(rows).tolist() if -1 not in row and any(row)}
    often = np.mean([of_one[-1] == 1 for of_one in rows], axis=0) > 0.5
    expected = [3 * k for k in range(num) if often[k] or not often.any()]
    steps = [3 * k + kind for k in range(num) for kind in (0, 2)]
    content = {
        "name": f"assembly101 {toy}",
        "fps": FPS,
        "components": [" + ".join(pair) for pair in pairs],
        "states": ["".join(map(str, row)) for row in sorted(sound | {(1,) * num})],
        "variants": {
            "assembly": {
                "initial_state": "0" * num,
                "expected": expected,
                "recordings": [f"*[0-9]-{toy}_*", f"*[0-9]-{toy}[a-z]_*"],
                "allowed": [step for step in steps if step not in expected],
            }
        },
    }
    return Procedure.from_json(content, f"toy {toy}")
