"""Detections as other tools write them: COCO results and folders of YOLO text files.

COCO results are a JSON list of ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}`` with
the box's upper left corner in pixels; the image ids are explained by a COCO annotation file, or are
frame numbers. YOLO predictions are a folder with a text file per frame of
``<class> <x> <y> <w> <h> <confidence>``, centre and size in 0…1.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from stormpsr_jax import files
from stormpsr_jax.mistakes import for_each
from stormpsr_jax.psr import csvfile
from stormpsr_jax.psr.predictions import Detections
from stormpsr_jax.psr.procedure import Procedure

_FRAME = re.compile(r"(?:.*[^0-9])?([0-9]{1,12})", re.ASCII | re.DOTALL)
_NAMED = {"background": lambda procedure: 0, "error": lambda procedure: procedure.error_class}


class ClassMap:
    """Translates a detector's classes into those of a procedure.

    Args:
        data: {the detector's class: ours}, where ours is a number in 0…S+1, a catalogued state
            such as "1100", "background" or "error"; or a whole number that is added to the
            detector's class.
        procedure: the product.

    Raises:
        ValueError: a class that the procedure does not have, or a catalogued state given twice.
    """

    def __init__(self, data: Mapping[str, Any] | int, procedure: Procedure) -> None:
        self._procedure = procedure
        self._offset = data if isinstance(data, int) else None
        self._classes: dict[str, int] = {}
        if isinstance(data, int):
            return
        if not isinstance(data, Mapping):
            raise ValueError("a class map is an object {detector's class: class of the procedure}")
        self._states = {state: c for c, state in enumerate(procedure.to_json()["states"], start=1)}
        source: dict[int, str] = {}
        for name, value in data.items():
            c = self._parse(name, value)
            if c in source and 1 <= c <= procedure.num_states:
                raise ValueError(f"classes {source[c]!r} and {name!r} both map to class {c}")
            source[c] = name
            self._classes[str(name)] = c

    def _parse(self, name: str, value: Any) -> int:
        procedure = self._procedure
        if isinstance(value, int) and not isinstance(value, bool):
            if 0 <= value <= procedure.error_class:
                return value
        elif isinstance(value, str):
            if value in _NAMED:
                return _NAMED[value](procedure)
            if value in self._states:
                return self._states[value]
        raise ValueError(
            f"class {name!r} maps to {value!r}, which is none of 0…{procedure.error_class}, "
            f"'background', 'error' or a catalogued state of procedure {procedure.name!r}"
        )

    def __call__(self, detected: int | str) -> int:
        """Returns the procedure's class; ValueError for a class that the map does not have."""
        if self._offset is not None:
            c = int(detected) + self._offset
            if not 0 <= c <= self._procedure.error_class:
                raise ValueError(
                    f"class {files.shorten(detected)} with offset {self._offset} is not in "
                    f"0…{self._procedure.error_class}"
                )
            return c
        if str(detected) not in self._classes:
            raise ValueError(f"class {files.shorten(detected)} is not in the class map")
        return self._classes[str(detected)]

    def missing(self) -> list[int]:
        """Catalogued states (1…S) that no class of the map leads to."""
        if self._offset is not None:
            return []
        return sorted(set(range(1, self._procedure.error_class)) - set(self._classes.values()))


def from_coco(
    results: Any, classes: ClassMap, images: Any = None, recording: str | None = None
) -> dict[str, Detections]:
    """Converts COCO results.

    Args:
        results: the content of the results file.
        classes: translates `category_id`.
        images: the content of the annotation file; None if the image ids are frame numbers.
        recording: of all images; None takes the folder that holds an image (the one above, if that
            is called "rgb").

    Returns:
        By recording; boxes in 0…1 where the annotation file tells the image sizes, else in pixels.
        A recording whose images have no result has no rows.

    Raises:
        ValueError: every mistake, with entry and field.
    """
    known = None if images is None else _coco_images(images, recording)
    if known is None and recording is None:
        raise ValueError("without an annotation file (--images) --recording is needed")
    if not isinstance(results, list):
        raise ValueError("COCO results are a list of detections")
    names = [recording] if known is None else sorted({image[0] for image in known.values()})
    rows: dict[str, list[tuple]] = {name: [] for name in names}

    def convert(i: int, entry: Any) -> None:
        place = f"entry {i + 1}"
        image = files.field(entry, "image_id", (int, str), place)
        if known is None:
            name, frame, size = recording, _frame(str(image), f"{place}: image_id"), None
        elif image in known:
            name, frame, size = known[image]
        else:
            raise ValueError(f"{place}: image_id: {image!r} is not in the annotation file")
        score = files.field(entry, "score", (int, float), place)
        files.number(score, f"{place}: score", 0, 1)
        box = files.field(entry, "bbox", list, place)
        if len(box) != 4:
            raise ValueError(f"{place}: bbox: {files.shorten(box)} is not [x, y, width, height]")
        x, y, w, h = (files.number(value, f"{place}: bbox", -1e9, 1e9) for value in box)
        width, height = size or (1, 1)
        category = files.field(entry, "category_id", (int, str), place)
        c = _translate(classes, category, f"{place}: category_id")
        centre = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        rows[name].append((frame, c, score, *centre))

    for_each(enumerate(results), convert)
    return {name: _detections(found) for name, found in rows.items()}


def _coco_images(images: Any, recording: str | None) -> dict[Any, tuple]:
    """Recording, frame and image size (or None) by image id."""
    entries = images.get("images") if isinstance(images, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("the annotation file has no list 'images'")
    known: dict[Any, tuple] = {}

    def convert(i: int, entry: Any) -> None:
        place = f"images[{i}]"
        key = files.field(entry, "id", (int, str), place)
        file_name = files.field(entry, "file_name", str, place)
        if key in known:
            raise ValueError(f"{place}: id: {files.shorten(key)} is given twice")
        parts = pathlib.PurePosixPath(file_name.replace("\\", "/")).parts
        folders = [part for part in parts[:-1] if part not in ("rgb", ".", "/")]
        if recording is None and not folders:
            raise ValueError(
                f"{place}: file_name: {file_name!r} is in no folder that names its recording; "
                f"pass --recording"
            )
        size = None
        if "width" in entry and "height" in entry:
            sizes = ((f, entry[f]) for f in ("width", "height"))
            size = tuple(files.number(value, f"{place}: {f}", 1, 1e6) for f, value in sizes)
        stem = pathlib.PurePosixPath(parts[-1]).stem if parts else ""
        frame = _frame(stem, f"{place}: file_name")
        name = recording or files.check_name(folders[-1], f"{place}: file_name")
        known[key] = (name, frame, size)

    for_each(enumerate(entries), convert)
    return known


def from_yolo(folder: str | os.PathLike, classes: ClassMap) -> Detections:
    """Converts a folder of YOLO text files; a frame's number ends its file's name.

    A file `classes.txt` is not read: tools put the names of their classes there, and it is
    `classes` that says what these are.

    Raises:
        ValueError: every mistake, with file, line and field.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder")
    paths = sorted(path for path in folder.glob("*.txt") if path.name != "classes.txt")
    if not paths:
        raise ValueError(f"{folder}: holds no .txt files of frames")
    rows: list[tuple] = []
    frames: dict[int, pathlib.Path] = {}

    def convert(path: pathlib.Path) -> None:
        frame = _frame(path.stem, f"{path}: name")
        if frame in frames:
            raise ValueError(f"{path}: name: frame {frame} is also in {frames[frame].name}")
        frames[frame] = path

        def parse(line: int, row: list[str]) -> tuple:
            fields = [text for text in row if text]
            csvfile.check_width(path, line, fields, ["class", "x", "y", "w", "h", "confidence"])
            detected = csvfile.parse_integer(fields[0], 0, 10**6, path, line, "class")
            box = [
                csvfile.parse_number(text, path, line, name)
                for text, name in zip(fields[1:5], "xywh", strict=True)
            ]
            score = csvfile.parse_number(fields[5], path, line, "confidence")
            files.number(score, f"{path}: line {line}: confidence", 0, 1)
            c = _translate(classes, detected, f"{path}: line {line}: class")
            return (frame, c, score, *box)

        lines = csvfile.read_rows(path, delimiter=" ")
        rows.extend(for_each([line for line in lines if any(line[1])], parse))

    for_each(((path,) for path in paths), convert)
    return _detections(rows)


def _detections(rows: list[tuple]) -> Detections:
    table = np.array(rows, np.float64).reshape(len(rows), 7)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Detections(
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3:]
    )


def _frame(text: str, place: str) -> int:
    match = _FRAME.fullmatch(text)
    if not match or int(match[1]) > csvfile.MAX_FRAME:
        raise ValueError(f"{place}: {files.shorten(text)} does not end in a frame number")
    return int(match[1])


def _translate(classes: ClassMap, detected: Any, place: str) -> int:
    try:
        return classes(detected)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from error
