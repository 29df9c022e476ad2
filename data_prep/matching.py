"""Brings the parts of recordings together: video, labels and boxes, wherever they lie."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import logging

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import for_each, gathering, raise_all
from stormpsr_jax.base.folders import printable
from stormpsr_jax.media import pictures, sources, video
from stormpsr_jax.media.pictures import ImageFiles, Pictures
from stormpsr_jax.recordings import box_files
from stormpsr_jax.recordings.boxes import (
    Boxes,
    Picture,
    by_frame,
    by_recording,
    join_pictures,
    of_one,
)
from stormpsr_jax.recordings.find import split_of
from stormpsr_jax.recordings.labels import STATES
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.recording import LabelPlace, Recording

P = TypeVar("P", Path, LabelPlace)


def find_labels(top: Path, flag: str, left_out: Collection[str] = ()) -> dict[str, LabelPlace]:
    """The folders with a file of labels; ValueError: none, or all recordings in two places."""
    walked = folders.walk(top, left_out)
    found = sources.by_name((path.name, path) for path, _, names in walked if STATES in names)
    if not found:
        raise ValueError(
            f"{flag}: no folder <train|val|test>/<recording> with a {STATES} is in it; unpack the "
            "archives, if it holds some"
        )
    places = only_places(found, flag, "labels")
    return {name: LabelPlace(path) for name, path in places.items()}


def find_box_files(
    top: Path,
    flag: str,
    recording_of: Callable[[Path], str | None],
    left_out: Collection[str] = (),
) -> dict[str, Path]:
    """The file of boxes of each recording, whose name `recording_of` gives (None: another file)."""
    walked = folders.walk(top, left_out)
    found = sources.by_name(
        (name, path)
        for path in (folder / file for folder, _, names in walked for file in names)
        if (name := recording_of(path)) is not None
    )
    return only_places(found, flag, "boxes")


def only_places(found: Mapping[str, Sequence[P]], flag: str, what: str) -> dict[str, P]:
    """Returns the place of each recording; ValueError names all that have several."""
    raise_all(
        [
            f"{flag}: recording {name}: {what} in {' and '.join(map(str, its))}; keep one of "
            "these or, if they are of several recordings, rename all but one"
            for name, its in found.items()
            if len(its) > 1
        ]
    )
    return {name: place for name, [place] in found.items()}


def read_boxes(path: Path) -> Boxes:
    """Reads the boxes of a recording: of a COCO file, or of a folder of YOLO's."""
    if path.is_file():
        return of_one(box_files.coco(files.read_json(path), path), path.stem)

    def picture(name: str) -> Picture:
        return box_files.yolo(files.read_text(path / name), str(path / name))

    there = filter(box_files.is_of_picture, folders.entries(path)[1])
    pictures = for_each([(name,) for name in there], picture)
    return join_pictures(by_frame(pictures).values())


def find_boxes(path: str | Path, names: Collection[str]) -> dict[str, Callable[[], Boxes]]:
    """Finds the boxes of each recording, of which labels have `names`.

    `path` is a folder with <recording>.json (COCO) and folders <recording>/ of .txt files (YOLO);
    or a COCO file of all recordings, or a folder with that alone. ValueError: there are none, a
    recording has both, or a file of all recordings has mistakes.
    """
    top, places = folders.require(path, "--boxes", "or a COCO file"), list[tuple[str, Path]]()
    for folder, _, there in folders.walk(top):
        if of_cvat := [name for name in there if name.lower().endswith(".xml")]:
            what = "CVAT's XML is not read for boxes; export the task as COCO 1.0"
            raise ValueError(f"{folder / of_cvat[0]}: {what}")
        coco = [name for name in there if name.lower().endswith(".json")]
        places += [(name.rpartition(".")[0], folder / name) for name in coco]
        if folder != top and any(map(box_files.is_of_picture, there)):
            places.append((folder.name, folder))
    found = sources.by_name(places)
    if not found:
        raise ValueError(
            f"--boxes={path}: has no <recording>.json (COCO) or <recording>/*.txt (YOLO)"
        )
    (_, shared), *others = places
    if not others and (shared == top or not found.keys() & set(names)) and shared.is_file():
        of_each = by_recording(box_files.coco(files.read_json(shared), shared), names)
        return {name: functools.partial(of_each.__getitem__, name) for name in of_each}
    each = only_places(found, "--boxes", "boxes")
    return {name: functools.partial(read_boxes, place) for name, place in each.items()}


