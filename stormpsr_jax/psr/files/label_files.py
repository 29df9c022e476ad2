"""The labels of a set of recordings, of every kind that the project takes, found and read.

A recording's labels are a folder of its name that holds `PSR_labels.csv`, `PSR_labels_raw.csv` or
both (and perhaps `PSR_labels_with_errors.csv`), or labels by the clock (`timed_labels`), which are
a file NAME of one of the `formats`, or one such file in a folder of the recording's name; or a file
of any name that has the labels of several, as tools export a project. All may lie below folders
train, val and test, and in zip files, such as those of IndustReal's recordings as downloaded.
"""

import dataclasses
import os
import pathlib
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base import files, zips
from stormpsr_jax.base.errors import MAX_PER_FILE, first_of, lines_of, raise_all
from stormpsr_jax.base.trees import Place, Tree, join, open_tree, place_of, zip_of
from stormpsr_jax.psr.files import labels, timed_labels
from stormpsr_jax.psr.files.formats import formats
from stormpsr_jax.psr.files.formats.formats import Parsed
from stormpsr_jax.psr.files.formats.sample import MAX_BYTES
from stormpsr_jax.psr.files.words import Terms
from stormpsr_jax.psr.procedure import Procedure, Variant

STEPS, WITH_ERRORS, STATES = PSR_FILES = (
    labels.STEPS,
    labels.WITH_ERRORS,
    "PSR_labels_raw.csv",
)
SPLITS = ("train", "val", "test")
_SPLIT = re.compile(
    rf"({'|'.join(SPLITS)})(?:_p[0-9]+|(?![a-z]).*\.zip)?", re.IGNORECASE | re.ASCII
)
BOXES = "boxes"  # folder of those that the labelling page has drawn
# Zip files on IndustReal's page without labels of recordings, which may lie beside those with them.
OTHER_DOWNLOADS = frozenset(
    f"{name}.zip"
    for name in (
        "all_rgb_videos action_recognition_labels action_recognition_model_weights part_geometries "
        "ASD_results_IndustRealplusSynthetic_test ASD_results_SyntheticOnly_test "
        "assembly_state_detection_model_weights assembly_state_detection_synthetic_data"
    ).split()
)


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


class Labelled(Place):
    """Where a recording's labels are: a folder of PSR files, or a file of a label format.

    Attributes:
        parsed: what such a file says, for the process that has read it; None of a folder, and of a
            file with errors, which reading it tells.
    """

    parsed: Parsed | None = None

    def __reduce__(self) -> tuple[type[Place], tuple[Tree, str]]:
        return Place, (self.tree, self.name)


class Found(NamedTuple):
    """The labels of a set of recordings.

    Attributes:
        labels: by recording, sorted.
        errors: what is wrong, by the name of the folder or file that it is of.
        empty: folders at the place of a recording's, without labels and without folders.
    """

    labels: dict[str, Labelled]
    errors: dict[str, list[str]]
    empty: list[Place]

    @property
    def lines(self) -> list[str]:
        """All errors."""
        return [line for lines in self.errors.values() for line in lines]


def find(
    path: str | os.PathLike, split: str | None = None, known: Collection[str] = ()
) -> dict[str, Labelled]:
    """Finds the labels of each recording: a folder of PSR files, or a file of a label format.

    Args:
        path: a folder or zip file of labels, a labelling tool's file, or a folder of `downloads`.
        split: of folders and zip files that are called after splits only this one is looked into.
        known: names of recordings, of several that a tool has for one the one that counts.

    Returns:
        By recording, sorted.

    Raises:
        ValueError: every folder and file that is not what it should be, or no labels at all.
    """
    path, is_folder = os.fspath(path), os.path.isdir(path)
    if not is_folder and not os.path.isfile(path):
        raise ValueError(f"{path}: is not a folder; --labels takes one, or a zip file")
    found = look([open_tree(path)], split, known)
    if is_folder and not found.labels and not found.errors:
        packed = look(downloads(path, split), split, known)
        found = packed if packed.labels or packed.errors else found
    what = f"neither {STEPS} nor another CSV, nor a labelling tool's file"
    empty = [f"{at}: holds no labels of recording {at.last}: {what}" for at in found.empty]
    raise_all([*found.lines, *empty])
    if not found.labels:
        if not zips.is_packed(path):
            raise_all(unknown(path))
        raise ValueError(
            f"{path}: no labels{f' of split {split}' if split else ''}; --labels holds a folder "
            f"with {STEPS} or a file NAME.csv per recording, or a file of "
            f"{', '.join(form.name for form in formats.FORMATS)}"
        )
    return found.labels


