"""Boxes of assembly state detection: MECCANO's CSV, COCO, CVAT's XML, and YOLO text files.

A box that reaches beyond the picture is cut off at its edge: 7 % of the boxes of MECCANO do, by up
to 0.14 of the picture, where the object leaves it.

A frame without a box shows no whole object only if somebody looked at it. Files of COCO and of CVAT
list the images that were looked at, and each YOLO file is one. MECCANO and IndustReal have a box in
every frame in which all of the object is visible, so that the other frames are empty (IndustReal's
own training takes them so); a file of theirs with sparse boxes, though, says nothing of others.
"""

import contextlib
import dataclasses
import unicodedata
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each, note, raise_all
from stormpsr_jax.psr.files import coco, csvfile, yolo
from stormpsr_jax.psr.files.formats import xml_tree

_COLUMNS = ["frame", "flag", "visible interval", "x", "y", "w", "h"]


class _Row(NamedTuple):
    """A box as a file gives it: cx, cy, w, h in 0…1, its place, and its category in COCO."""

    frame: int
    box: Sequence[float]
    place: str
    category: int | str = ""


_Found = tuple[list[_Row], list[int]]  # boxes, and frames that were looked at and have none


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The M boxes of a file, in its order, and which frames were looked at.

    Attributes:
        frames: (M,) int64.
        boxes: (M, 4) cx, cy, w, h in 0…1, cut off at the edges of the picture.
        places: M places in the file, as messages name them.
        num_cut: how many were cut off.
        classes: (M,) int64, the class that the file gives each box; None where it gives none, and
            the state of the PSR labels counts.
        named: (M,) int64, classes by the names of the file's own table, -1 for another name; None
            where it has no such table.
        empty: (E,) int64, frames that the file says were looked at, and without a box.
        every_frame: whether the other frames have been looked at too, if boxes are not sparse.
        unsure: (U, 2) int64, ranges (first frame, one after the last) where that is in doubt.
    """

    frames: np.ndarray
    boxes: np.ndarray
    places: tuple[str, ...]
    num_cut: int
    classes: np.ndarray | None = None
    named: np.ndarray | None = None
    empty: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    every_frame: bool = False
    unsure: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.int64))

    @property
    def digest(self) -> int:
        """A number that changes with any box, frame number or class."""
        digest = zlib.crc32(self.frames.tobytes(), zlib.crc32(self.boxes.tobytes()))
        digest = zlib.crc32(self.unsure.tobytes(), zlib.crc32(self.empty.tobytes(), digest))
        return digest if self.classes is None else zlib.crc32(self.classes.tobytes(), digest)

    @property
    def num_repeated(self) -> int:
        """Boxes of a frame that has another one."""
        return len(self.frames) - len(np.unique(self.frames))

    @property
    def sparse(self) -> bool:
        """Whether most boxes have none in the frame before or after: only some were drawn."""
        frames = np.unique(self.frames)
        next_to = np.diff(frames) == 1
        beside = np.append(next_to, False) | np.insert(next_to, 0, False)
        return not len(frames) or bool(beside.mean() < 0.5)

    def looked_at(self, first_frame: int, num_frames: int) -> np.ndarray:
        """Returns (N,) bool: the frames from `first_frame` on of which is known what they show."""
        known = np.zeros(num_frames, bool)
        if self.every_frame and not self.sparse:
            known[:] = True
            for start, end in np.clip(self.unsure - first_frame, 0, num_frames):
                known[start:end] = False
        rows = np.concatenate([self.frames, self.empty]) - first_frame
        known[rows[(rows >= 0) & (rows < num_frames)]] = True
        return known

    def of_frames(self, first_frame: int, num_frames: int) -> np.ndarray:
        """Returns which box each frame has: the largest one, the first of equals.

        In MECCANO, 22 frames have two: the object's, and a speck (or the object's again).

        Args:
            first_frame: frame number of row 0 of the result.
            num_frames: N.

        Returns:
            (N,) places in `boxes`; -1 where there is none.

        Raises:
            ValueError: all boxes of frames that are not among these, with their places.
        """
        result = np.full(num_frames, -1)
        rows = self.frames - first_frame
        raise_all(
            [
                f"{self.places[i]}: frame {self.frames[i]} is not among the recording's frames "
                f"{first_frame}…{first_frame + num_frames - 1}"
                for i in np.flatnonzero((rows < 0) | (rows >= num_frames))
            ]
        )
        area = self.boxes[:, 2] * self.boxes[:, 3]
        order = np.lexsort((-np.arange(len(area)), area))  # the last one of a frame stays
        result[rows[order]] = order
        return result


def read_meccano_boxes(path: str | Path) -> Boxes:
    """Reads `<recording>_GT.csv`: frame, flag, number of the visible interval, cx, cy, w, h.

    The flag (-1, 0, 1) goes with error states and is not used: the state of a box is the one of
    the PSR labels at its frame. Frames that a visible interval leaves out (324 of 0015) are unsure.

    Raises:
        ValueError: all mistakes, with file, line and field.
    """
    rows: list[_Row] = []
    mistakes: list[str] = []
    unsure: list[tuple[int, int]] = []
    before = -1
    for line, row in csvfile.read_rows(path):
        try:
            csvfile.check_width(path, line, row, _COLUMNS)
            frame = csvfile.parse_integer(row[0], 0, csvfile.MAX_FRAME, path, line, "frame")
            csvfile.parse_integer(row[1], -1, 1, path, line, "flag")
            interval = csvfile.parse_integer(
                row[2], 0, csvfile.MAX_FRAME, path, line, "visible interval"
            )
            if rows and frame < rows[-1].frame:
                what = f"frame {frame} comes after frame {rows[-1].frame}"
                raise csvfile.field_error(path, line, "frame", what)
            box = [
                csvfile.parse_number(text, path, line, name)
                for text, name in zip(row[3:], _COLUMNS[3:], strict=True)
            ]
            check_box(box, f"{path}: line {line}")
        except ValueError as error:
            note(mistakes, error)
        else:
            if interval == before:
                unsure.append((rows[-1].frame + 1, frame))
            before = interval
            rows.append(_Row(frame, box, f"{path}: line {line}"))
    raise_all(mistakes)
    ranges = np.array([(a, b) for a, b in unsure if a < b], np.int64).reshape(-1, 2)
    return dataclasses.replace(_cut_off(rows), every_frame=True, unsure=ranges)


def read_coco_boxes(path: str | Path) -> Boxes:
    """Reads the COCO file of one recording; see parse_coco. Its categories are not used."""
    return parse_coco(files.read_json(path), path)[0]


def parse_coco(data: Any, path: str | Path) -> tuple[Boxes, list[coco.Id]]:
    """Returns the boxes of a COCO file of one recording, and the id of each one's category.

    A frame's number is the one in its image's file name; boxes are in pixels. Of a copy of
    a file of several recordings, the images in a folder that is called like the copy count.

    Args:
        data: what the file holds: images, categories and annotations.
        path: the file, for messages.

    Raises:
        ValueError: all mistakes, with file and entry; also ids that are given twice.
    """
    rows, empty = _of_one(_read_coco(data, path, _own_or_any(path)))
    return _cut_off(rows, empty), [row.category for row in rows]


def read_shared_coco_boxes(path: str | Path, names: Collection[str]) -> dict[str, Boxes]:
    """Reads a COCO file with the images of several recordings, as annotation tools export it.

    An image belongs to the recording that the nearest folder in its file name is named after, such
    as `bench_01` in `frames/bench_01/000010.jpg`.

    Args:
        path: the file.
        names: of the recordings, as files.check_name gives them.

    Returns:
        The boxes of each recording that has some.

    Raises:
        ValueError: all mistakes, with file and entry.
    """

    found = _read_coco(files.read_json(path), path, _owner_among(names))
    return {name: _cut_off(*of_recording) for name, of_recording in found.items()}


def _owner_among(names: Collection[str]) -> Callable[[str], str | None]:
    """What finds the recording that the nearest folder in an image's name is named after."""

    def owner(image: str) -> str | None:
        folders = unicodedata.normalize("NFC", image.replace("\\", "/")).split("/")[-2::-1]
        return next((folder for folder in folders if folder in names), None)

    return owner


