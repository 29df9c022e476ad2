"""Detections as other tools write them: COCO results and folders of YOLO text files.

COCO results are a JSON list of ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}`` with
the box's upper left corner in pixels; the image ids are explained by a COCO annotation file, or are
frame numbers, or ``<recording>_<frame>`` as Ultralytics takes them from pictures so named. YOLO
predictions are a folder with a text file per frame of ``<class> <x> <y> <w> <h> <confidence>``,
centre and size in 0…1.
"""

import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each, lines_of, raise_all
from stormpsr_jax.psr.files import coco, csvfile, yolo
from stormpsr_jax.psr.files.class_maps import ClassMap
from stormpsr_jax.psr.files.predictions import Detections

_FRAME = re.compile(r"(?:.*[^0-9])?([0-9]{1,12})", re.ASCII | re.DOTALL)
_NAMED_FRAME = re.compile(r"(.+)_([0-9]{1,12})", re.ASCII)  # recording and frame


# Recording, frame and size (width, height), or None, of images by their ids.
Images = Mapping[coco.Id, tuple[str, int, tuple[float, float] | None]]


def from_coco(
    results: Any, classes: ClassMap, images: Images | None = None, recording: str | None = None
) -> dict[str, Detections]:
    """Converts the content of a file of COCO results, by recording.

    Boxes are in 0…1 where the annotation file tells the image sizes, else in pixels. A recording
    whose images have no result has no rows.

    Args:
        classes: translates `category_id`.
        images: those of the annotation file (`coco_images`); None if the image ids are frame
            numbers, or texts that end in one.
        recording: of all results, where there are no `images`; None takes what stands before the
            frame's number.

    Raises:
        ValueError: every error, with entry and field.
    """
    if not isinstance(results, list):
        raise ValueError("COCO results are a list of detections")
    named = [] if recording is None else [recording]
    names = named if images is None else sorted({image[0] for image in images.values()})
    rows: dict[str, list[tuple]] = {name: [] for name in names}
    translated = _Translated(classes)

    def convert(i: int, entry: Any) -> None:
        place = f"entry {i + 1}"
        image = files.field(entry, "image_id", (int, str), place)
        if images is None:
            name = recording or _recording(str(image), f"{place}: image_id")
            frame, size = _frame(str(image), f"{place}: image_id"), None
        elif image in images:
            name, frame, size = images[image]
        else:
            raise ValueError(
                f"{place}: image_id: {files.shorten(image)} is not in the annotation file"
            )
        score = files.field(entry, "score", (int, float), place)
        files.number(score, f"{place}: score", 0, 1)
        x, y, w, h = coco.corner(entry, place)
        width, height = size or (1, 1)
        category = files.field(entry, "category_id", (int, str), place)
        c = translated(category, f"{place}: category_id")
        centre = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        rows.setdefault(name, []).append((frame, c, score, *centre))

    translated.for_each(enumerate(results), convert)
    return {name: _detections(found) for name, found in rows.items()}


def coco_images(data: Any, path: str | os.PathLike, recording: str | None = None) -> Images:
    """Reads the images of a COCO annotation file.

    Args:
        recording: of all images; None takes the folder that holds an image (the one above, if that
            is called "rgb").

    Raises:
        ValueError: every error, with file, entry and field.
    """

    taken: dict[tuple[str, int], str] = {}  # names of images

    def convert(key: coco.Id, image: coco.Image) -> tuple:
        place = f"{image.place}: file_name"
        parts = pathlib.PurePosixPath(image.name.replace("\\", "/")).parts
        folders = [part for part in parts[:-1] if part not in ("rgb", ".", "/")]
        if recording is None and not folders:
            raise ValueError(
                f"{place}: {files.shorten(image.name)} is in no folder that names its recording; "
                "pass --recording"
            )
        stem = pathlib.PurePosixPath(parts[-1]).stem if parts else ""
        frame = _frame(stem, place)
        name = recording or files.check_name(folders[-1], place)
        if (name, frame) in taken:
            raise ValueError(
                f"{place}: {files.shorten(image.name)} is frame {frame} of recording {name!r}, as "
                f"is {files.shorten(taken[name, frame])}; give each recording a folder of its own"
            )
        taken[name, frame] = image.name
        return key, (name, frame, image.size)

    return dict(for_each(coco.images(data, path).items(), convert))


