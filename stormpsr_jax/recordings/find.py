"""The labels of a set of recordings, found in a folder or in a file.

A recording's labels are a folder of its name that holds `PSR_labels.csv`, `PSR_labels_raw.csv` or
both (and perhaps `PSR_labels_with_errors.csv`); or a file that says when (`label_file`), which is
called NAME or lies in a folder of the recording's name; or a file of any name that has the labels
of several, as tools export a project. All may lie below folders train, val and test.
"""

import collections
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import MAX_PER_FILE, lines_of, raise_all, tell
from stormpsr_jax.base.folders import printable
from stormpsr_jax.recordings.label_file import FORMATS, MAYBE, LabelFile, UnknownFormatError
from stormpsr_jax.recordings.labels import PSR_FILES, STEPS
from stormpsr_jax.recordings.recording import LabelPlace

SPLITS = ("train", "val", "test")
_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?:_p[0-9]+)?", re.IGNORECASE | re.ASCII)
BOXES = "boxes"  # folder of those that the labelling page has drawn


class SearchResult(NamedTuple):
    """The labels of a set of recordings.

    Attributes:
        labels: by recording, sorted.
        errors: what is wrong, by the name of the folder or file that it is of.
        empty: folders at the place of a recording's, without labels and without folders.
        unread: files that may have been meant as labels, and are of no format that is read.
    """

    labels: dict[str, LabelPlace]
    errors: dict[str, list[str]]
    empty: list[Path]
    unread: list[Path]

    @property
    def lines(self) -> list[str]:
        """All errors."""
        return [line for lines in self.errors.values() for line in lines]

    @property
    def warnings(self) -> list[str]:
        """A line about the files that are not read."""
        number = len(self.unread)
        more = f" and {number - 1} more files are" if number > 1 else " is"
        what = "of no label format that is read, and passed over (unpack archives)"
        return [f"{printable(path)}{more} {what}" for path in self.unread[:1]]


def find(
    path: str | os.PathLike, split: str | None = None, pictured: Collection[str] = ()
) -> dict[str, LabelPlace]:
    """Finds the labels of each recording, by recording, sorted.

    Args:
        path: a folder of labels, or a labelling tool's file.
        split: of folders that are called after splits only this one is looked into.
        pictured: names of recordings, of several that a tool has for one the one that counts.

    Raises:
        ValueError: every folder and file that is not what it should be, or no labels at all.
    """
    top = folders.require(path, "--labels", "or a label file")
    by_recording = search(top, split, pictured)
    what = f"neither {STEPS} nor another CSV, nor a labelling tool's file"
    empty = [f"{at}: holds no labels of recording {at.name}: {what}" for at in by_recording.empty]
    raise_all([*by_recording.lines, *empty])
    if not by_recording.labels:
        raise_all(unread(top))
        raise ValueError(
            f"{path}: no labels{f' of split {split}' if split else ''}; --labels holds a folder "
            f"with {STEPS} or a file NAME.csv per recording, or a file of {', '.join(FORMATS)}"
        )
    for line in by_recording.warnings:
        tell("warning", line)
    return by_recording.labels


def split_of(path: Path, top: Path, above: bool = False) -> str:
    """Returns the split that the nearest folder above `path` is named after; '' if none.

    Such a folder may be called test_p1. Those below `top` count, and `above` that one too.
    """
    names = [top.absolute().name] * above + [*path.relative_to(top).parts[:-1]]
    matches = filter(None, map(_SPLIT.fullmatch, reversed(names)))
    return next((match[1].lower() for match in matches), "")


def is_of(split: str | None, path: Path, top: Path) -> bool:
    """Says whether a place below `top` is of a split, or of none; None: of any."""
    return split is None or split_of(path, top) in (split, "")