def downloads(folder: str, split: str | None = None) -> list[Tree]:
    """Returns the zip files of recordings in a folder; they count if no labels lie beside them.

    `OTHER_DOWNLOADS`, and those whose name begins with another split, are not opened.
    """
    return [
        zip_of(parts[0])
        for name, parts in zips.find(folder, os.listdir(folder)).items()
        if name not in OTHER_DOWNLOADS and (split is None or _split_in(name) in (split, ""))
    ]


def split_of(place: Place, above: bool | None = None) -> str:
    """Returns the split that the nearest folder above is named after, such as test_p1; '' if none.

    The name of the tree itself is one of these if `above`; by itself, that of a zip file.
    """
    above = place.tree.packed if above is None else above
    tops = [os.path.basename(os.path.abspath(place.tree.path))] * above
    return next(filter(None, map(_split_in, [*reversed(place.name.split("/")[:-1]), *tops])), "")


def _split_in(name: str) -> str:
    match = _SPLIT.fullmatch(name)
    return match[1].lower() if match else ""


def is_of(split: str | None, place: Place) -> bool:
    """Says whether a place is of a split, or of none; None: of any."""
    return split is None or split_of(place) in (split, "")


def look(
    trees: Iterable[Tree],
    split: str | None = None,
    known: Collection[str] = (),
    leave_out: str = "",
) -> Found:
    """Looks for labels in trees, as `find` does.

    A file in a folder other than train, val and test is of the recording that the folder is named
    after. One of several recordings, as tools export a project, is of all of them, but for those
    that another such file is called like.

    Args:
        leave_out: path of a CSV file that holds no labels.

    Raises:
        ValueError: folders and zip files that cannot be read.
    """
    trees, empty = list(trees), list[Place]()
    places: dict[str, list[Labelled]] = {}
    errors: dict[str, list[str]] = {}
    shared: dict[str, list[tuple[str, Labelled]]] = {}
    passed = {os.path.realpath(leave_out)} if leave_out else set()
    passed |= {os.path.realpath(tree.path) for tree in trees if tree.packed}

    def add(tree: Tree, folder: str, file: str) -> bool:
        """Says whether it is a label file."""
        place, last = Labelled(tree, join(folder, file)), folder.rpartition("/")[2]
        if os.path.realpath(place.path) in passed or not _may_have_labels(place):
            return False
        own = file.rpartition(".")[0] if last.lower() in ("", *SPLITS) else last
        try:
            if file in PSR_FILES:
                raise ValueError(f"{place}: belongs into a folder of the recording's name")
            names, place.parsed = place.read(_parse, own, known)
            for name in names:
                name = files.check_name(name, str(place))
                if len(names) == 1:
                    places.setdefault(name, []).append(place)
                else:
                    shared.setdefault(name, []).append((own, place))
        except ValueError as error:
            errors.setdefault(own, []).extend(lines_of(error))
            return True
        return bool(names)

    for tree in trees:
        of_psr: list[str] = []
        for folder, below, names in tree.walk():
            above, last = posixpath.split(folder)
            psr = [join(folder, name) for name in names if name in PSR_FILES]
            if (psr and folder and last not in SPLITS) or last == BOXES:
                below.clear()
            if not is_of(split, Place(tree, folder if psr else join(folder, ""))):
                continue
            if psr and folder:
                places.setdefault(last, []).append(Labelled(tree, folder))
                of_psr += psr
            elif last != BOXES:
                lists = {"splits.csv"}
                if set(below) & set(SPLITS):
                    lists |= {f"{name}.csv" for name in SPLITS}  # IndustReal's lists of actions
                there = [add(tree, folder, name) for name in names if name not in lists]
                is_own = folder and last not in SPLITS and above.rpartition("/")[2] in ("", *SPLITS)
                if is_own and not tree.packed and not {*below} - {*PSR_FILES} and not any(there):
                    empty.append(Place(tree, folder))
        tree.check(of_psr)
    for name, its in shared.items():
        named = [place for own, place in its if own == name]  # a copy for each recording
        its_own = named if len(named) == 1 else dict.fromkeys(place for _, place in its)
        places.setdefault(name, []).extend(its_own)
    for name, several in places.items():
        if len(several) > 1:
            errors.setdefault(name, []).append(
                f"recording {name}: labels in {' and '.join(map(str, several))}; keep one of these "
                "or, if they are of several recordings, rename all but one"
            )
    return Found({name: places[name][0] for name in sorted(places)}, errors, empty)