def from_yolo(
    folder: str | os.PathLike,
    classes: ClassMap,
    recording: str | None = None,
    first_frame: int = 0,
) -> dict[str, Detections]:
    """Converts a folder of YOLO text files, by recording; a frame's number ends its file's name.

    A folder without such files may have a folder for each recording, named after it, with the files
    in it or in its folder "labels". A file `classes.txt` and other notes of tools
    (`yolo.is_of_picture`) are not read: it is `classes` that says what the classes are.

    Args:
        recording: of all files. None takes the folder's name, unless it is "labels", as Ultralytics
            calls every one, or its files belong to several videos: then it is what stands before
            the frame's number.
        first_frame: number of a recording's first frame in these files, which becomes 0.

    Raises:
        ValueError: every error, with file, line and field.
    """
    if first_frame < 0:
        raise ValueError(f"--first_frame={first_frame} is not a number from 0 up")
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder")
    paths = sorted(path for path in folder.glob("*.txt") if yolo.is_of_picture(path.name))
    if not paths and recording is None:
        if below := _recordings_below(folder):
            each = [(inner, classes, name, first_frame) for name, inner in below.items()]
            return {n: d for found in for_each(each, from_yolo) for n, d in found.items()}
    if not paths:
        raise ValueError(f"{folder}: holds no .txt files of frames")
    if recording is None and folder.resolve().name != "labels":
        starts = {match and match[1] for match in map(_named, paths)}
        recording = folder.resolve().name if len(starts) == 1 else None
    rows: dict[str, list[tuple]] = {}
    translated = _Translated(classes)
    frames: dict[tuple[str, int], pathlib.Path] = {}

    def convert(path: pathlib.Path) -> None:
        frame = yolo.frame_of(path.name, str(path)) - first_frame
        name = recording or _recording(path.stem, f"{path}: name")
        if frame < 0:
            raise ValueError(
                f"{path}: name: is before the first frame, --first_frame={first_frame}"
            )
        if (name, frame) in frames:
            raise ValueError(
                f"{path}: name: frame {frame + first_frame} is also in {frames[name, frame].name}"
            )
        frames[name, frame] = path

        def parse(row: yolo.Row) -> tuple:
            if len(row.texts) == 5:
                what = "is missing (the row has 5 fields); Ultralytics adds it with save_conf=True"
                raise row.line.error("confidence", what)
            score = row.line.number(row.texts[5], "confidence")
            files.number(score, f"{row.place}: confidence", 0, 1)
            c = translated(row.number(10**6), f"{row.place}: class")
            return (frame, c, score, *row.box)

        rows.setdefault(name, []).extend(yolo.read(files.read_text(path), path, parse))

    translated.for_each(((path,) for path in paths), convert)
    return {name: _detections(found) for name, found in rows.items()}


def _recordings_below(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders of YOLO files in a folder, by the recordings that they are named after."""
    found = {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        place = inner / "labels" if (inner / "labels").is_dir() else inner
        if any(place.glob("*.txt")):
            found[files.check_name(inner.name, str(inner))] = place
    return found


def count_from_one(folder: str | os.PathLike) -> bool:
    """Whether the files of a YOLO folder may count the frames of a video, as Ultralytics does.

    It counts them from 1 and does not pad the numbers; pictures mostly have names of one length.
    """
    found = [match[2] for match in map(_named, pathlib.Path(folder).rglob("*.txt")) if match]
    return bool(found) and not any(number.startswith("0") for number in found)


def _named(path: pathlib.Path) -> re.Match[str] | None:
    return _NAMED_FRAME.fullmatch(csvfile.named_before(path.stem))


def _recording(text: str, place: str) -> str:
    """The recording in <recording>_<frame>."""
    match = _NAMED_FRAME.fullmatch(csvfile.named_before(text))
    if not match:
        raise ValueError(
            f"{place}: {files.shorten(text)} names no recording before the frame's number, so "
            "--recording is needed (of COCO results, or --images)"
        )
    return files.check_name(match[1], place)


def _detections(rows: list[tuple]) -> Detections:
    table = np.array(rows, np.float64).reshape(len(rows), 7)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Detections(
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3:]
    )


def _frame(text: str, place: str) -> int:
    match = _FRAME.fullmatch(csvfile.named_before(text))
    if not match or int(match[1]) > csvfile.MAX_FRAME:
        raise ValueError(f"{place}: {files.shorten(text)} does not end in a frame number")
    return int(match[1])


class _Translated:
    """Classes translated; one that the map does not have is told once, with how often it comes."""

    def __init__(self, classes: ClassMap):
        self._classes = classes
        self._wrong: dict[str, tuple[str, int]] = {}  # by mistake, its first place, how often

    def __call__(self, detected: int | str, place: str) -> int:
        try:
            return self._classes(detected)
        except (ValueError, TypeError) as error:
            first, count = self._wrong.get(str(error), (place, 0))
            self._wrong[str(error)] = first, count + 1
            return 0

    def for_each(self, items: Iterable[tuple[Any, ...]], convert: Callable[..., None]) -> None:
        """Calls convert(*item) for each; raises the errors of all, and those of classes."""
        errors: list[str] = []
        try:
            for_each(items, convert)
        except ValueError as error:
            errors = lines_of(error)
        for what, (place, count) in self._wrong.items():
            s = "s" if count > 2 else ""
            more = f" ({count - 1:,} more detection{s} of it)" if count > 1 else ""
            errors.append(f"{place}: {what}{more}")
        raise_all(errors)
