"""COCO files: the pictures, categories and boxes of an annotation file, and of results the boxes.

Errors name file, list and entry. What a category stands for, and of which recording a picture is,
is for the caller to say.
"""

import math
import os
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files import csvfile

MAX_PIXELS = 10**6  # of a side of a picture
MAX_DEGREES = 360  # of a turned box
_FARTHEST = 1e9  # pixels from the picture that a box may reach
_T = TypeVar("_T")

Id = int | str
Corner = tuple[float, float, float, float]  # x and y of the upper left corner, width, height


class Image(NamedTuple):
    """A picture: its place in the file, its `file_name`, and (width, height) where it says them."""

    place: str
    name: str
    size: tuple[float, float] | None


class Category(NamedTuple):
    """A category: its place in the file, and its name; '' where that is no text."""

    place: str
    name: str


class Box(NamedTuple):
    """A box in pixels: its place in the file, and the ids of what it belongs to."""

    place: str
    image: Image
    category: Id
    corner: Corner

    def frame(self) -> int:
        """Returns the frame's number in the name of the picture; ValueError if it has none."""
        try:
            return csvfile.Line("", 1).image(self.image.name)
        except ValueError as error:
            raise ValueError(
                f"{self.place}: its image: file_name: {files.shorten(self.image.name)} does not "
                "end in a frame's number, such as 000010.jpg"
            ) from error

    def shares(self) -> tuple[float, float, float, float]:
        """Returns cx, cy, w, h as shares of the picture; ValueError if its size is not known."""
        if self.image.size is None:
            raise ValueError(f"{self.place}: its image: has no width and height")
        width, height = self.image.size
        x, y, w, h = self.corner
        return (x + w / 2) / width, (y + h / 2) / height, w / width, h / height


def images(data: Any, path: str | os.PathLike) -> dict[Id, Image]:
    """Returns the pictures of a file by their ids.

    Raises:
        ValueError: every error; also an id that is given twice.
    """

    def image(place: str, entry: Any) -> Image:
        name = files.field(entry, "file_name", str, place)
        size = None
        if "width" in entry and "height" in entry:
            sides = ((side, entry[side]) for side in ("width", "height"))
            width, height = (files.number(v, f"{place}: {k}", 1, MAX_PIXELS) for k, v in sides)
            size = width, height
        return Image(place, name, size)

    return _by_id(data, "images", path, image)


def categories(data: Any, path: str | os.PathLike) -> dict[Id, Category]:
    """Returns the categories of a file by their ids; arguments and errors as of `images`."""

    def category(place: str, entry: Any) -> Category:
        name = entry.get("name")
        return Category(place, name if isinstance(name, str) else "")

    return _by_id(data, "categories", path, category)


def boxes(
    data: Any,
    path: str | os.PathLike,
    pictures: Mapping[Id, Image],
    known: Container[Id] | None,
    convert: Callable[[Box], _T],
) -> list[_T]:
    """Returns what `convert` makes of each box of a file, in its order.

    `known` are ids of categories; None takes any. Raises ValueError with every error, also those by
    which `convert` refuses what the caller cannot use.
    """
    seen: set[Id] = set()

    def box(place: str, entry: Any) -> _T:
        key = files.field(entry, "image_id", (int, str), place)
        if key not in pictures:
            raise ValueError(f"{place}: image_id: {files.shorten(key)} is not in images")
        category = files.field(entry, "category_id", (int, str), place)
        if known is not None and category not in known:
            raise ValueError(
                f"{place}: category_id: {files.shorten(category)} is not in categories"
            )
        if "id" in entry:
            seen.add(_new_id(entry, place, seen))
        return convert(Box(place, pictures[key], category, _turned_corner(entry, place)))

    return for_each(_entries(data, "annotations", path), box)


def corner(entry: Any, place: str) -> Corner:
    """Returns the `bbox` of an annotation or a result; ValueError if it is none."""
    values = files.field(entry, "bbox", list, place)
    if len(values) != 4:
        raise ValueError(f"{place}: bbox: {files.shorten(values)} is not x, y, w, h")
    x, y, w, h = (files.number(v, f"{place}: bbox", -_FARTHEST, _FARTHEST) for v in values)
    return x, y, w, h


def _turned_corner(entry: Any, place: str) -> Corner:
    """Returns the upright box around an annotation's: CVAT writes a turned one before its turn."""
    attributes = entry.get("attributes")
    if not isinstance(attributes, Mapping) or "rotation" not in attributes:
        return corner(entry, place)
    degrees = files.number(
        attributes["rotation"], f"{place}: attributes: rotation", -MAX_DEGREES, MAX_DEGREES
    )
    return upright(corner(entry, place), degrees)


def upright(box: Corner, degrees: float) -> Corner:
    """Returns the smallest upright box around one in pixels that is turned about its centre."""
    x, y, w, h = box
    if not degrees % 180 or min(w, h) <= 0:  # one without a size is for the caller to refuse
        return box
    angle = math.radians(degrees)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    width, height = w * cos + h * sin, w * sin + h * cos
    return x + (w - width) / 2, y + (h - height) / 2, width, height


def _entries(data: Any, key: str, path: str | os.PathLike) -> Iterator[tuple[str, Any]]:
    if not isinstance(data, Mapping) or not isinstance(data.get(key), list):
        raise ValueError(f"{path}: not COCO, which is an object with a list {key!r}")
    return ((f"{path}: {key}[{i}]", entry) for i, entry in enumerate(data[key]))


def _by_id(
    data: Any, key: str, path: str | os.PathLike, parse: Callable[[str, Any], _T]
) -> dict[Id, _T]:
    found: dict[Id, _T] = {}

    def add(place: str, entry: Any) -> None:
        key = _new_id(entry, place, found)
        found[key] = parse(place, entry)

    for_each(_entries(data, key, path), add)
    return found


def _new_id(entry: Any, place: str, known: Container[Id]) -> Id:
    if (key := files.field(entry, "id", (int, str), place)) in known:
        raise ValueError(f"{place}: id: {files.shorten(key)} is given twice")
    return key
