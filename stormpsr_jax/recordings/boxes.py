"""Boxes of assembly state detection by picture, as a file gives them; `box_forms` reads them."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
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

    def numbered(self) -> tuple[str, int]:
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
    found: dict[tuple[str, int], Picture] = {}

    def add(picture: Picture) -> None:
        name, number = recording(picture), picture.numbered()[1]
        if number < first_frame:
            what = f"is before the first frame, --first_frame={first_frame}"
            raise ValueError(f"{picture.place}: {what}")
        if (other := found.setdefault((name, number - first_frame), picture)) is not picture:
            raise ValueError(
                f"{picture.place}: {files.shorten(picture.name)} is frame {number} of the same "
                f"recording as {other.place}: {files.shorten(other.name)}; keep one, or give each "
                "recording a folder of its own"
            )

    for_each(((picture,) for picture in pictures), add)
    return found


def framed(pictures: Iterable[Picture]) -> list[tuple[int, Picture]]:
    """Returns pictures with the numbers of their frames, of which two may be of one.

    Those without a box need no number, and are left out then. Raises ValueError for all others.
    """
    found: list[tuple[int, Picture]] = []

    def add(picture: Picture) -> None:
        try:
            found.append((picture.numbered()[1], picture))
        except ValueError:
            if picture.boxes:
                raise

    for_each(((picture,) for picture in pictures), add)
    return found
