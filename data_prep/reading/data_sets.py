"""Finds the recordings of a data set: pictures, label files and boxes, in folders and zip files."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from absl import logging

from data_prep.reading.asd_labels import Boxes
from data_prep.reading.downloads import Download
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.media import pictures, video
from stormpsr_jax.media.finding import Place, by_name, show
from stormpsr_jax.media.pictures import ImageFiles, Pictures
from stormpsr_jax.media.trees import Tree, join
from stormpsr_jax.media.video import Video
from stormpsr_jax.psr.files.label_files import STATES

_SPLIT = re.compile(r"(train|val|test)(?:_p[0-9]+)?(?:\.zip)?", re.IGNORECASE | re.ASCII)


@dataclasses.dataclass(frozen=True)
class Format:
    """What is particular to a data set.

    Attributes:
        title: its name in messages.
        first_frame: number of a recording's first frame.
        read_boxes: reads the file of a recording's boxes.
        frames_flag: the flag that says where the pictures are.
        any_first: whether image files may begin with another number; labels then use that too.
        early_start: whether the first state may be labelled before the first picture.
        download: what is known of its recordings.
    """

    title: str
    first_frame: int
    read_boxes: Callable[[Path], Boxes]
    frames_flag: str
    any_first: bool = False
    early_start: bool = False
    download: Download = dataclasses.field(default_factory=Download)


@dataclasses.dataclass(frozen=True)
class RecordingFiles:
    """Where the parts of a recording are. Picklable.

    Attributes:
        name: its name.
        split: "train", "val" or "test".
        pictures: its N frames.
        labels: folder of its PSR label files; of a user's own, maybe a file.
        boxes: file (or folder) of its boxes, or the boxes themselves where one file has those of
            several recordings; None if there are none.
        videos: its videos, which are not read where there are image files.
    """

    name: str
    split: str
    pictures: Pictures
    labels: Place
    boxes: Place | Boxes | None
    videos: tuple[Place, ...] = ()


def find_labels(trees: Iterable[Tree], flag: str) -> dict[str, tuple[str, Place]]:
    """Finds the folders with a PSR_labels_raw.csv: (split, folder) by recording.

    The split is the nearest folder above called train, val or test (also test_p1), or the zip
    file's name.

    Raises:
        ValueError: there are none, or all recordings that are in two places or in no split.
    """
    places = [
        (folder.rpartition("/")[2], (tree, folder))
        for tree in trees
        for folder, _, files in tree.walk()
        if STATES in files
    ]
    found: dict[str, tuple[str, Place]] = {}
    problems = []
    for name, [place, *others] in by_name(places).items():
        if (split := _split_of(*place)) is None:
            problems.append(f"{show(place)}: is in no folder train, val or test")
        elif others:
            shown = " and ".join(map(show, (place, *others)))
            problems.append(f"recording {name}: labels in {shown}; keep them in one of these")
        else:
            found[name] = (split, place)
    raise_all(problems)
    if not found:
        raise ValueError(f"{flag}: no folder <train|val|test>/<recording> with a {STATES} is in it")
    return found


def _split_of(tree: Tree, folder: str) -> str | None:
    top = os.path.basename(os.path.abspath(tree.path))
    for part in [*reversed(folder.split("/")[:-1]), top]:
        if match := _SPLIT.fullmatch(part):
            return match[1].lower()
    return None


def find_boxes(
    trees: Iterable[Tree], flag: str, recording_of: Callable[[str, str], str | None]
) -> dict[str, Place]:
    """Returns the file of boxes of each recording.

    Args:
        trees: where to look.
        flag: that names it, for messages.
        recording_of: (folder, file name) -> name of the recording; None of a file without boxes.

    Raises:
        ValueError: all recordings that have two, and all names that cannot be those of recordings.
    """
    found = by_name(
        (name, (tree, join(folder, file)))
        for tree in trees
        for folder, _, files in tree.walk()
        for file in files
        if (name := recording_of(folder, file)) is not None
    )
    raise_all(
        [
            f"{flag}: recording {name}: boxes in {' and '.join(map(show, two))}; keep one of these"
            for name, two in found.items()
            if len(two) > 1
        ]
    )
    return {name: place for name, [place] in found.items()}


def match(
    form: Format,
    labelled: Mapping[str, tuple[str, Place]],
    pictured: Mapping[str, Sequence[Place]],
    boxed: Mapping[str, Place],
    fps: float,
) -> list[RecordingFiles]:
    """Brings the parts of each recording together.

    Image files go before videos of the same recording. Pictures without labels are left out, with
    a line in the log.

    Args:
        form: the data set.
        labelled: (split, folder of the PSR labels) of each recording.
        pictured: see find_pictures.
        boxed: files of boxes, by recording.
        fps: frames per second that a video has to have.

    Raises:
        ValueError: all recordings that lack a part, have two of one, miss pictures, or are in two
            splits.
    """
    problems = []
    if without := [name for name in labelled if name not in pictured]:
        problems.append(f"labels without frames ({form.frames_flag}): {', '.join(without)}")
    unlabelled = [name for name in pictured if name not in labelled]
    if unlabelled and problems:  # the same ones under other names?
        problems.append(f"frames without labels: {', '.join(unlabelled)}")
    if without := [name for name in boxed if name not in labelled]:
        problems.append(f"ASD labels without PSR labels: {', '.join(without)}")
    recordings = []
    for name, (split, folder) in labelled.items():
        there = pictured.get(name, ())
        videos = tuple(place for place in there if video.is_video(place[1]))
        places = [place for place in there if not video.is_video(place[1])] or videos
        if len(places) > 1:
            shown = " and ".join(map(show, places))
            problems.append(f"recording {name}: frames in {shown}; give one of them only")
        if len(places) != 1:
            continue
        shipped = _split_of(*places[0])
        if shipped not in (None, split):
            problems.append(f"recording {name}: frames in split {shipped}, labels in {split}")
        try:
            frames = _open_pictures(form, name, places[0], fps)
        except ValueError as error:
            problems.append(str(error))
        else:
            recordings.append(RecordingFiles(name, split, frames, folder, boxed.get(name), videos))
    raise_all(problems)
    if unlabelled:
        within = {tree.show("") for name in unlabelled for tree, _ in pictured[name]}
        logging.warning(
            "pictures without labels are left out: %s (in %s)",
            ", ".join(unlabelled),
            ", ".join(sorted(within)),
        )
    return recordings


def _open_pictures(form: Format, name: str, place: Place, fps: float) -> ImageFiles | Video:
    tree, path = place
    if video.is_video(path):
        start = form.download.video_starts.get(name, form.first_frame)
        return video.open_constant_rate(tree, path, start, fps)
    numbers = pictures.number_images(tree, path, tree.entries(path)[1])
    first = min(numbers)
    if first != form.first_frame and not form.any_first:
        raise ValueError(
            f"{tree.show(path)}: the first frame is {first}, {form.title} starts at "
            f"{form.first_frame}; frames before it are missing, or were numbered otherwise when "
            "they were extracted"
        )
    return ImageFiles(tree, path, first, len(numbers))
