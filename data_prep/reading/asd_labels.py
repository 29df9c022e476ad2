"""Boxes of assembly state detection: MECCANO's CSV, IndustReal's COCO, and YOLO text files.

A box that reaches beyond the picture is cut off at its edge: 7 % of the boxes of MECCANO do, by up
to 0.14 of the picture, where the object leaves it.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stormpsr_jax import files
from stormpsr_jax.psr import csvfile

_COLUMNS = ["frame", "flag", "visible interval", "x", "y", "w", "h"]


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The M boxes of a file, in its order.

    Attributes:
        frames: (M,) int64.
        boxes: (M, 4) cx, cy, w, h in 0…1, cut off at the edges of the picture.
        places: M places in the file, as messages name them.
        num_cut: how many were cut off.
        states: M names of states as the file gives them ('' if it does not).
    """

    frames: np.ndarray
    boxes: np.ndarray
    places: tuple[str, ...]
    num_cut: int
    states: tuple[str, ...]

    @property
    def num_repeated(self) -> int:
        """Boxes of a frame that has another one."""
        return len(self.frames) - len(np.unique(self.frames))

    def of_frames(self, first_frame: int, num_frames: int) -> np.ndarray:
        """Returns which box each frame has: the largest one, the first of equals.

        In MECCANO, 22 frames have two: the object's, and a speck (or the object's again).

        Args:
            first_frame: frame number of row 0 of the result.
            num_frames: N.

        Returns:
            (N,) places in `boxes`; -1 where there is none.

        Raises:
            ValueError: a box of a frame that is not among these, with its place.
        """
        result = np.full(num_frames, -1)
        rows = self.frames - first_frame
        outside = (rows < 0) | (rows >= num_frames)
        if outside.any():
            i = int(outside.argmax())
            raise ValueError(
                f"{self.places[i]}: frame {self.frames[i]} is not among the recording's frames "
                f"{first_frame}…{first_frame + num_frames - 1}"
            )
        area = self.boxes[:, 2] * self.boxes[:, 3]
        order = np.lexsort((-np.arange(len(area)), area))  # the last one of a frame stays
        result[rows[order]] = order
        return result


def read_meccano_boxes(path: str | Path) -> Boxes:
    """Reads `<recording>_GT.csv`: frame, flag, number of the visible interval, cx, cy, w, h.

    The flag (-1, 0, 1) goes with error states and is not used: the state of a box is the one of
    the PSR labels at its frame.

    Raises:
        ValueError: naming file, line and field.
    """
    frames, boxes, places = [], [], []
    for line, row in csvfile.read_rows(path):
        csvfile.check_width(path, line, row, _COLUMNS)
        frame = csvfile.parse_integer(row[0], 0, csvfile.MAX_FRAME, path, line, "frame")
        csvfile.parse_integer(row[1], -1, 1, path, line, "flag")
        csvfile.parse_integer(row[2], 0, csvfile.MAX_FRAME, path, line, "visible interval")
        if frames and frame < frames[-1]:
            what = f"frame {frame} comes after frame {frames[-1]}"
            raise csvfile.field_error(path, line, "frame", what)
        box = [
            csvfile.parse_number(text, path, line, name)
            for text, name in zip(row[3:], _COLUMNS[3:], strict=True)
        ]
        _check_box(box, f"{path}: line {line}")
        frames.append(frame)
        boxes.append(box)
        places.append(f"{path}: line {line}")
    return _cut_off(frames, boxes, places, [""] * len(frames))