def _may_have_labels(place: Place) -> bool:
    """Whether a file is one to be looked into, by its ending and its size."""
    name = place.name.lower()
    if not name.endswith(formats.MAYBE):
        return name.endswith(formats.CERTAIN)
    return place.tree.size(place.name) <= MAX_BYTES


def _parse(path: pathlib.Path, own: str, known: Collection[str]) -> tuple[list[str], Parsed | None]:
    """The recordings whose labels are in a file, and what it says; ([], None) if it has none.

    Args:
        own: the recording that the file is called like. It has the labels of a file of one, but if
            `known` has another name that the tool gives it.
        known: names of recordings; of those that `known` has not, the tool's name is taken.

    Raises:
        ValueError: of several recordings some have no name, or two the same; or what is wrong with
            a tool's file that is called like none of `known`.
    """
    if not formats.is_label_file(path):
        return [], None
    try:
        parsed = formats.read(path)
    except ValueError:
        if known and own not in known and path.suffix.lower() in formats.MAYBE:
            raise
        return [own], None  # what is wrong is said when it is read
    groups = parsed.recordings
    if len(groups) < 2:
        names = [own, *(name for group in groups for name in group)]
        return [next((name for name in names if name in known), own)], parsed
    if () in groups:
        raise ValueError(
            f"{path}: has labels of several recordings, and labels that name none of them; give "
            "each task its video in the labelling tool, or export the recordings one by one"
        )
    chosen = [next((n for n in group if n in known), group[-1]) for group in groups]
    for name in {name for name in chosen if chosen.count(name) > 1}:
        raise ValueError(
            f"{path}: has two recordings that are called {files.shorten(name)}; rename one in the "
            "labelling tool, or take it out"
        )
    return chosen, parsed


def unknown(folder: str | os.PathLike, names: Collection[str] | None = None) -> list[str]:
    """Says why files that may have labels have none, for recordings that lack them.

    Returns:
        a line for each file of their names that no format recognises, such as one of boxes, but
        for what the labelling page keeps there.
    """
    found: list[str] = []
    root = pathlib.Path(folder)
    for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
        if len(found) == MAX_PER_FILE:
            break
        folders = path.relative_to(root).parts[:-1]
        if BOXES in folders or any(name.startswith(".") for name in folders):
            continue
        if (names is None or path.stem in names) and path.suffix.lower() in formats.MAYBE:
            try:
                formats.read(path)
            except ValueError as error:
                found.append(str(error))
    return found


def read(
    path: str | os.PathLike | Place,
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
        path: a value of `find`.
        variant: of the recording, whose initial state labels by the clock start from; None if it
            is not known, which leaves their changes unchecked and the result empty.
        needed: the file with steps that is wanted, `STEPS` or `WITH_ERRORS`; the other one is not
            read. None reads both.
        recording: its name; None if the file has it.

    Raises:
        ValueError: every error, with file, line and field.
    """
    place = path if isinstance(path, Place) else place_of(path)
    known: dict[str, Any] = {}
    if place.is_file():
        timed = read_times(place, procedure, terms, recording)
        if variant is not None:
            first, steps = timed_labels.to_frames(place, timed, variant.initial_state, procedure)
            known[STATES] = labels.steps_to_states(steps, first, 0)
    else:
        there = psr_files(place)
        if needed is not None:  # without states, no other file says what is asked for
            there = [n for n in there if n in (needed, STATES)] if STATES in there else [needed]
        known = read_files(place, there, procedure)
    nothing = np.zeros(0, np.int64), np.zeros((0, procedure.num_components), np.int8)
    frames, states = known.pop(STATES, nothing)
    return _labels(known, frames, states)


def read_times(place: Place, *args: Any, **options: Any) -> list[timed_labels.TimedStep]:
    """Returns the labels of a file, `timed_labels.read_times`, without parsing it again."""
    if isinstance(place, Labelled) and place.parsed is not None:
        return timed_labels.read_times(place, *args, **options, parsed=place.parsed)
    return place.read(timed_labels.read_times, *args, **options)


def parsed(place: Place) -> Parsed:
    """Returns what a file of a label format says, without parsing it again."""
    return getattr(place, "parsed", None) or place.read(formats.read)


def psr_files(folder: Place) -> list[str]:
    """Returns the names of the PSR label files in a folder; ValueError if it cannot be listed."""
    there = folder.tree.entries(folder.name)[1]
    return [name for name in PSR_FILES if name in there]


def read_files(
    folder: Place,
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
            found[name] = (folder / name).read(read_file)
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
