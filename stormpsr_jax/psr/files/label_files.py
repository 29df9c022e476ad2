"""The labels of a set of recordings, of every kind that the project takes, found and read.

A recording's labels are a folder of its name that holds `PSR_labels.csv`, `PSR_labels_raw.csv` or
both (and perhaps `PSR_labels_with_errors.csv`), or labels by the clock (`timed_labels`), which are
a file NAME of one of the `formats`, or one such file in a folder of the recording's name; or a file
of any name that has the labels of several, as tools export a project. All may lie below folders
train, val and test. `opened` also takes zip files of IndustReal's recordings as
downloaded.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from stormpsr_jax.base import files, zips
from stormpsr_jax.base.errors import MAX_PER_FILE, first_of, lines_of, raise_all
from stormpsr_jax.psr.files import labels, timed_labels
from stormpsr_jax.psr.files.formats import formats
from stormpsr_jax.psr.files.words import Terms
from stormpsr_jax.psr.procedure import Procedure, Variant

STEPS, WITH_ERRORS, STATES = PSR_FILES = (
    labels.STEPS,
    labels.WITH_ERRORS,
    "PSR_labels_raw.csv",
)
SPLITS = ("train", "val", "test")
BOXES = "boxes"  # folder of those that the labelling page has drawn
# Zip files on IndustReal's page without labels of recordings, which may lie beside those with them.
OTHER_DOWNLOADS = frozenset(
    f"{name}.zip"
    for name in (
        "all_rgb_videos",
        "action_recognition_labels",
        "action_recognition_model_weights",
        "part_geometries",
        "ASD_results_IndustRealplusSynthetic_test",
        "ASD_results_SyntheticOnly_test",
        "assembly_state_detection_model_weights",
        "assembly_state_detection_synthetic_data",
    )
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


@contextlib.contextmanager
def opened(
    path: str | os.PathLike,
    split: str | None = None,
    wanted: Callable[[str], bool] = PSR_FILES.__contains__,
) -> Iterator[pathlib.Path]:
    """Gives the folder of labels that a download has, for `find`.

    Args:
        path: a folder of labels or a labelling tool's file, which is given as it is; a zip file of
            recordings, whose label
            files are unpacked for as long as the block lasts; a folder of such zip files, or one
            with a folder `recordings`. `OTHER_DOWNLOADS` are not opened.
        split: zip files whose name begins with another one are not opened.
        wanted: says by its name whether a file is a label file.

    Raises:
        ValueError: `path` is none of these, or see `zips.unpacked`.
    """
    root = pathlib.Path(path)
    place = functools.partial(_place, wanted)
    if root.is_file() and formats.is_label_file(root):
        yield root
        return
    if root.is_file():
        with zips.unpacked([zips.of(root)], place, root) as folder:
            if not any(folder.iterdir()):
                raise ValueError(f"{root}: the zip file has no labels of a recording")
            yield folder
        return
    found = {} if _has_labels(root, wanted) else zips.find(str(root), os.listdir(root))
    found = {name: file for name, file in found.items() if name not in OTHER_DOWNLOADS}
    if split is not None:
        found = {n: file for n, file in found.items() if _split_of(n) in (split, "")}
    if found:
        with zips.unpacked(found.values(), place, root) as folder:
            if any(folder.iterdir()):
                yield folder
                return
    if any((root / "recordings" / name).is_dir() for name in SPLITS):
        root /= "recordings"
    yield root


def _has_labels(root: pathlib.Path, wanted: Callable[[str], bool]) -> bool:
    """Whether a folder has labels itself, or below the folders of splits."""
    if not root.is_dir():
        raise ValueError(f"{root}: is not a folder; --labels takes one, or a zip file")
    folders = [root, *(root / split for split in SPLITS if (root / split).is_dir())]
    below = [path for folder in folders for path in folder.iterdir()]
    return any(
        any(wanted(file.name) for file in path.iterdir())
        if path.is_dir()
        else formats.is_label_file(path)
        for path in below
    )


def _place(
    wanted: Callable[[str], bool], path: pathlib.Path, member: pathlib.PurePosixPath
) -> pathlib.PurePosixPath | None:
    """Where a label file of a zip file belongs: below its split, if that is known."""
    if not wanted(member.name):
        return None
    above = [part for part in member.parts[:-2] if part in SPLITS]
    return pathlib.PurePosixPath(above[-1] if above else _split_of(path.name), *member.parts[-2:])


def _split_of(name: str) -> str:
    """The split that a zip file is named after, such as train_p1.zip; '' if none."""
    match = re.match(rf"({'|'.join(SPLITS)})(?![a-z])", name)
    return match[1] if match else ""


def find(
    folder: str | os.PathLike, split: str | None = None, known: Collection[str] = ()
) -> dict[str, pathlib.Path]:
    """Finds the labels of each recording: a folder of PSR files, or a file of a label format.

    Args:
        folder: of labels; or a file of a label format.
        split: of the folders train, val and test only this one is looked into.
        known: names of recordings, of several that a tool has for one the one that counts.

    Returns:
        By recording, sorted.

    Raises:
        ValueError: every folder and file that is not what it should be, or no labels at all.
    """
    root = pathlib.Path(folder)
    found, errors = look(root, split, known)
    raise_all([line for lines in errors.values() for line in lines])
    if not found:
        raise_all(unknown(root))
        raise ValueError(
            f"{root}: no labels{f' of split {split}' if split else ''}; --labels holds a folder "
            f"with {STEPS} or a file NAME.csv per recording, or a file of "
            f"{', '.join(form.name for form in formats.FORMATS)}"
        )
    return found


def look(
    root: pathlib.Path, split: str | None = None, known: Collection[str] = ()
) -> tuple[dict[str, pathlib.Path], dict[str, list[str]]]:
    """Looks for labels as `find` does; returns them, and what is wrong by the name it is of."""
    found: dict[str, pathlib.Path] = {}
    errors: dict[str, list[str]] = {}
    shared: dict[str, list[pathlib.Path]] = {}  # files of several recordings, by each of them
    whole = root.is_file() and formats.is_label_file(root)
    places = [(root, path) for path in ([root] if whole else _entries(root))]
    lists = {"splits.csv"}
    if any((root / name).is_dir() for name in SPLITS):
        lists |= {f"{name}.csv" for name in SPLITS}  # IndustReal's lists of actions
    while places:
        parent, path = places.pop(0)
        try:
            if path.is_dir() and parent == root and path.name in SPLITS and not _psr_files(path):
                if split in (None, path.name):
                    places += [(path, below) for below in _entries(path)]
            elif path.is_dir() and path.name == BOXES and not _psr_files(path):
                continue
            elif path.is_dir():
                _add(found, path.name, _labels_in(path))
            elif path.name in PSR_FILES:
                raise ValueError(f"{path}: belongs into a folder of the recording's name")
            elif path.name not in lists and formats.is_label_file(path):
                names = recordings_in(path, path.stem, known)
                if len(names) == 1:
                    _add(found, names[0], path)
                else:
                    for name in names:
                        shared.setdefault(name, []).append(path)
        except ValueError as error:
            errors.setdefault(path.name if path.is_dir() else path.stem, []).extend(lines_of(error))
    for name, paths in shared.items():
        named = [path for path in paths if path.stem == name]  # a copy for each recording
        for path in named if len(named) == 1 else paths:
            try:
                _add(found, name, path)
            except ValueError as error:
                errors.setdefault(name, []).append(str(error))
    return dict(sorted(found.items())), errors


def recordings_in(path: pathlib.Path, own: str, known: Collection[str] = ()) -> list[str]:
    """Returns the recordings whose labels are in a file of a label format, by their names.

    Args:
        own: the recording that the file is called like. It has the labels of a file of one, but if
            `known` has another name that the tool gives it.
        known: names of recordings; of those that `known` has not, the tool's name is taken.

    Raises:
        ValueError: of several recordings some have no name, or two the same; or what is wrong with
            a tool's file that is called like none of `known`.
    """
    try:
        groups = timed_labels.recordings(path)
    except ValueError:
        if known and own not in known and path.suffix.lower() in formats.MAYBE:
            raise
        return [own]  # what is wrong is said when it is read
    if len(groups) < 2:
        names = [own, *(name for group in groups for name in group)]
        if path.suffix.lower() == ".zip":  # CVAT puts a task's name into that of its zip file
            own = max((name for name in names[1:] if name in own), key=len, default=own)
        return [next((name for name in names if name in known), own)]
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
    return [files.check_name(name, str(path)) for name in chosen]


def unknown(folder: str | os.PathLike, names: Collection[str] | None = None) -> list[str]:
    """Says why files that may have labels have none, for recordings that lack them.

    Returns:
        a line for each file of their names that no format recognises, such as one of boxes, but
        for what the labelling page keeps there.
    """
    found: list[str] = []
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if len(found) == MAX_PER_FILE:
            break
        folders = path.relative_to(folder).parts[:-1]
        if BOXES in folders or any(name.startswith(".") for name in folders):
            continue
        if (names is None or path.stem in names) and path.suffix.lower() in formats.MAYBE:
            try:
                formats.read(path)
            except ValueError as error:
                found.append(str(error))
    return found


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder; --labels takes one, or a tool's file")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _psr_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The PSR files of a folder, dangling links too: reading them tells what is wrong."""
    return [folder / name for name in PSR_FILES if os.path.lexists(folder / name)]


