"""Boxes of the product in pictures, as files give them, and those of a recording.

A box that reaches beyond the picture is cut off at its edge: 7 % of MECCANO's do, by up to 0.14 of
the picture, where the object leaves it.

A frame without a box shows no whole object only if somebody looked at it. COCO files list the
images that were looked at, and each YOLO file is one. MECCANO and IndustReal have a box in every
frame in which all of the object is visible, so that the other frames are empty (IndustReal's own
training takes them so); a file of theirs with sparse boxes, though, says nothing of others.
"""

import dataclasses
import re
import unicodedata
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each, raise_all
from stormpsr_jax.recordings import csvfile

Id = int | str
# A picture's name: perhaps that of its recording and "_", the frame's number, perhaps an ending.
_NAME = re.compile(
    r"(?:(.*?)([^0-9]))?([0-9]{1,30})(?:\.[A-Za-z][A-Za-z0-9]{0,4})?", re.ASCII | re.DOTALL
)


class Box(NamedTuple):
    """A box in a file.

    Attributes:
        place: file and line or entry, as messages name it.
        at: cx, cy, w, h in the unit of its picture's `size`.
        category: its class, where that is read.
        score: its confidence, of a detection.
    """

    place: str
    at: Sequence[float]
    category: Id = ""
    score: float = 1.0


class Picture(NamedTuple):
    """A picture that a file lists.

    Attributes:
        place: file and entry or line, as messages name it.
        name: of its file, perhaps with folders.
        size: width and height in the unit of its boxes: in pixels, or 1, 1 where boxes are shares
            of the picture; None if it is not known.
        boxes: of the picture.
    """

    place: str
    name: str
    size: tuple[float, float] | None
    boxes: list[Box]

    @property
    def folders(self) -> list[str]:
        """The folders in its name, in the form of `files.check_name`."""
        return unicodedata.normalize("NFC", self.name.replace("\\", "/")).split("/")[:-1]

    def frame_number(self) -> tuple[str, int]:
        """The recording, '' if none, and the frame number in a name such as bench_01_000010.

        ValueError where it does not end in a number.
        """
        last = self.name.replace("\\", "/").rpartition("/")[2].strip()
        match = _NAME.fullmatch(csvfile.named_before(last))
        if not match or int(match[3]) > csvfile.MAX_FRAME:
            raise ValueError(
                f"{self.place}: the name {files.shorten(self.name)} does not end in a frame's "
                "number, such as 000010.jpg"
            )
        return match[1] if match[2] == "_" else "", int(match[3])

    def shares(self, box: Box) -> np.ndarray:
        """Returns one of its boxes, in shares of the picture.

        Raises:
            ValueError: its size is not known; the box's centre is outside, or its size not in 0…2.
        """
        if self.size is None:
            raise ValueError(f"{box.place}: its picture has no width and height")
        shares = np.array(box.at) / (self.size * 2)
        for name, value in zip("xy", shares[:2], strict=True):
            if not 0 <= value <= 1:
                raise ValueError(
                    f"{box.place}: {name}: the box is outside the picture (its centre is at "
                    f"{value:.6g}, not in 0…1)"
                )
        for name, value in zip("wh", shares[2:], strict=True):
            if not 0 < value <= 2:
                raise ValueError(
                    f"{box.place}: {name}: a box of size {value:.6g} (should be in 0…1)"
                )
        return shares


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The M boxes of a recording, and which frames were looked at.

    Attributes:
        frames: (M,) int64, ascending.
        boxes: (M, 4) cx, cy, w, h in 0…1, cut off at the edges of the picture.
        places: M places in the file, as messages name them.
        num_cut: how many were cut off.
        categories: M classes as in the file, which need not count.
        empty: (E,) int64, frames that the file says were looked at, and without a box.
        classes: (M,) int64, the class that the file gives each box; None where it gives none, and
            the state of the PSR labels counts.
        every_frame: whether the other frames have been looked at too, if boxes are not sparse.
        unsure: (U, 2) int64, ranges (first frame, one after the last) where that is in doubt.
    """

    frames: np.ndarray
    boxes: np.ndarray
    places: tuple[str, ...]
    num_cut: int
    categories: tuple[Id, ...]
    empty: np.ndarray
    classes: np.ndarray | None = None
    every_frame: bool = False
    unsure: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.int64))

    @property
    def digest(self) -> int:
        """A number that changes with any box, frame number or class."""
        digest = 0
        for array in (self.boxes, self.frames, self.empty, self.unsure, self.classes):
            digest = digest if array is None else zlib.crc32(array.tobytes(), digest)
        return digest

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
        seen = np.zeros(num_frames, bool)
        if self.every_frame and not self.sparse:
            seen[:] = True
            for start, end in np.clip(self.unsure - first_frame, 0, num_frames):
                seen[start:end] = False
        rows = np.concatenate([self.frames, self.empty]) - first_frame
        seen[rows[(rows >= 0) & (rows < num_frames)]] = True
        return seen

    def of_frames(self, first_frame: int, num_frames: int) -> np.ndarray:
        """Which box each frame has, (N,) places in `boxes`, -1: none; the first of the largest.

        In MECCANO, 22 frames have two: the object's, and a speck (or the object's again).

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