def _own_or_any(path: str | Path) -> Callable[[str], str]:
    """What says whether an image is in a folder that is called like the file: its name, or ''."""
    own = _owner_among({unicodedata.normalize("NFC", Path(path).stem)})
    return lambda image: own(image) or ""


def _of_one(found: Mapping[str, _Found]) -> _Found:
    """Returns what is in a folder called like the file; all that there is if nothing is."""
    return next((found[name] for name in found if name), found.get("", ([], [])))


def read_cvat_boxes(path: str | Path) -> Boxes:
    """Reads the XML file of one recording, "CVAT for images 1.1"; its labels are not used.

    Of a copy of a file of several, the same images count as in `parse_coco`.

    Raises:
        ValueError: all mistakes, with file and line.
    """
    return _cut_off(*_of_one(_read_cvat(path, _own_or_any(path))))


def read_shared_cvat_boxes(path: str | Path, names: Collection[str]) -> dict[str, Boxes]:
    """Reads such a file with the images of several recordings; see `read_shared_coco_boxes`."""
    found = _read_cvat(path, _owner_among(names))
    return {name: _cut_off(*of_recording) for name, of_recording in found.items()}


def _read_cvat(path: str | Path, owner: Callable[[str], str | None]) -> dict[str, _Found]:
    """Returns by recording the boxes of CVAT's XML, by frame, and the frames without one.

    Images without a box whose names have no frame number, or no `owner`, are none of a recording's.
    """
    root = xml_tree.parse(files.read_text(path), path)
    if root.tag != "annotations":
        raise ValueError(f"{path}: not CVAT, which has a root <annotations>")
    if root.of("track"):
        raise ValueError(
            f"{path}: is 'CVAT for video'; export 'CVAT for images 1.1', whose images have names"
        )
    found: dict[str, _Found] = {}

    def add(image: xml_tree.Node) -> None:
        name, boxes = image.attributes.get("name", ""), image.of("box")
        place = f"{path}: {image.place}"
        recording = owner(name)
        if not boxes:
            others = [child for child in image.children if child.tag != "tag"]
            if others and recording is not None:  # the object is there, so it is no empty frame
                raise ValueError(
                    f"{path}: {others[0].place}: is no box, and its image has none; draw a box "
                    "(rectangle) around the object there, or leave the image out"
                )
            with contextlib.suppress(ValueError):
                frame = csvfile.parse_image_name(name, path, image.line)
                if recording is not None:
                    found.setdefault(recording, ([], []))[1].append(frame)
            return
        frame = csvfile.parse_image_name(name, path, image.line)
        if recording is None:
            raise ValueError(
                f"{place}: name: {files.shorten(name)} is in no folder named after a recording, "
                "such as RECORDING/000010.jpg"
            )
        width, height = (
            _cvat_number(image, side, path, 1, coco.MAX_PIXELS) for side in ("width", "height")
        )
        for box in boxes:
            x0, y0, x1, y1 = (
                _cvat_number(box, key, path, -coco.MAX_PIXELS, coco.MAX_PIXELS)
                for key in ("xtl", "ytl", "xbr", "ybr")
            )
            corner = x0, y0, x1 - x0, y1 - y0
            if "rotation" in box.attributes:
                degrees = _cvat_number(box, "rotation", path, -coco.MAX_DEGREES, coco.MAX_DEGREES)
                corner = coco.upright(corner, degrees)
            x, y, w, h = corner
            shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            check_box(shares, f"{path}: {box.place}")
            rows = found.setdefault(recording, ([], []))[0]
            rows.append(_Row(frame, shares, f"{path}: {box.place}"))

    for_each([(image,) for image in root.of("image")], add)
    for rows, _ in found.values():
        rows.sort(key=lambda row: row.frame)
    return found


