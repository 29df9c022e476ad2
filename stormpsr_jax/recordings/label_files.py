"""The labels of a set of recordings, of every kind that the project takes, found and read.

A recording's labels are a folder of its name that holds `PSR_labels.csv`, `PSR_labels_raw.csv` or
both (and perhaps `PSR_labels_with_errors.csv`), or labels by the clock (`timed_labels`), which are
a file NAME of one of the `formats`, or one such file in a folder of the recording's name; or a file
of any name that has the labels of several, as tools export a project. All may lie below folders
train, val and test. Readers raise ValueError with every error, with file, line and field.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import MAX_PER_FILE, first_of, lines_of, raise_all, tell
from stormpsr_jax.base.folders import printable
from stormpsr_jax.recordings import labels, timed_labels
from stormpsr_jax.recordings.formats import formats
from stormpsr_jax.recordings.formats.formats import Parsed
from stormpsr_jax.recordings.formats.sample import MAX_BYTES
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.words import Terms

STEPS, WITH_ERRORS, STATES = PSR_FILES = (
    labels.STEPS,
    labels.WITH_ERRORS,
    "PSR_labels_raw.csv",
)
SPLITS = ("train", "val", "test")
_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?:_p[0-9]+)?", re.IGNORECASE | re.ASCII)
BOXES = "boxes"  # folder of those that the labelling page has drawn


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the labels of a recording say; K components.

    Attributes:
        steps: (frame, step id) of the completed steps.
        with_errors: the same with the incorrect installations.
        frames: (M,) int64, ascending, of the states; without rows where no file gives states.
        states: (M, K) int8 in {-1, 0, 1}, each from its frame on.
    """

    steps: list[labels.Step]
    with_errors: list[labels.Step]
    frames: np.ndarray
    states: np.ndarray


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Where a recording's labels are: a folder of PSR files, or a file of a label format."""

    path: pathlib.Path

    def __str__(self) -> str:
        return printable(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # another process parses the file anew

    @functools.cached_property
    def parsed(self) -> Parsed:
        """What a file says, which may have the labels of many recordings; errors as it has."""
        return formats.read(self.path)


class Found(NamedTuple):
    """The labels of a set of recordings.

    Attributes:
        labels: by recording, sorted.
        errors: what is wrong, by the name of the folder or file that it is of.
        empty: folders at the place of a recording's, without labels and without folders.
        passed: files that may have been meant as labels, and are of no format that is read.
    """

    labels: dict[str, Labelled]
    errors: dict[str, list[str]]
    empty: list[pathlib.Path]
    passed: list[pathlib.Path]

    @property
    def lines(self) -> list[str]:
        """All errors."""
        return [line for lines in self.errors.values() for line in lines]

    @property
    def warnings(self) -> list[str]:
        """A line about the files that are passed over."""
        number = len(self.passed)
        more = f" and {number - 1} more files are" if number > 1 else " is"
        what = "of no label format that is read, and passed over (unpack archives)"
        return [f"{printable(path)}{more} {what}" for path in self.passed[:1]]


def find(
    path: str | os.PathLike, split: str | None = None, known: Collection[str] = ()
) -> dict[str, Labelled]:
    """Finds the labels of each recording: a folder of PSR files, or a file of a label format.

    Args:
        path: a folder of labels, or a labelling tool's file.
        split: of folders that are called after splits only this one is looked into.
        known: names of recordings, of several that a tool has for one the one that counts.

    Returns:
        By recording, sorted.

    Raises:
        ValueError: every folder and file that is not what it should be, or no labels at all.
    """
    top = folders.given(path, "--labels", "or a label file")
    found = look(top, split, known)
    what = f"neither {STEPS} nor another CSV, nor a labelling tool's file"
    empty = [f"{at}: holds no labels of recording {at.name}: {what}" for at in found.empty]
    raise_all([*found.lines, *empty])
    if not found.labels:
        raise_all(unknown(top))
        raise ValueError(
            f"{path}: no labels{f' of split {split}' if split else ''}; --labels holds a folder "
            f"with {STEPS} or a file NAME.csv per recording, or a file of "
            f"{', '.join(form.name for form in formats.FORMATS)}"
        )
    for line in found.warnings:
        tell("warning", line)
    return found.labels


def split_of(path: pathlib.Path, top: pathlib.Path, above: bool = False) -> str:
    """Returns the split that the nearest folder above `path` is named after; '' if none.

    Such a folder may be called test_p1. Those below `top` count, and `above` that one too.
    """
    names = [top.absolute().name] * above + [*path.relative_to(top).parts[:-1]]
    matches = filter(None, map(_SPLIT.fullmatch, reversed(names)))
    return next((match[1].lower() for match in matches), "")


def is_of(split: str | None, path: pathlib.Path, top: pathlib.Path) -> bool:
    """Says whether a place below `top` is of a split, or of none; None: of any."""
    return split is None or split_of(path, top) in (split, "")


def look(
    top: pathlib.Path,
    split: str | None = None,
    known: Collection[str] = (),
    leave_out: str = "",
) -> Found:
    """Looks for labels in a folder, or in one file, as `find` does.

    A file in a folder other than train, val and test is of the recording that the folder is named
    after. One of several recordings, as tools export a project, is of all of them, but for those
    that another such file is called like.

    Args:
        leave_out: path of a CSV file that holds no labels.
    """
    root = top if top.is_dir() else top.parent
    found = Found({}, {}, [], [])
    places: dict[str, list[Labelled]] = {}
    shared: dict[str, list[tuple[str, Labelled]]] = {}
    left_out = os.path.realpath(leave_out) if leave_out else ""

    def add(path: pathlib.Path, own: str) -> bool:
        """Says whether it is a label file; `own` is the recording that it is called like."""
        if os.path.realpath(path) == left_out or not _may_have_labels(path):
            return False
        place = Labelled(path)
        try:
            if path.name in PSR_FILES:
                raise ValueError(f"{place}: belongs into a folder of the recording's name")
            if not (names := _recordings_in(place, own, known)):
                found.passed.extend([path] * _is_meant(path))
            for name in names:
                name = files.check_name(name, str(place))
                if len(names) == 1:
                    places.setdefault(name, []).append(place)
                else:
                    shared.setdefault(name, []).append((own, place))
        except ValueError as error:
            found.errors.setdefault(own, []).extend(lines_of(error))
            return True
        return bool(names)

    for folder, inner, names in folders.walk(top):
        above, last = ("", "", *folder.relative_to(root).parts)[-2:]
        of_psr = bool(last) and not set(names).isdisjoint(PSR_FILES)
        if (of_psr and last not in SPLITS) or last == BOXES:
            inner.clear()
        if not is_of(split, folder if of_psr else folder / "file", root):
            continue
        if of_psr:
            places.setdefault(last, []).append(Labelled(folder))
        elif last != BOXES:
            lists = {"splits.csv"}
            if set(inner) & set(SPLITS):
                lists |= {f"{name}.csv" for name in SPLITS}  # IndustReal's lists of actions
            is_split = last.lower() in ("", *SPLITS)
            there = [
                add(folder / name, name.rpartition(".")[0] if is_split else last)
                for name in names
                if name not in lists
            ]
            is_own = last not in ("", *SPLITS) and above in ("", *SPLITS)
            if is_own and not set(inner) - set(PSR_FILES) and not any(there):
                found.empty.append(folder)
    for name, its in shared.items():
        named = [place for own, place in its if own == name]  # a copy for each recording
        its_own = named if len(named) == 1 else dict.fromkeys(place for _, place in its)
        places.setdefault(name, []).extend(its_own)
    for name, several in places.items():
        if len(several) > 1:
            found.errors.setdefault(name, []).append(
                f"recording {name}: labels in {' and '.join(map(str, several))}; keep one of these "
                "or, if they are of several recordings, rename all but one"
            )
    return found._replace(labels={name: places[name][0] for name in sorted(places)})


def _may_have_labels(path: pathlib.Path) -> bool:
    """Whether a file is one to be looked into, by its ending and its size."""
    name = path.name.lower()
    if name.endswith(formats.MAYBE):
        return path.stat().st_size <= MAX_BYTES
    return name.endswith(formats.CERTAIN) or folders.is_archive(name)


def _is_meant(path: pathlib.Path) -> bool:
    """Whether a file without labels may have been meant as some: no README is."""
    return path.suffix.lower() != ".txt" or not formats.is_prose(path)


def _recordings_in(place: Labelled, own: str, known: Collection[str]) -> list[str]:
    """The recordings whose labels are in a file; none if it has no labels.

    That of a file of one is `own`, which it is called like, but if `known` has another name that
    the tool gives it. Of several, the names are those that `known` has, or else the tool's.
    """
    certain = place.path.name.lower().endswith(formats.CERTAIN)
    try:
        groups = place.parsed.recordings
    except formats.UnknownFormatError:
        return [own] * certain
    except ValueError:
        if known and own not in known and not certain:
            raise
        return [own]  # what is wrong is said when it is read
    if len(groups) < 2:
        names = [own, *(name for group in groups for name in group)]
        return [next((name for name in names if name in known), own)]
    if () in groups:
        raise ValueError(
            f"{place}: has labels of several recordings, and labels that name none of them; give "
            "each task its video in the labelling tool, or export the recordings one by one"
        )
    chosen = [next((n for n in group if n in known), group[-1]) for group in groups]
    for name in {name for name in chosen if chosen.count(name) > 1}:
        raise ValueError(
            f"{place}: has two recordings that are called {files.shorten(name)}; rename one in the "
            "labelling tool, or take it out"
        )
    return chosen


def unknown(top: pathlib.Path, names: Collection[str] | None = None) -> list[str]:
    """Says why files that may have labels have none, for recordings that lack them.

    Returns:
        a line for each file of their names that no format recognises, such as one of boxes or an
        archive, but for what the labelling page keeps there.
    """
    found: list[str] = []
    for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
        if len(found) == MAX_PER_FILE:
            break
        inner = path.relative_to(top).parts[:-1]
        if BOXES in inner or any(name.startswith(".") for name in inner):
            continue
        meant = path.suffix.lower() in formats.MAYBE or folders.is_archive(path)
        if meant and (names is None or path.stem in names):
            try:
                formats.read(path)
            except ValueError as error:
                found.append(str(error))
    return found


def read(
    labelled: Labelled | str | os.PathLike,
    procedure: Procedure,
    variant: Variant | None,
    *,
    needed: str | None = None,
    terms: Terms | None = None,
    recording: str | None = None,
) -> Labels:
    """Reads the labels of one recording.

    Without `PSR_labels.csv` or `PSR_labels_with_errors.csv`, the steps follow from the states of
    `PSR_labels_raw.csv`, and without that too from the other file of the two. The frames of labels
    by the clock count from 0.

    Args:
        labelled: a value of `find`, or its path.
        variant: of the recording, whose initial state labels by the clock start from; None if it
            is not known, which leaves their changes unchecked and the result empty.
        needed: the file with steps that is wanted, `STEPS` or `WITH_ERRORS`; the other one is not
            read. None reads both.
        recording: its name; None if the file has it.
    """
    place = labelled if isinstance(labelled, Labelled) else Labelled(pathlib.Path(labelled))
    known: dict[str, Any] = {}
    if place.path.is_file():
        timed = read_times(place, procedure, terms, recording)
        if variant is not None:
            given = place.path, timed, variant.initial_state, procedure
            first, steps = timed_labels.to_frames(*given)
            known[STATES] = labels.steps_to_states(steps, first, 0)
    else:
        there = psr_files(place.path)
        if needed is not None:  # without states, no other file says what is asked for
            there = [n for n in there if n in (needed, STATES)] if STATES in there else [needed]
        known = read_files(place.path, there, procedure)
    nothing = np.zeros(0, np.int64), np.zeros((0, procedure.num_components), np.int8)
    frames, states = known.pop(STATES, nothing)
    return _labels(known, frames, states)


def read_times(place: Labelled, *args: Any, **options: Any) -> list[timed_labels.TimedStep]:
    """Returns the labels of a file: `timed_labels.read_times`."""
    try:
        options["parsed"] = place.parsed
    except ValueError:
        pass  # it is read again, and then what is wrong with its steps is said too
    return timed_labels.read_times(place.path, *args, **options)


def psr_files(folder: pathlib.Path) -> list[str]:
    """Returns the names of the PSR label files in a folder; ValueError if it cannot be listed."""
    there = folders.entries(folder)[1]
    return [name for name in PSR_FILES if name in there]


def read_files(
    folder: pathlib.Path,
    names: Iterable[str],
    procedure: Procedure,
    check: Callable[[pathlib.Path, list[int]], None] = lambda path, frames: None,
) -> dict[str, Any]:
    """Returns what PSR label files say, by name: [(frame, step id)], or frames and states.

    Args:
        check: of a file and the frames of its rows; raises ValueError for what is wrong with them.

    Raises:
        ValueError: the first errors of each file, with line and field, and how many more it has.
    """

    def read_file(path: pathlib.Path) -> Any:
        is_states = path.name == STATES
        said: Any = (labels.read_states if is_states else labels.read_steps)(path, procedure)
        check(path, said[0].tolist() if is_states else [frame for frame, _ in said])
        return said

    found, errors = dict[str, Any](), list[str]()
    for name in names:
        try:
            found[name] = read_file(folder / name)
        except ValueError as error:
            errors += first_of(error, folder / name)
    raise_all(errors)
    return found


def _labels(
    steps: Mapping[str, list[labels.Step]], frames: np.ndarray, states: np.ndarray
) -> Labels:
    def of(name: str) -> list[labels.Step]:
        if name in steps:
            return steps[name]
        if len(frames):
            return labels.states_to_steps(frames, states, with_errors=name == WITH_ERRORS)
        known = next(iter(steps.values()), [])
        return [step for step in known if name == WITH_ERRORS or step[1] % 3 != 1]

    return Labels(of(STEPS), of(WITH_ERRORS), frames, states)