def by_frame(
    pictures: Iterable[Picture],
    recording: Callable[[Picture], str] = lambda _: "",
    first_frame: int = 0,
) -> dict[tuple[str, int], Picture]:
    """Returns pictures by their recordings and the numbers of their frames, from `first_frame` on.

    Raises:
        ValueError: all names without a number, or with one before the first; two of one frame; what
            `recording` raises, which says of which one a picture is.
    """
    by_place: dict[tuple[str, int], Picture] = {}

    def add(picture: Picture) -> None:
        name, number = recording(picture), picture.frame_number()[1]
        if number < first_frame:
            what = f"is before the first frame, --first_frame={first_frame}"
            raise ValueError(f"{picture.place}: {what}")
        if (other := by_place.setdefault((name, number - first_frame), picture)) is not picture:
            raise ValueError(
                f"{picture.place}: {files.shorten(picture.name)} is frame {number} of the same "
                f"recording as {other.place}: {files.shorten(other.name)}; keep one, or give each "
                "recording a folder of its own"
            )

    for_each(((picture,) for picture in pictures), add)
    return by_place


def with_frame_numbers(pictures: Iterable[Picture]) -> list[tuple[int, Picture]]:
    """Returns pictures with the numbers of their frames, of which two may be of one.

    Those without a box need no number, and are left out then. Raises ValueError for all others.
    """
    numbered: list[tuple[int, Picture]] = []

    def add(picture: Picture) -> None:
        try:
            numbered.append((picture.frame_number()[1], picture))
        except ValueError:
            if picture.boxes:
                raise

    for_each(((picture,) for picture in pictures), add)
    return numbered


def by_recording(pictures: Iterable[Picture], names: Collection[str]) -> dict[str, Boxes]:
    """Boxes by the recordings that the nearest folders of pictures are named after.

    `names` are those of the recordings, such as `bench_01` of `frames/bench_01/000010.jpg`.
    ValueError names all pictures with boxes that are in no such folder; see `join_pictures` too.
    """
    by_name: dict[str, list[Picture]] = {}

    def add(picture: Picture) -> None:
        name = next((folder for folder in reversed(picture.folders) if folder in names), None)
        if name is not None:
            by_name.setdefault(name, []).append(picture)
        elif picture.boxes:
            raise ValueError(
                f"{picture.place}: {files.shorten(picture.name)} is in no folder named after a "
                "recording, such as RECORDING/000010.jpg"
            )

    for_each(((picture,) for picture in pictures), add)
    of_each = for_each([(its,) for its in by_name.values()], join_pictures)
    return dict(zip(by_name, of_each, strict=True))


def of_one(pictures: Sequence[Picture], name: str) -> Boxes:
    """The boxes of the recording of that name.

    Of a copy of a file of several recordings, those in a folder of the name; else all that there
    are.
    """
    name = unicodedata.normalize("NFC", name)
    return join_pictures([picture for picture in pictures if name in picture.folders] or pictures)


def join_pictures(pictures: Iterable[Picture]) -> Boxes:
    """The boxes of the pictures of one recording.

    Raises:
        ValueError: all pictures with boxes whose names have no frame number, or all boxes that are
            not in the picture.
    """
    numbered = with_frame_numbers(pictures)
    rows = [(frame, picture, box) for frame, picture in numbered for box in picture.boxes]
    rows.sort(key=lambda row: row[0])  # COCO has no order
    shares = for_each(rows, lambda _, picture, box: picture.shares(box))
    boxes = np.array(shares, np.float64).reshape(-1, 4)
    cut = inside(boxes)
    return Boxes(
        np.array([frame for frame, _, _ in rows], np.int64),
        cut,
        tuple(box.place for _, _, box in rows),
        int((cut != boxes).any(axis=1).sum()),
        tuple(box.category for _, _, box in rows),
        np.unique(np.array([frame for frame, its in numbered if not its.boxes], np.int64)),
    )


def inside(boxes: np.ndarray) -> np.ndarray:
    """Returns what of boxes (…, 4) in 0…1 is in the picture."""
    half = boxes[..., 2:] / 2
    low, high = np.maximum(boxes[..., :2] - half, 0), np.minimum(boxes[..., :2] + half, 1)
    cut = np.concatenate([(low + high) / 2, high - low], axis=-1)
    # Less is the rounding of the files, which have six digits.
    is_cut = (abs(cut - boxes)[..., 2:] > 1e-5).any(axis=-1, keepdims=True)
    return np.where(is_cut, cut, boxes)