def search(
    top: Path,
    split: str | None = None,
    pictured: Collection[str] = (),
    leave_out: str = "",
) -> SearchResult:
    """Looks for labels in a folder, or in one file, as `find` does; errors are part of the result.

    A file in a folder other than train, val and test is of the recording that the folder is named
    after. One of several recordings, as tools export a project, is of all of them, but for those
    that another such file is called like.

    Args:
        leave_out: path of a CSV file that holds no labels.
    """
    root = top if top.is_dir() else top.parent
    result = SearchResult({}, {}, [], [])
    places: dict[str, list[LabelPlace]] = collections.defaultdict(list)
    # Of recordings in files of several: what these files are called, and where they are.
    projects: dict[str, list[tuple[str, LabelPlace]]] = collections.defaultdict(list)
    for folder, inner, names in folders.walk(top):
        name = "" if folder == root else folder.name
        if name == BOXES:
            inner.clear()
        elif name and not {*names, *inner}.isdisjoint(PSR_FILES):
            if name not in SPLITS:
                inner.clear()
            if is_of(split, folder, root):
                places[name].append(LabelPlace(folder))
        elif is_of(split, folder / "file", root):
            paths = _candidates(folder, inner, names, leave_out)
            any_labels = False
            for path in paths:
                stem = path.name.rpartition(".")[0]
                name_of_place = stem if name.lower() in ("", *SPLITS) else name
                place = LabelPlace(path)
                try:
                    recordings = _recordings_in(place, name_of_place, pictured, result.unread)
                    for recording in recordings:
                        files.check_name(recording, str(place))
                except ValueError as error:
                    result.errors.setdefault(name_of_place, []).extend(lines_of(error))
                    any_labels = True
                    continue
                any_labels |= bool(recordings)
                for recording in recordings:
                    if len(recordings) > 1:
                        projects[recording].append((name_of_place, place))
                    else:
                        places[recording].append(place)
            of_recording = name not in ("", *SPLITS) and (
                folder.parent == root or folder.parent.name in SPLITS
            )
            if of_recording and not inner and not any_labels:
                result.empty.append(folder)
    for recording, files_of in projects.items():
        copies = [place for called, place in files_of if called == recording]
        every = dict.fromkeys(place for _, place in files_of)
        places[recording] += copies if len(copies) == 1 else every
    for recording, several in places.items():
        if len(several) > 1:
            result.errors.setdefault(recording, []).append(
                f"recording {recording}: labels in {' and '.join(map(str, several))}; keep one of "
                "these or, if they are of several recordings, rename all but one"
            )
    return result._replace(labels={name: places[name][0] for name in sorted(places)})


def _candidates(
    folder: Path, inner: Collection[str], names: Collection[str], leave_out: str
) -> list[Path]:
    """The files of a folder but for lists of splits, and for the file at `leave_out`."""
    lists = {"splits.csv"}
    if set(inner) & set(SPLITS):
        lists |= {f"{split}.csv" for split in SPLITS}  # IndustReal's lists of actions
    left_out = os.path.realpath(leave_out or "/")
    paths = [folder / name for name in names if name not in lists]
    return [path for path in paths if os.path.realpath(path) != left_out]


def _recordings_in(
    place: LabelPlace, own_name: str, pictured: Collection[str], unread: list[Path]
) -> list[str]:
    """The recordings whose labels are in a file; none if it has no labels.

    That of a file of one is `own_name`, which it is called like, but if `pictured` has another name
    that the tool gives it. Of several, the names are those that `pictured` has, or else the tool's.
    What may have been meant as labels, and is not read, is added to `unread`.
    """
    file = place.file
    assert file is not None
    if not file.is_candidate:
        return []
    if file.path.name in PSR_FILES:
        raise ValueError(f"{place}: belongs into a folder of the recording's name")
    try:
        groups = file.names
    except UnknownFormatError:
        if not file.is_certain and not file.is_prose:
            unread.append(file.path)
        return [own_name] * file.is_certain
    if file.errors:
        if pictured and own_name not in pictured and not file.is_certain:
            raise_all(file.errors)
        return [own_name]  # what is wrong is said when its steps are read
    if len(groups) < 2:
        names = [own_name, *(name for group in groups for name in group)]
        return [next((name for name in names if name in pictured), own_name)]
    if () in groups:
        raise ValueError(
            f"{place}: has labels of several recordings, and labels that name none of them; give "
            "each task its video in the labelling tool, or export the recordings one by one"
        )
    chosen = [next((n for n in group if n in pictured), group[-1]) for group in groups]
    for name in {name for name in chosen if chosen.count(name) > 1}:
        raise ValueError(
            f"{place}: has two recordings that are called {files.shorten(name)}; rename one in the "
            "labelling tool, or take it out"
        )
    return chosen


def unread(top: Path, names: Collection[str] | None = None) -> list[str]:
    """Says why files that may have labels have none, for recordings that lack them.

    Returns:
        a line for each file of their names that no format recognises, such as one of boxes or an
        archive, but for what the labelling page keeps there.
    """
    lines: list[str] = []
    for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
        if len(lines) == MAX_PER_FILE:
            break
        inner = path.relative_to(top).parts[:-1]
        if BOXES in inner or any(name.startswith(".") for name in inner):
            continue
        meant = path.suffix.lower() in MAYBE or folders.is_archive(path)
        if meant and (names is None or path.stem in names):
            try:
                raise_all(LabelFile(path).errors)
            except ValueError as error:
                lines.append(str(error))
    return lines
