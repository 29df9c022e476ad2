"""Detections from elsewhere to the ASD format: ``python -m stormpsr_jax.psr.convert coco|yolo``.

COCO results are a JSON list of ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}`` with
the box's upper left corner in pixels; the image ids are explained by a COCO annotation file, or are
frame numbers. YOLO predictions are a folder with a text file per frame of
``<class> <x> <y> <w> <h> <confidence>``, centre and size in 0…1.
"""

import argparse
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax import files
from stormpsr_jax.psr import csvfile
from stormpsr_jax.psr.cli import OneLineParser, fail
from stormpsr_jax.psr.predictions import Detections, write_detections
from stormpsr_jax.psr.procedure import Procedure, load_procedure

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
            states = procedure.to_json()["states"]
            if value in states:
                return 1 + states.index(value)
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
                    f"class {detected} with offset {self._offset} is not in "
                    f"0…{self._procedure.error_class}"
                )
            return c
        if str(detected) not in self._classes:
            raise ValueError(f"class {detected} is not in the class map")
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
        ValueError: names the entry and the field.
    """
    known = None if images is None else _coco_images(images, recording)
    if known is None and recording is None:
        raise ValueError("without an annotation file (--images) --recording is needed")
    if not isinstance(results, list):
        raise ValueError("COCO results are a list of detections")
    names = [recording] if known is None else sorted({image[0] for image in known.values()})
    rows: dict[str, list[tuple]] = {name: [] for name in names}
    for i, entry in enumerate(results):
        place = f"entry {i + 1}"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{place}: is not an object")
        image = _field(entry, "image_id", place)
        if known is None:
            name, frame, size = recording, _frame(str(image), f"{place}: image_id"), None
        elif image in known:
            name, frame, size = known[image]
        else:
            raise ValueError(f"{place}: image_id: {image!r} is not in the annotation file")
        score = _number(_field(entry, "score", place), f"{place}: score", 0, 1)
        box = _field(entry, "bbox", place)
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"{place}: bbox: {box!r} is not [x, y, width, height]")
        x, y, w, h = (_number(value, f"{place}: bbox", -1e9, 1e9) for value in box)
        width, height = size or (1, 1)
        c = _translate(classes, _field(entry, "category_id", place), f"{place}: category_id")
        centre = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        rows[name].append((frame, c, score, *centre))
    return {name: _detections(found) for name, found in rows.items()}


def _coco_images(images: Any, recording: str | None) -> dict[Any, tuple]:
    """Recording, frame and image size (or None) by image id."""
    entries = images.get("images") if isinstance(images, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("the annotation file has no list 'images'")
    known: dict[Any, tuple] = {}
    for i, entry in enumerate(entries):
        place = f"images[{i}]"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{place}: is not an object")
        key, file_name = _field(entry, "id", place), str(_field(entry, "file_name", place))
        if not isinstance(key, int | str) or key in known:
            raise ValueError(f"{place}: id: {key!r} is not an id, or is given twice")
        parts = pathlib.PurePosixPath(file_name.replace("\\", "/")).parts
        folders = [part for part in parts[:-1] if part not in ("rgb", ".", "/")]
        if recording is None and not folders:
            raise ValueError(
                f"{place}: file_name: {file_name!r} is in no folder that names its recording; "
                f"pass --recording"
            )
        size = None
        if "width" in entry and "height" in entry:
            size = tuple(_number(entry[f], f"{place}: {f}", 1, 1e6) for f in ("width", "height"))
        stem = pathlib.PurePosixPath(parts[-1]).stem if parts else ""
        frame = _frame(stem, f"{place}: file_name")
        known[key] = (recording or folders[-1], frame, size)
    return known


def from_yolo(folder: str | os.PathLike, classes: ClassMap) -> Detections:
    """Converts a folder of YOLO text files; a frame's number ends its file's name.

    Raises:
        ValueError: names file, line and field.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder")
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise ValueError(f"{folder}: holds no .txt files")
    rows: list[tuple] = []
    frames: dict[int, pathlib.Path] = {}
    for path in paths:
        frame = _frame(path.stem, f"{path}: name")
        if frame in frames:
            raise ValueError(f"{path}: name: frame {frame} is also in {frames[frame].name}")
        frames[frame] = path
        for line, row in csvfile.read_rows(path, delimiter=" "):
            fields = [text for text in row if text]
            if not fields:
                continue
            csvfile.check_width(path, line, fields, ["class", "x", "y", "w", "h", "confidence"])
            detected = csvfile.parse_integer(fields[0], 0, 10**6, path, line, "class")
            box = [
                csvfile.parse_number(text, path, line, name)
                for text, name in zip(fields[1:5], "xywh", strict=True)
            ]
            score = csvfile.parse_number(fields[5], path, line, "confidence")
            _number(score, f"{path}: line {line}: confidence", 0, 1)
            c = _translate(classes, detected, f"{path}: line {line}: class")
            rows.append((frame, c, score, *box))
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