def _labels_in(folder: pathlib.Path) -> pathlib.Path:
    """The labels in a recording's folder: itself, or its file of a label format."""
    if _psr_files(folder):
        return folder
    timed = [p for p in _entries(folder) if not p.is_dir() and formats.is_label_file(p)]
    if len(timed) != 1:
        what = "several CSV files or others with labels, one is needed"
        what = what if timed else f"neither {STEPS} nor another CSV, nor a labelling tool's file"
        raise ValueError(f"{folder}: holds no labels of recording {folder.name}: {what}")
    return timed[0]


def _add(found: dict[str, pathlib.Path], name: str, path: pathlib.Path) -> None:
    files.check_name(name, str(path))
    if name in found:
        raise ValueError(f"{path}: recording {name} has labels in {found[name]} too; keep one")
    found[name] = path


def read(
    path: str | os.PathLike,
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
    path = pathlib.Path(path)
    if path.is_dir():
        return _read_folder(path, procedure, needed)
    frames, states = np.zeros(0, np.int64), np.zeros((0, procedure.num_components), np.int8)
    timed = timed_labels.read_times(path, procedure, terms, recording)
    if variant is not None:
        first, steps = timed_labels.to_frames(path, timed, variant.initial_state, procedure)
        frames, states = labels.steps_to_states(steps, first, 0)
    return _labels({}, frames, states)


def _read_folder(path: pathlib.Path, procedure: Procedure, needed: str | None) -> Labels:
    frames, states = np.zeros(0, np.int64), np.zeros((0, procedure.num_components), np.int8)
    steps: dict[str, list[labels.Step]] = {}
    errors: list[str] = []
    there = [file.name for file in _psr_files(path)]
    if needed is not None and STATES not in there:
        there = [needed]  # without states, no other file says what is asked for
    for name in there:
        if needed is not None and name not in (needed, STATES):
            continue
        try:
            if name == STATES:
                frames, states = labels.read_states(path / name, procedure)
            else:
                steps[name] = labels.read_steps(path / name, procedure)
        except ValueError as error:
            errors += first_of(error, path / name)
    raise_all(errors)
    return _labels(steps, frames, states)


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
