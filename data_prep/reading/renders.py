"""Renders of assembly states as IndustReal's authors keep them: pictures, and what each shows.

Three layouts, looked for in this order:

    labels.json  images/            {"images": [name, …], "labels": [class, …]}, lists of one length
    labels_coco.json  images/       COCO: the download of IndustReal
    images/  labels/ (or training/labels/)      a YOLO text file a picture: class cx cy w h in 0…1

In the first, read by the code of STORM-PSR, classes are IndustReal's: 0 background, 1…22 states,
and above those states that are not in the catalogue. It has a third list, `bbox`, which is not
read: nothing published uses it or says whether the pictures are cut to it. The third is made of the
second, and read by the code of IndustReal's detector. In these two, classes have the order of the
Unity scene that rendered the pictures, and a picture without a box shows none of them.
"""

import collections
import dataclasses
import functools
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from data_prep.reading.asd_labels import check_box
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each, raise_all
from stormpsr_jax.media.trees import Tree, join
from stormpsr_jax.psr.files import coco, yolo
from stormpsr_jax.psr.procedure import load_procedure

LABELS = "labels.json"
COCO = "labels_coco.json"
IMAGES = "images"
_YOLO_LABELS = ("labels", "training/labels")
_PICTURES = (".png", ".jpg", ".jpeg")
# IndustReal's class of each class of the Unity scene.
UNITY_CLASSES = (
    0, 15, 12, 2, 19, 22, 14, 20, 3, 11, 8, 4,
    10, 18, 1, 7, 9, 21, 13, 5, 6, 17, 16, 23,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Render:
    """One picture.

    Attributes:
        tree, path: where it is.
        label: its class.
        box: cx, cy, w, h in 0…1; None where it is not known.
        size: (H, W) of the picture that the box was measured on; None where it is not known.
    """

    tree: Tree
    path: str
    label: int
    box: tuple[float, ...] | None = None
    size: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Renders:
    """All pictures of a folder.

    Attributes:
        layout: "labels.json", "labels_coco.json" or "yolo".
        place: of the folder, for messages.
        pictures: by name.
    """

    layout: str
    place: str
    pictures: Sequence[Render]

    def by_state(self, num_states: int) -> dict[int, list[Render]]:
        """The pictures of each of the states 1…num_states that has some."""
        found: dict[int, list[Render]] = {}
        for render in self.pictures:
            if 1 <= render.label <= num_states:
                found.setdefault(render.label, []).append(render)
        return dict(sorted(found.items()))


def fingerprint(pictures: Sequence[Render]) -> dict[str, int]:
    """Numbers that tell other labels and other pictures, of which not all are read."""
    labels = "\n".join(f"{r.path} {r.label} {r.box}" for r in pictures)
    ends = (pictures[0], pictures[len(pictures) // 2], pictures[-1])
    shown = " ".join(str(r.tree.fingerprint(r.path)) for r in ends)
    return {"labels": zlib.crc32(labels.encode()), "pictures": zlib.crc32(shown.encode())}


def read_renders(trees: Iterable[Tree], flag: str) -> Renders:
    """Finds the renders in a folder or zip file, and reads what they show.

    Args:
        trees: where to look.
        flag: that names it, for messages.

    Raises:
        ValueError: there are none, or several such folders; all mistakes in the labels.
    """
    found = [
        (tree, folder, read)
        for tree in trees
        for folder, folders, names in tree.walk()
        if IMAGES in folders
        for read in _layouts(tree, folder, names)
    ]
    if not found:
        raise ValueError(
            f"{flag}: has neither {COCO} nor {LABELS} beside a folder {IMAGES}, nor that beside "
            f"{' or '.join(_YOLO_LABELS)}; give the folder of IndustReal's synthetic pictures"
        )
    if len(found) > 1:
        shown = " and ".join(tree.show(folder) for tree, folder, _ in found)
        raise ValueError(f"{flag}: renders in {shown}; give one of them")
    ((tree, folder, read),) = found
    return read(tree, folder)


def _layouts(tree: Tree, folder: str, names: Sequence[str]) -> list[Callable[[Tree, str], Renders]]:
    """Returns what reads the renders in a folder with images, and with files of these names."""
    if LABELS in names:
        return [_read_json]
    if COCO in names:
        return [_read_coco]
    inside = (join(folder, labels) for labels in _YOLO_LABELS)
    return [
        functools.partial(_read_yolo, label_folder=there)
        for there in inside
        if _is_folder(tree, there)
    ]


def _is_folder(tree: Tree, path: str) -> bool:
    for i, name in enumerate(parts := path.split("/")):
        above = "/".join(parts[:i])
        if name not in tree.entries(above)[0]:
            return False
    return True


def _pictures(tree: Tree, folder: str) -> list[str]:
    """Names of the pictures in a folder."""
    return [name for name in tree.entries(folder)[1] if name.lower().endswith(_PICTURES)]


def _read_json(tree: Tree, folder: str) -> Renders:
    images = join(folder, IMAGES)
    there = set(_pictures(tree, images))
    place = tree.show(join(folder, LABELS))
    with tree.on_disk(join(folder, LABELS)) as path:
        data = files.read_json(path)
    names, labels = (files.field(data, key, list, place) for key in ("images", "labels"))
    if len(names) != len(labels):
        raise ValueError(
            f"{place}: images has {len(names)} entries, labels {len(labels)}; each picture needs "
            "one label"
        )
    mistakes: list[str] = []
    found: dict[str, Render] = {}
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        if not isinstance(name, str) or name not in there:
            mistakes.append(
                f"{place}: images[{i}]: {files.shorten(name)} is no picture in {tree.show(images)}"
            )
        elif type(label) is not int or label < 0:
            mistakes.append(
                f"{place}: labels[{i}]: {files.shorten(label)} is not a whole number from 0 up"
            )
        elif name in found:
            mistakes.append(f"{place}: images[{i}]: {files.shorten(name)} is there twice")
        else:
            found[name] = Render(tree, join(images, name), label)
    raise_all(mistakes)
    return Renders(LABELS, tree.show(folder), _in_order(found))


def _read_coco(tree: Tree, folder: str) -> Renders:
    images, place = join(folder, IMAGES), tree.show(join(folder, COCO))
    there = set(_pictures(tree, images))
    with tree.on_disk(join(folder, COCO)) as path:
        data = files.read_json(path)
    numbering = _check_categories(data, place)
    listed = coco.images(data, place)
    found: dict[str, Render] = {}
    sizes: dict[str, tuple[float, float]] = {}

    def picture(image: coco.Image) -> None:
        if image.name not in there:
            raise ValueError(
                f"{image.place}: {files.shorten(image.name)} is no picture in {tree.show(images)}"
            )
        if image.name in found:
            raise ValueError(f"{image.place}: {files.shorten(image.name)} is there twice")
        if image.size is None:
            raise ValueError(f"{image.place}: has no width and height")
        width, height = image.size
        sizes[image.name] = size = (height, width)
        found[image.name] = Render(tree, join(images, image.name), 0, None, size)

    for_each([(image,) for image in listed.values()], picture)
    boxes: collections.Counter[str] = collections.Counter()
    cut = 0

    def show(box: coco.Box) -> None:
        nonlocal cut
        name, label = box.image.name, _unity_class(box.category, box.place)
        shares, is_cut = _shares(box, sizes[name])
        found[name] = dataclasses.replace(found[name], label=label, box=shares)
        boxes[name] += 1
        cut += is_cut

    coco.boxes(data, place, listed, None, show)
    logging.info("%s: %d boxes; %s", place, boxes.total(), numbering)
    several = [name for name, count in boxes.items() if count > 1]
    for name in several:  # which of its objects is meant?
        del found[name]
    for count, what in (
        (cut, "boxes beyond the edge of their picture, cut off there"),
        (len(several), "pictures with more than one box, which are left out"),
        (
            len(there) - len(listed),
            f"pictures in {IMAGES} that it does not list, which are left out",
        ),
    ):
        if count:
            logging.warning("%s: %s: %d", place, what, count)
    return Renders(COCO, tree.show(folder), _in_order(found))


def _check_categories(data: Any, place: str) -> str:
    """Holds the names of categories against the classes of the Unity scene, by their ids.

    Returns:
        What came out, for the log. A name that tells no state says nothing.

    Raises:
        ValueError: a name tells another state; then the ids are not what they are taken for.
    """
    states = ("".join(map(str, state)) for state in load_procedure("industreal").states.tolist())
    names = ("background", *states, "error_state")
    agree, wrong = 0, []
    categories = coco.categories(data, place) if "categories" in data else {}
    for number, category in categories.items():
        name = re.sub(r"[\s,_\[\]()]", "", category.name)
        if name not in ("background", "errorstate") and not re.fullmatch("[01]{11}", name):
            continue
        label = _class_of(number)
        expected = "no class" if label is None else names[label]
        if name == expected.replace("_", ""):
            agree += 1
        else:
            wrong.append(
                f"id {files.shorten(number)} is {files.shorten(category.name)}, there {expected}"
            )
    if wrong:
        raise ValueError(
            f"{place}: categories: {len(wrong)} of {agree + len(wrong)} names are not those of the "
            f"Unity scene's classes, which the ids are taken for ({wrong[0]}); number them so, or "
            f"give a {LABELS} with IndustReal's classes"
        )
    if agree:
        return f"{agree} of {len(categories)} names of categories say the same state as their ids"
    return (
        "ids of categories are taken for classes of the Unity scene, as no name of theirs tells a "
        "state"
    )


def _class_of(number: coco.Id) -> int | None:
    """The class of an id of a category; None if it is no class of the Unity scene."""
    if isinstance(number, int) and 0 <= number < len(UNITY_CLASSES):
        return UNITY_CLASSES[number]
    return None


def _unity_class(number: coco.Id, place: str) -> int:
    if (label := _class_of(number)) is None:
        raise ValueError(
            f"{place}: category_id: {files.shorten(number)} is no class in "
            f"0…{len(UNITY_CLASSES) - 1}"
        )
    return label


def _shares(box: coco.Box, size: tuple[float, float]) -> tuple[tuple[float, ...], bool]:
    """Returns a box as cx, cy, w, h in 0…1, and whether it was cut off at the picture's edges."""
    (x, y, w, h), (height, width) = box.corner, size
    left, right = max(x, 0), min(x + w, width)
    top, bottom = max(y, 0), min(y + h, height)
    if not (left < right and top < bottom):
        raise ValueError(
            f"{box.place}: bbox: [{x:g}, {y:g}, {w:g}, {h:g}] has nothing of a picture of "
            f"{width:g}x{height:g}"
        )
    centre = (left + right) / 2 / width, (top + bottom) / 2 / height
    is_cut = (left, top, right, bottom) != (x, y, x + w, y + h)
    return (*centre, (right - left) / width, (bottom - top) / height), is_cut


def _read_yolo(tree: Tree, folder: str, *, label_folder: str) -> Renders:
    images = join(folder, IMAGES)
    texts = set(tree.entries(label_folder)[1])

    def read(name: str) -> tuple[str, Render]:
        text = f"{name.rpartition('.')[0]}.txt"
        path = join(label_folder, text)
        if text not in texts:
            raise ValueError(f"{tree.show(join(images, name))}: has no {tree.show(path)}")
        rows = yolo.read(tree.read(path).decode("utf-8", "replace"), tree.show(path), _labelled)
        if len(rows) > 1:
            raise ValueError(f"{tree.show(path)}: has {len(rows)} boxes, a render shows one object")
        label, box = rows[0] if rows else (0, None)
        return name, Render(tree, join(images, name), label, box)

    found = dict(for_each([(name,) for name in _pictures(tree, images)], read))
    return Renders("yolo", tree.show(folder), _in_order(found))


def _labelled(row: yolo.Row) -> tuple[int, tuple[float, ...]]:
    """Returns the class and the box of a row."""
    check_box(row.box, row.place)
    return UNITY_CLASSES[row.number(len(UNITY_CLASSES) - 1)], row.box


def _in_order(found: Mapping[str, Render]) -> list[Render]:
    return [found[name] for name in sorted(found)]