def _field(entry: Mapping[str, Any], key: str, place: str) -> Any:
    if key not in entry:
        raise ValueError(f"{place}: {key}: is missing")
    return entry[key]


def _number(value: Any, place: str, low: float, high: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not (good and low <= value <= high and math.isfinite(value)):
        raise ValueError(f"{place}: {files.shorten(str(value))} is not in {low:g}…{high:g}")
    return float(value)


def _translate(classes: ClassMap, detected: Any, place: str) -> int:
    try:
        return classes(detected)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """The command; exit code 2 and one line on stderr for input that is wrong."""
    args = _parser().parse_args(argv)
    try:
        procedure = load_procedure(args.procedure)
        if args.classes is not None:
            content = files.read_json(args.classes)
            try:
                classes = ClassMap(content, procedure)
            except ValueError as error:
                raise ValueError(f"{args.classes}: {error}") from error
        else:
            classes = ClassMap(args.offset, procedure)
        out = pathlib.Path(args.out)
        if args.format == "yolo":
            folder = pathlib.Path(args.folder)
            found = {args.recording or folder.resolve().name: from_yolo(folder, classes)}
        else:
            images = None if args.images is None else files.read_json(args.images)
            content = files.read_json(args.results)
            try:
                found = from_coco(content, classes, images, args.recording)
            except ValueError as error:
                raise ValueError(f"{args.results}: {error}") from error
        out.mkdir(parents=True, exist_ok=True)
        for name, detections in found.items():
            path = out / f"{name}_results_pred.csv"
            write_detections(path, name, detections)
            print(f"{path}: {len(detections.frames)} detections")
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        fail(str(error))
    if classes.missing():
        print(f"no class maps to the catalogued states {', '.join(map(str, classes.missing()))}")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m stormpsr_jax.psr.convert", description=__doc__)
    formats = parser.add_subparsers(dest="format", required=True)
    coco = formats.add_parser("coco", help="COCO results")
    coco.add_argument("--results", required=True, help="the JSON file of detections")
    coco.add_argument("--images", help="the annotation file that explains the image ids")
    yolo = formats.add_parser("yolo", help="a folder of YOLO text files")
    yolo.add_argument("--folder", required=True)
    for sub in (coco, yolo):
        add = sub.add_argument
        add("--procedure", required=True, help="a packaged procedure's name, or a procedure file")
        add("--recording", help="name of the recording; otherwise that of the folder")
        add("--out", required=True, help="folder for <rec>_results_pred.csv")
        choice = sub.add_mutually_exclusive_group(required=True)
        choice.add_argument(
            "--classes",
            help="JSON file {detector's class: class of the procedure, state, background or error}",
        )
        choice.add_argument("--offset", type=int, help="is added to the detector's classes")
    return parser


if __name__ == "__main__":
    main()
