"""Boxes in the files of labelling tools, detectors and data sets, each read into `Picture`s.

COCO annotations and results, YOLO text files and MECCANO's CSV. Readers raise ValueError with all
errors of a file, each with its entry or line. What a class stands for, and of which recording a
picture is, is for the caller to say: a `Translate` makes of a class as it is in a file, and its
place, the one that counts; without it true boxes are read, whose classes do not count, and which
have to be in the picture.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.boxes import Box, Id, Picture
from stormpsr_jax.recordings.procedure import Procedure

_MAX_PIXELS = 10**6  # of a side of a picture
_FARTHEST = 1e9  # pixels from the picture that a box may reach
_T = TypeVar("_T")
Path = str | os.PathLike
Translate = Callable[[Id, str], Id]


# --- COCO -----------------------------------------------------------------------------------------


def coco(data: Any, path: Path, translate: Translate | None = None) -> list[Picture]:
    """Returns the pictures of an annotation file, `data` of `path`, with their boxes in pixels."""
    pictures = coco_images(data, path)

    def add(place: str, entry: Any) -> None:
        picture = _picture_of(entry, place, pictures, "images")
        picture.boxes.append(box := _coco_box(entry, place, translate))
        if translate is None:
            picture.shares(box)

    _by_id(data, "annotations", path, add, has_id=False)
    return list(pictures.values())


def coco_results(
    results: Any, path: Path, pictures: dict[Id, Picture] | None, translate: Translate
) -> list[Picture]:
    """Returns the pictures of a file of results, with what was detected in them, in pixels.

    Args:
        pictures: those of the annotation file (`coco_images`), by which results are in pictures;
            None if image ids are numbers of frames, or texts that end in one.
    """
    if not isinstance(results, list):
        raise ValueError(f"{path}: COCO results are a list of detections")
    rows = {} if pictures is None else pictures

    def add(i: int, entry: Any) -> None:
        place = f"{path}: entry {i}"
        if pictures is None:
            key = files.field(entry, "image_id", (int, str), place)
            rows.setdefault(key, Picture(f"{place}: image_id", str(key), None, []))
        picture = _picture_of(entry, place, rows, "the annotation file")
        score = files.field(entry, "score", (int, float), place)
        files.number(score, f"{place}: score", 0, 1)
        picture.boxes.append(_coco_box(entry, place, translate)._replace(score=score))

    for_each(enumerate(results, start=1), add)
    return list(rows.values())


def coco_images(data: Any, path: Path) -> dict[Id, Picture]:
    """Returns the pictures of an annotation file by their ids, without boxes; errors as `coco`."""

    def picture(place: str, entry: Any) -> Picture:
        name, size = files.field(entry, "file_name", str, place), None
        if "width" in entry and "height" in entry:
            size = (
                files.number(entry["width"], f"{place}: width", 1, _MAX_PIXELS),
                files.number(entry["height"], f"{place}: height", 1, _MAX_PIXELS),
            )
        return Picture(place, name, size, [])

    return _by_id(data, "images", path, picture)


def coco_categories(data: Any, path: Path) -> dict[Id, str]:
    """Returns the names of categories by their ids, '' for what is no text; errors as `coco`."""
    names = _by_id(data, "categories", path, lambda _, entry: entry.get("name"))
    return {key: name if isinstance(name, str) else "" for key, name in names.items()}


def _coco_box(entry: Any, place: str, translate: Translate | None) -> Box:
    category = files.field(entry, "category_id", (int, str), place)
    values = files.field(entry, "bbox", list, place)
    if len(values) != 4:
        raise ValueError(f"{place}: bbox: {files.shorten(values)} is not x, y, w, h")
    x, y, w, h = (files.number(v, f"{place}: bbox", -_FARTHEST, _FARTHEST) for v in values)
    attributes = entry.get("attributes")
    if isinstance(attributes, Mapping) and attributes.get("rotation"):  # of CVAT
        raise ValueError(f"{place}: attributes: rotation: draw upright boxes")
    if translate is not None:
        category = translate(category, f"{place}: category_id")
    return Box(place, (x + w / 2, y + h / 2, w, h), category)


def _picture_of(entry: Any, place: str, pictures: Mapping[Id, Picture], where: str) -> Picture:
    key = files.field(entry, "image_id", (int, str), place)
    if key not in pictures:
        raise ValueError(f"{place}: image_id: {files.shorten(key)} is not in {where}")
    return pictures[key]


def _by_id(
    data: Any, key: str, path: Path, parse: Callable[[str, Any], _T], has_id: bool = True
) -> dict[Id, _T]:
    """Returns what is made of the entries of a list by their ids; `has_id`: each must have one."""
    if not isinstance(data, Mapping) or not isinstance(data.get(key), list):
        raise ValueError(f"{path}: not COCO, which is an object with a list {key!r}")
    by_id: dict[Id, _T] = {}

    def add(i: int, entry: Any) -> None:
        place = f"{path}: {key}[{i}]"
        number: Id = place
        if has_id or not isinstance(entry, Mapping) or "id" in entry:
            number = files.field(entry, "id", (int, str), place)
        if number in by_id:
            raise ValueError(f"{place}: id: {files.shorten(number)} is given twice")
        by_id[number] = parse(place, entry)

    for_each(enumerate(data[key]), add)
    return by_id


# --- YOLO -----------------------------------------------------------------------------------------

_YOLO = ["class", "x", "y", "w", "h", "confidence"]
# What tools put beside the files of pictures: lists of classes and of pictures, and remarks.
_NOTES = re.compile(
    r"((predefined_)?classes|labels|names|data|notes|train|val|valid|test|readme.*)\.txt",
    re.IGNORECASE,
)


def is_of_picture(name: str) -> bool:
    """Whether a file's name is that of a picture's rows: a text file, and no note of a tool."""
    return name.lower().endswith(".txt") and not _NOTES.fullmatch(name)


def yolo(text: str, path: str, translate: Translate | None = None) -> Picture:
    """Returns a picture by its text file: rows class, centre and size in 0…1, maybe a confidence.

    Args:
        path: of the file, which is called like the picture.
        translate: of detections, which have a confidence.
    """
    picture = Picture(path, os.path.basename(path), (1, 1), [])

    def box(line: csvfile.Line, fields: list[str]) -> Box:
        texts, place = [text for text in fields if text], f"{path}: line {line}"
        if len(texts) > len(_YOLO):  # corners, of which the first two are no centre and size
            problem = (
                f"the row has {len(texts)} fields, as polygons and rotated boxes have; export "
                f"upright boxes: {', '.join(_YOLO[:5])} and maybe a confidence"
            )
            raise line.error("field 7", problem)
        line.check_width(texts[:5], _YOLO[:5])
        values = [line.number(*pair) for pair in zip(texts[1:5], _YOLO[1:5], strict=True)]
        if translate is None:
            picture.shares(found := Box(place, values))
            return found
        if len(texts) == 5:
            problem = "is missing (the row has 5 fields); Ultralytics adds it with save_conf=True"
            raise line.error("confidence", problem)
        category = line.integer(texts[0], 0, 10**6, "class")
        score = line.share(texts[5], "confidence")
        return Box(place, values, translate(category, f"{place}: class"), score)

    rows = csvfile.rows_of(text, path, delimiter=" ")
    picture.boxes.extend(for_each([row for row in rows if any(row[1])], box))
    return picture


# --- MECCANO --------------------------------------------------------------------------------------

_MECCANO = ["frame", "flag", "visible interval", "x", "y", "w", "h"]


def meccano(text: str, path: Path) -> tuple[list[Picture], list[tuple[int, int]]]:
    """Returns what `<recording>_GT.csv` has: frame, flag, visible interval, cx, cy, w, h.

    The flag (-1, 0, 1) goes with error states and is not used: the state of a box is the one of
    the PSR labels at its frame.

    Returns:
        A picture for each row, and the frames that a visible interval leaves out (324 of 0015), as
        ranges (first frame, one after the last).
    """
    pictures: list[Picture] = []
    unsure: list[tuple[int, int]] = []
    last, before = 0, -1

    def add(line: csvfile.Line, row: list[str]) -> None:
        nonlocal last, before
        line.check_width(row, _MECCANO)
        frame = line.frame(row[0])
        line.integer(row[1], -1, 1, "flag")
        interval = line.integer(row[2], 0, csvfile.MAX_FRAME, "visible interval")
        if frame < last:
            raise line.error("frame", f"frame {frame} comes after frame {last}")
        values = [line.number(*pair) for pair in zip(row[3:], _MECCANO[3:], strict=True)]
        if interval == before and last + 1 < frame:
            unsure.append((last + 1, frame))
        last, before = frame, interval
        place = f"{path}: line {line}"
        pictures.append(Picture(place, str(frame), (1, 1), [Box(place, values)]))
        pictures[-1].shares(pictures[-1].boxes[0])

    for_each(csvfile.rows_of(text, path), add)
    return pictures, unsure


# --- Classes --------------------------------------------------------------------------------------


def class_names(procedure: Procedure) -> dict[str, int]:
    """Returns the classes of a procedure by what boxes are called: digits of a state, and others.

    The others are "background", "error" and "error_state".
    """
    states = procedure.to_json()["states"]
    errors = dict.fromkeys(("error", "error_state"), procedure.error_class)
    return {"background": 0, **{state: c for c, state in enumerate(states, start=1)}, **errors}


def coco_classes(data: Any, path: Path, procedure: Procedure) -> dict[Id, int]:
    """Returns the class of each category id of an annotation file, by the categories' names.

    A category is named as in `class_names`; a state that is not catalogued has class 0.
    IndustReal's own files, though, name class n as n + 1 (1 "background" … S + 2 "error_state"),
    while the ids of their boxes are classes: with such a table a class is its id.

    Raises:
        ValueError: a name that is none of these, or a table that is shifted in part.
    """
    named, classes, last = class_names(procedure), dict[Id, int](), procedure.error_class
    names = coco_categories(data, path)
    for key, name in names.items():
        state = len(name) == procedure.num_components and set(name) <= {"0", "1"}
        if name not in named and not state:
            raise ValueError(
                f"{path}: categories: {files.shorten(name)} is neither a state of procedure "
                f"{procedure.name!r} nor background or error_state"
            )
        classes[key] = named.get(name, 0)
    if names.get(1) != "background" or classes.get(last + 1) != last:
        return classes
    if any(key != c + 1 for key, c in classes.items()):
        raise ValueError(
            f"{path}: categories: background is 1, but not every state is one above its class in "
            f"procedure {procedure.name!r}"
        )
    return {c: c for c in range(last + 1)}


class ClassMap:
    """Translates a detector's classes into those of a procedure.

    `path` is of a JSON object {the detector's class: ours}, where ours is a number in 0…S+1, a
    catalogued state such as "1100", "background" or "error". ValueError: a class that the procedure
    does not have, or a catalogued state given twice.
    """

    def __init__(self, path: Path, procedure: Procedure) -> None:
        data = files.read_json(path)
        if not isinstance(data, dict):
            what = "a class map is an object {detector's class: class of the procedure}"
            raise ValueError(f"{path}: {what}")
        self._procedure, self._reported = procedure, set[Id]()
        self._classes: dict[str, int] = {}
        named, source = class_names(procedure), dict[int, str]()
        for name, value in data.items():
            c = named.get(value, -1) if isinstance(value, str) else value
            if type(c) is not int or not 0 <= c <= procedure.error_class:
                raise ValueError(
                    f"{path}: class {files.shorten(name)} maps to {files.shorten(value)}, which is "
                    f"none of 0…{procedure.error_class}, 'background', 'error' or a catalogued "
                    f"state of procedure {procedure.name!r}"
                )
            if c in source and 1 <= c <= procedure.num_states:
                both = f"{files.shorten(source[c])} and {files.shorten(name)}"
                raise ValueError(f"{path}: classes {both} both map to class {c}")
            source[c], self._classes[name] = name, c

    def __call__(self, detected: Id, place: str) -> int:
        """Returns the procedure's class; of one it has not ValueError, and then at others 0."""
        if str(detected) in self._classes or detected in self._reported:
            return self._classes.get(str(detected), 0)
        self._reported.add(detected)
        raise ValueError(f"{place}: class {files.shorten(detected)} is not in the class map")

    def __str__(self) -> str:
        procedure, values = self._procedure, set(self._classes.values())
        missing = sorted({*range(1, procedure.error_class)} - values)
        text = f"{len(self._classes)} classes: {procedure.num_states - len(missing)} of the "
        text += f"{procedure.num_states} states of procedure {procedure.name!r}"
        for c, what in ((procedure.error_class, "error state"), (0, "background")):
            text += f", {what if c in values else 'no ' + what}"
        return f"{text}; not {', '.join(map(str, missing))}" if missing else text