def open_pictures(path: Path, fps: float, first_frame: int, title: str = "") -> Pictures:
    """Opens a video of a data set, whose first frame has the number given, or a folder of images.

    ValueError: damaged, incomplete, another rate, or, where the data set `title` is named, images
    that begin with another number; labels use the numbers of images, whatever these are.
    """
    if video.is_video(path.name):
        return video.open_constant_rate(path, first_frame, fps)
    numbers = pictures.number_images(path, folders.entries(path)[1])
    first = min(numbers)
    if title and first != first_frame:
        raise ValueError(
            f"{printable(path)}: the first frame is {first}, {title} starts at {first_frame}; "
            "frames before it are missing, or were numbered otherwise when they were extracted"
        )
    return ImageFiles(path, first, len(numbers))


def images_first(pictured: Mapping[str, Sequence[Path]]) -> dict[str, list[Path]]:
    """Returns the places of pictures; of a recording with images, those without its videos."""
    images = {n: [p for p in its if not video.is_video(p.name)] for n, its in pictured.items()}
    return {name: images[name] or list(its) for name, its in pictured.items()}


def match(
    labelled: Mapping[str, LabelPlace],
    pictured: Mapping[str, Sequence[Path]],
    boxed: Mapping[str, Callable[[], Boxes]],
    open_video: Callable[[Path, str], Pictures],
    flag: str,
    procedure: Procedure,
    tops: tuple[Path, Path] | None = None,
    **more: Any,
) -> list[Recording]:
    """Returns the recordings that have labels; a line in the log names the other pictures.

    Args:
        boxed: by recording, what gives its boxes.
        open_video: opens the video, or the folder of images, of a recording.
        flag: says where the pictures are.
        tops: the folders of labels and pictures, which say the splits; None: no split yet.
        more: attributes of `Recording`, of all of them.

    Raises:
        ValueError: all recordings that lack a part, have two of one, or miss pictures; or as of
            `splits_of`.
    """
    problems = []
    unlabelled = [name for name in pictured if name not in labelled]
    if without := [name for name in labelled if name not in pictured]:
        problems.append(f"labels without frames ({flag}): {', '.join(without)}")
    if unlabelled and problems:  # the same ones under other names?
        problems.append(f"frames without labels: {', '.join(unlabelled)}")
    if without := [name for name in boxed if name not in labelled]:
        problems.append(f"boxes without labels: {', '.join(without)}")
    found = []
    for name in sorted(labelled.keys() & pictured.keys()):
        with gathering(problems):
            place = only_places({name: pictured[name]}, flag, "frames")[name]
            parts = open_video(place, name), labelled[name], boxed.get(name), procedure
            found.append(Recording(name, *parts, **more))
    raise_all(problems)
    if tops is not None:
        places = {name: pictured[name][0] for name in labelled}
        splits = splits_of(*tops, labelled, places)
        for recording in found:
            recording.split = splits[recording.name]
    if unlabelled:
        first = printable(pictured[unlabelled[0]][0])
        what = "pictures without labels are left out: %s (%s%s)"
        logging.warning(what, ", ".join(unlabelled), first, ", …" * (len(unlabelled) > 1))
    return found


def splits_of(
    labels: Path,
    pictures: Path,
    labelled: Mapping[str, LabelPlace],
    pictured: Mapping[str, Path],
    above: bool = True,
) -> dict[str, str]:
    """Returns the split of each recording: that of its labels, or else of its pictures.

    `labels` and `pictures` are the folders in which they were found; `above` is as of
    `find.split_of`. ValueError names all recordings that are in no split, or whose pictures are in
    another one.
    """
    splits, problems = {}, []
    for name, place in labelled.items():
        of_pictures = split_of(pictured[name], pictures, above)
        of_labels = split_of(place.path, labels, above) or of_pictures
        if not of_labels:
            problems.append(f"{place}: is in no folder train, val or test")
        elif of_pictures not in ("", of_labels):
            problems.append(
                f"recording {name}: frames in split {of_pictures}, labels in {of_labels}"
            )
        else:
            splits[name] = of_labels
    raise_all(problems)
    return splits
