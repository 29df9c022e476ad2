"""The labels of a set of recordings, found in a folder or in a file.

A recording's labels are `NAME.*`, or a folder `NAME` that holds such a file, `PSR_labels.csv`,
`PSR_labels_raw.csv` or both (and perhaps `PSR_labels_with_errors.csv`); or a file of any name that
has the labels of several, as tools export a project. All may lie below folders train, val and test.
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
from stormpsr_jax.recordings.label_file import FORMATS, LabelPlace, UnknownFormatError
from stormpsr_jax.recordings.labels import PSR_FILES, STEPS

SPLITS = ("train", "val", "test")
_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?:_p[0-9]+)?", re.IGNORECASE | re.ASCII)
BOXES = "boxes"  # folder of those that the labelling page has drawn


class SearchResult(NamedTuple):
    """The labels of a set of recordings.

    Attributes:
        labels: by recording, sorted.
        errors: what is wrong, by the name of the folder or file that it is of.
        empty: folders at the place of a recording's, without labels and without folders.
        unread: files that may have been meant as labels, each with why it is not read.
    """

    labels: dict[str, LabelPlace]
    errors: dict[str, list[str]]
    empty: list[Path]
    unread: dict[Path, str]

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
        return [f"{printable(path)}{more} {what}" for path in [*self.unread][:1]]


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
        raise_all([*by_recording.unread.values()][:MAX_PER_FILE])
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

    Args:
        leave_out: path of a CSV file that holds no labels.
    """
    root = top if top.is_dir() else top.parent
    left_out = os.path.realpath(leave_out or "/")
    result = SearchResult({}, {}, [], {})
    places: dict[str, list[LabelPlace]] = collections.defaultdict(list)
    for folder, inner, names in folders.walk(top, [BOXES]):
        name = "" if folder == root or folder.name.lower() in SPLITS else folder.name
        if name and not set(names).isdisjoint(PSR_FILES):
            inner.clear()
            if is_of(split, folder, root):
                places[name].append(LabelPlace(folder))
            continue
        if not is_of(split, folder / "file", root):
            continue
        others = {"splits.csv"}
        if set(inner) & set(SPLITS):
            others |= {f"{split}.csv" for split in SPLITS}  # IndustReal's lists of actions
        paths = [folder / file for file in names if file not in others]
        candidates = [path for path in map(LabelPlace, paths) if path.is_candidate]
        any_labels = False
        for place in candidates:
            if os.path.realpath(place.path) == left_out:
                continue
            own_name = name or place.path.name.rpartition(".")[0]
            try:
                for recording in place.recordings(own_name, pictured):
                    places[files.check_name(recording, str(place))].append(place)
            except UnknownFormatError as error:
                if not place.is_certain:
                    result.unread[place.path] = str(error)
                    continue
                result.errors.setdefault(own_name, []).append(str(error))
            except ValueError as error:
                result.errors.setdefault(own_name, []).extend(lines_of(error))
            any_labels = True
        at_place = folder.parent == root or folder.parent.name in SPLITS
        if name and at_place and not inner and not any_labels:
            result.empty.append(folder)
    for recording, several in places.items():
        if len(several) > 1:
            result.errors.setdefault(recording, []).append(
                f"recording {recording}: labels in {' and '.join(map(str, several))}; keep one of "
                "these or, if they are of several recordings, rename all but one"
            )
    return result._replace(labels={name: places[name][0] for name in sorted(places)})
