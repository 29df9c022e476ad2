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
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each, raise_all
from stormpsr_jax.media.trees import Tree, join
from stormpsr_jax.psr.files import coco, csvfile, yolo
from stormpsr_jax.psr.files.formats import xml_tree

_COLUMNS = ["frame", "flag", "visible interval", "x", "y", "w", "h"]


class Box(NamedTuple):
    """A box as a file gives it: cx, cy, w, h in 0…1, its place, and its category in COCO."""

    box: Sequence[float]
    place: str
    category: int | str = ""


class Image(NamedTuple):
    """A picture that a file lists: its name and place, (H, W) if it says that, and its boxes."""

    name: str
    place: str
    size: tuple[float, float] | None
    boxes: list[Box]


_Found = tuple[list[tuple[int, Box]], list[int]]  # boxes by frame; frames looked at without one


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
        categories: M ids of categories, of COCO.
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
    categories: tuple[coco.Id, ...] = ()
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
        ValueError: all errors, with file, line and field.
    """
    rows: list[tuple[int, Box]] = []
    unsure: list[tuple[int, int]] = []
    before = -1

    def add(line: csvfile.Line, row: list[str]) -> None:
        nonlocal before
        line.check_width(row, _COLUMNS)
        frame = line.integer(row[0], 0, csvfile.MAX_FRAME, "frame")
        line.integer(row[1], -1, 1, "flag")
        interval = line.integer(row[2], 0, csvfile.MAX_FRAME, "visible interval")
        last = rows[-1][0] if rows else 0
        if frame < last:
            raise line.error("frame", f"frame {frame} comes after frame {last}")
        box = [line.number(text, name) for text, name in zip(row[3:], _COLUMNS[3:], strict=True)]
        place = f"{path}: line {line}"
        check_box(box, place)
        if interval == before and last + 1 < frame:
            unsure.append((last + 1, frame))
        before = interval
        rows.append((frame, Box(box, place)))

    for_each(csvfile.read_rows(path), add)
    ranges = np.array(unsure, np.int64).reshape(-1, 2)
    return dataclasses.replace(_cut_off(rows), every_frame=True, unsure=ranges)


def read_boxes(path: str | Path) -> Boxes:
    """Reads the COCO or CVAT file of one recording; its categories are not used.

    A frame's number is the one in its image's file name. Of a copy of a file of several recordings,
    the images in a folder that is called like the copy count.

    Raises:
        ValueError: all errors, with file and entry or line.
    """
    return of_one(_images(path), path)


def read_shared_boxes(path: str | Path, names: Collection[str]) -> dict[str, Boxes]:
    """Reads a COCO or CVAT file with images of several recordings, as annotation tools export it.

    An image belongs to the recording that the nearest folder in its file name is named after, such
    as `bench_01` in `frames/bench_01/000010.jpg`.

    Args:
        names: of the recordings, as files.check_name gives them.

    Returns:
        The boxes of each recording of which there are images.

    Raises:
        ValueError: all errors, with file and entry or line.
    """
    found = _by_recording(_images(path), lambda image: _owner(image, names))
    return {name: _cut_off(*of_recording) for name, of_recording in found.items()}


def _owner(image: str, names: Collection[str]) -> str | None:
    """Returns which of the names the nearest folder in an image's name has."""
    folders = unicodedata.normalize("NFC", image.replace("\\", "/")).split("/")[-2::-1]
    return next((folder for folder in folders if folder in names), None)


def of_one(images: Iterable[Image], path: str | Path) -> Boxes:
    """Returns what is in a folder called like the file; all that there is if nothing is."""
    own = {unicodedata.normalize("NFC", Path(path).stem)}
    found = _by_recording(images, lambda image: _owner(image, own) or "")
    return _cut_off(*next((found[name] for name in found if name), found.get("", ([], []))))


def _by_recording(images: Iterable[Image], owner: Callable[[str], str | None]) -> dict[str, _Found]:
    """Returns by recording the boxes, by frame, and the frames without one.

    Images without a box whose names have no frame number, or no `owner`, are none of a recording's.
    """
    found: dict[str, _Found] = {}

    def add(image: Image) -> None:
        name, frame = owner(image.name), None
        with contextlib.suppress(ValueError):
            frame = csvfile.Line("", 1).image(image.name)
        if name is not None and frame is not None:
            rows, empty = found.setdefault(name, ([], []))
            rows.extend((frame, box) for box in image.boxes)
            empty += [frame] * (not image.boxes)
        elif image.boxes:
            what = "does not end in a frame's number, such as 000010.jpg"
            if frame is not None:
                what = "is in no folder named after a recording, such as RECORDING/000010.jpg"
            raise ValueError(f"{image.place}: {files.shorten(image.name)} {what}")

    for_each(((image,) for image in images), add)
    for rows, _ in found.values():
        rows.sort(key=lambda row: row[0])  # COCO has no order
    return found


def _images(path: str | Path) -> list[Image]:
    if Path(path).suffix.lower() == ".xml":
        return _cvat_images(path)
    return coco_images(files.read_json(path), path)