def read_coco_boxes(path: str | Path) -> Boxes:
    """Reads `OD_labels.json`: images, categories and annotations as in COCO, boxes in pixels.

    A frame's number is the one in its image's file name. Categories are named after the state
    vector; kept in `states`.

    Raises:
        ValueError: naming file and entry; also for an id that is given twice.
    """
    data = files.read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: not COCO, which is an object with images and annotations")
    images = _by_id(data, "images", path)
    categories = _by_id(data, "categories", path)
    found = []
    for i, entry in enumerate(_by_id(data, "annotations", path).values()):
        place = f"{path}: annotations[{i}]"
        image = _lookup(entry, "image_id", images, "images", place)
        category = _lookup(entry, "category_id", categories, "categories", place)
        width, height = (_number(image, key, f"{place}: its image") for key in ("width", "height"))
        bbox = entry.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4:
            raise ValueError(f"{place}: bbox: {_short(bbox)} is not a list x, y, w, h")
        x, y, w, h = (_number({"bbox": value}, "bbox", place, low=None) for value in bbox)
        box = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        _check_box(box, place)
        name = image.get("file_name")
        if not isinstance(name, str):
            raise ValueError(f"{place}: its image: file_name: {_short(name)} is not a name")
        try:
            frame = csvfile.parse_image_name(name, path, 1)
        except ValueError as error:
            raise ValueError(f"{place}: its image: file_name: {_short(name)}") from error
        found.append((frame, box, place, str(category.get("name", ""))))
    found.sort(key=lambda item: item[0])  # COCO has no order
    frames, boxes, places, states = zip(*found, strict=True) if found else ((), (), (), ())
    return _cut_off(frames, boxes, places, states)


def read_yolo_boxes(paths: Mapping[int, Path]) -> Boxes:
    """Reads YOLO label files, one per picture: rows class, cx, cy, w, h in 0…1, maybe a confidence.

    The class is not used: the state of a box is the one of the PSR labels at its frame.

    Args:
        paths: the files by frame number.

    Raises:
        ValueError: naming file, line and field.
    """
    frames, boxes, places = [], [], []
    for frame, path in sorted(paths.items()):
        for line, row in csvfile.read_rows(path, delimiter=" "):
            fields = [text for text in row if text]
            if not fields:
                continue
            csvfile.check_width(path, line, fields[:5], ["class", "x", "y", "w", "h"])
            box = [
                csvfile.parse_number(text, path, line, field)
                for text, field in zip(fields[1:5], "xywh", strict=True)
            ]
            _check_box(box, f"{path}: line {line}")
            frames.append(frame)
            boxes.append(box)
            places.append(f"{path}: line {line}")
    return _cut_off(frames, boxes, places, [""] * len(frames))


def _check_box(box: list[float], place: str) -> None:
    """Raises ValueError unless the box's centre lies in the picture and its size is positive."""
    for name, value in zip(("x", "y"), box, strict=False):
        if not 0 <= value <= 1:
            raise ValueError(
                f"{place}: {name}: the box is outside the picture (its centre is at {value:.6g}, "
                "not in 0…1)"
            )
    for name, value in zip(("w", "h"), box[2:], strict=True):
        if not 0 < value <= 2:
            raise ValueError(f"{place}: {name}: a box of size {value:.6g} (should be in 0…1)")


def _cut_off(frames, boxes, places, states) -> Boxes:
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    start, end = np.clip(boxes[:, :2] - half, 0, 1), np.clip(boxes[:, :2] + half, 0, 1)
    # More than the rounding of the files, which have six digits.
    cut = (np.abs(end - start - boxes[:, 2:]) > 1e-5).any(axis=1)
    boxes[cut] = np.concatenate([(start + end) / 2, end - start], axis=1)[cut]
    return Boxes(np.array(frames, np.int64), boxes, tuple(places), int(cut.sum()), tuple(states))


def _by_id(data: Mapping[str, Any], key: str, path: str | Path) -> dict[Any, dict[str, Any]]:
    entries = data.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: {key}: not COCO, which has a list there")
    found: dict[Any, dict[str, Any]] = {}
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int | str):
            raise ValueError(f"{path}: {key}[{i}]: not an object with an id")
        if entry["id"] in found:
            raise ValueError(f"{path}: {key}[{i}]: id: {entry['id']!r} is given twice")
        found[entry["id"]] = entry
    return found


def _lookup(entry: dict, key: str, found: dict, where: str, place: str) -> dict[str, Any]:
    identifier = entry.get(key)
    if not isinstance(identifier, int | str) or identifier not in found:
        raise ValueError(f"{place}: {key}: {_short(identifier)} is not in {where}")
    return found[identifier]


def _number(entry: Mapping[str, Any], key: str, place: str, low: float | None = 0) -> float:
    value = entry.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or (low is not None and value <= low):
        raise ValueError(f"{place}: {key}: {_short(value)} is not a number that it can be")
    return float(value)


def _short(value: Any) -> str:
    return files.shorten(json.dumps(value, ensure_ascii=False))