def _cvat_number(node: xml_tree.Node, key: str, path: str | Path, low: float, high: float) -> float:
    text = node.attributes.get(key, "")
    value = csvfile.parse_number(text, path, node.line, f"<{node.tag}> {key}")
    return files.number(value, f"{path}: {node.place}: {key}", low, high)


def _read_coco(
    data: Any, path: str | Path, owner: Callable[[str], str | None]
) -> dict[str, _Found]:
    """Returns by recording the boxes of a COCO file, by frame, and the frames without one.

    Images without a box whose names have no frame number, or no `owner`, are none of a recording's.
    """
    images, categories = coco.images(data, path), coco.categories(data, path)
    found: dict[str, _Found] = {}
    boxed = set()

    def add(box: coco.Box) -> None:
        boxed.add(box.image)
        shares = box.shares()
        check_box(shares, box.place)
        row = _Row(box.frame(), shares, box.place, box.category)
        if (name := owner(box.image.name)) is None:
            raise ValueError(
                f"{box.place}: its image: file_name: {files.shorten(box.image.name)} is in no "
                "folder named after a recording, such as RECORDING/000010.jpg"
            )
        found.setdefault(name, ([], []))[0].append(row)

    coco.boxes(data, path, images, categories, add)
    for rows, _ in found.values():
        rows.sort(key=lambda row: row.frame)  # COCO has no order
    for image in images.values():
        if image not in boxed and (name := owner(image.name)) is not None:
            with contextlib.suppress(ValueError):
                frame = csvfile.parse_image_name(image.name, path, 1)
                found.setdefault(name, ([], []))[1].append(frame)
    return found


def read_yolo_boxes(paths: Mapping[int, Path]) -> Boxes:
    """Reads YOLO label files, one per picture.

    The class is not used: the state of a box is the one of the PSR labels at its frame.

    Args:
        paths: the files by frame number.

    Raises:
        ValueError: all mistakes, with file, line and field.
    """

    def read(frame: int, path: Path) -> list[_Row]:
        def row(found: yolo.Row) -> _Row:
            check_box(found.box, found.place)
            return _Row(frame, found.box, found.place)

        return yolo.read(files.read_text(path), path, row)

    frames = sorted(paths.items())
    found = for_each(frames, read)
    empty = [frame for (frame, _), rows in zip(frames, found, strict=True) if not rows]
    return _cut_off([row for rows in found for row in rows], empty)


def check_box(box: Sequence[float], place: str) -> None:
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


def _cut_off(rows: Sequence[_Row], empty: Sequence[int] = ()) -> Boxes:
    """Returns the boxes without what is beyond the edges of the picture.

    Args:
        rows: the boxes.
        empty: frames that were looked at and have none.
    """
    boxes = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    start, end = np.clip(boxes[:, :2] - half, 0, 1), np.clip(boxes[:, :2] + half, 0, 1)
    # More than the rounding of the files, which have six digits.
    cut = (np.abs(end - start - boxes[:, 2:]) > 1e-5).any(axis=1)
    boxes[cut] = np.concatenate([(start + end) / 2, end - start], axis=1)[cut]
    return Boxes(
        np.array([row.frame for row in rows], np.int64),
        boxes,
        tuple(row.place for row in rows),
        int(cut.sum()),
        empty=np.unique(np.array(empty, np.int64)),
    )