def coco_images(data: Any, path: str | Path) -> list[Image]:
    """Returns the images of a COCO file, `data` of `path`, with their boxes; see `read_boxes`."""
    listed = coco.images(data, path)
    boxes: dict[str, list[Box]] = {image.place: [] for image in listed.values()}

    def add(box: coco.Box) -> None:
        shares = box.shares()
        check_box(shares, box.place)
        boxes[box.image.place].append(Box(shares, box.place, box.category))

    coco.boxes(data, path, listed, None, add)
    return [
        Image(image.name, image.place, image.size and image.size[::-1], boxes[image.place])
        for image in listed.values()
    ]


def _cvat_images(path: str | Path) -> list[Image]:
    """Returns the images of an XML file, "CVAT for images 1.1"; its labels are not used."""
    root = xml_tree.parse(files.read_text(path), path)
    if root.tag != "annotations":
        raise ValueError(f"{path}: not CVAT, which has a root <annotations>")
    if root.of("track"):
        raise ValueError(
            f"{path}: is 'CVAT for video'; export 'CVAT for images 1.1', whose images have names"
        )

    def number(node: xml_tree.Node, key: str, low: float, high: float) -> float:
        text = node.attributes.get(key, "")
        value = csvfile.Line(path, node.line).number(text, f"<{node.tag}> {key}")
        return files.number(value, f"{path}: {node.place}: {key}", low, high)

    def box_of(node: xml_tree.Node, width: float, height: float) -> Box:
        x, y, right, bottom = (
            number(node, key, -coco.MAX_PIXELS, coco.MAX_PIXELS)
            for key in ("xtl", "ytl", "xbr", "ybr")
        )
        w, h = right - x, bottom - y
        if "rotation" in node.attributes:
            degrees = number(node, "rotation", -coco.MAX_DEGREES, coco.MAX_DEGREES)
            x, y, w, h = coco.upright((x, y, w, h), degrees)
        shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        check_box(shares, f"{path}: {node.place}")
        return Box(shares, f"{path}: {node.place}")

    def image(node: xml_tree.Node) -> Image:
        boxes, name = node.of("box"), node.attributes.get("name", "")
        others = [child for child in node.children if child.tag != "tag"]
        if others and not boxes:  # the object is there, so it is no empty frame
            raise ValueError(
                f"{path}: {others[0].place}: is no box, and its image has none; draw a box "
                "(rectangle) around the object there, or leave the image out"
            )
        width, height = (
            number(node, side, 1, coco.MAX_PIXELS) if boxes else 1 for side in ("width", "height")
        )
        found = [box_of(box, width, height) for box in boxes]
        return Image(name, f"{path}: {node.place}: name", None, found)

    return for_each([(node,) for node in root.of("image")], image)


def read_yolo_boxes(tree: Tree, folder: str) -> Boxes:
    """Reads a folder of YOLO label files, one per picture; their classes are not used.

    Raises:
        ValueError: all errors, with file, line and field; also two files of one frame.
    """
    texts: dict[int, tuple[str, str]] = {}

    def add(file: str) -> None:
        shown = tree.show(join(folder, file))
        frame = yolo.frame_of(file, shown)
        if frame in texts:
            raise ValueError(f"{shown}: and {texts[frame][1]} are the same frame")
        with tree.on_disk(join(folder, file)) as path:
            texts[frame] = files.read_text(path), shown

    def box(row: yolo.Row) -> Box:
        check_box(row.box, row.place)
        return Box(row.box, row.place)

    def image(frame: int, found: tuple[str, str]) -> Image:
        return Image(str(frame), found[1], None, yolo.read(*found, box))

    for_each([(file,) for file in tree.entries(folder)[1] if yolo.is_of_picture(file)], add)
    return of_one(for_each(texts.items(), image), "")


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


def inside(box: Sequence[float]) -> tuple[float, ...]:
    """Returns what of a box is in the picture."""
    x, y, w, h = box
    x0, x1 = max(x - w / 2, 0), min(x + w / 2, 1)
    y0, y1 = max(y - h / 2, 0), min(y + h / 2, 1)
    # Less is the rounding of the files, which have six digits.
    is_cut = max(abs(x1 - x0 - w), abs(y1 - y0 - h)) > 1e-5
    return ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0) if is_cut else (x, y, w, h)


def _cut_off(rows: Sequence[tuple[int, Box]], empty: Sequence[int] = ()) -> Boxes:
    """Returns the boxes without what is beyond the edges of the picture.

    Args:
        rows: the boxes, each with its frame.
        empty: frames that were looked at and have none.
    """
    boxes = [inside(box.box) for _, box in rows]
    return Boxes(
        np.array([frame for frame, _ in rows], np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        tuple(box.place for _, box in rows),
        sum(cut != tuple(box.box) for cut, (_, box) in zip(boxes, rows, strict=True)),
        categories=tuple(box.category for _, box in rows),
        empty=np.unique(np.array(empty, np.int64)),
    )
