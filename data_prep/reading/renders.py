"""Renders of assembly states as IndustReal's authors keep them: pictures, and what each shows.

Two layouts, of which the first is looked for first:

    labels.json  images/            {"images": [name, …], "labels": [class, …]}, lists of one length
    images/  labels/ (or training/labels/)      a YOLO text file a picture: class cx cy w h in 0…1

In the first, read by the code of STORM-PSR, classes are IndustReal's: 0 background, 1…22 states,
and above those states that are not in the catalogue. It has a third list, `bbox`, which is not
read: nothing published uses it or says whether the pictures are cut to it. In the second, read by
the code of IndustReal's detector, classes have the order of the Unity scene that rendered them.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Mapping, Sequence

from data_prep.reading.trees import Tree, join
from stormpsr_jax import files
from stormpsr_jax.mistakes import raise_all

LABELS = "labels.json"
IMAGES = "images"
_YOLO_LABELS = ("labels", "training/labels")
_PICTURES = (".png", ".jpg", ".jpeg")
# IndustReal's class of each class of the Unity scene.
UNITY_CLASSES = (
    *(0, 15, 12, 2, 19, 22, 14, 20, 3, 11, 8, 4),
    *(10, 18, 1, 7, 9, 21, 13, 5, 6, 17, 16, 23),
)


@dataclasses.dataclass(frozen=True)
class Render:
    """One picture.

    Attributes:
        tree, path: where it is.
        label: its class.
        box: cx, cy, w, h in 0…1; None where it is not known.
    """

    tree: Tree
    path: str
    label: int
    box: tuple[float, float, float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Renders:
    """All pictures of a folder.

    Attributes:
        layout: "labels.json" or "yolo".
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
    json_places, yolo_places = [], []
    for tree in trees:
        for folder, folders, names in tree.walk():
            if IMAGES not in folders:
                continue
            if LABELS in names:
                json_places.append((tree, folder))
                continue
            inside = (join(folder, labels) for labels in _YOLO_LABELS)
            yolo_places += [(tree, folder, there) for there in inside if _is_folder(tree, there)]
    places = json_places or yolo_places
    if not places:
        raise ValueError(
            f"{flag}: has neither {LABELS} beside a folder {IMAGES}, nor {IMAGES} beside "
            f"{' or '.join(_YOLO_LABELS)}; give the folder of IndustReal's synthetic pictures"
        )
    if len(places) > 1:
        shown = " and ".join(tree.show(folder) for tree, folder, *_ in places)
        raise ValueError(f"{flag}: renders in {shown}; give one of them")
    read = _read_json if json_places else _read_yolo
    return read(*places[0])


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


def _read_yolo(tree: Tree, folder: str, label_folder: str) -> Renders:
    images = join(folder, IMAGES)
    texts = set(tree.entries(label_folder)[1])
    mistakes: list[str] = []
    found: dict[str, Render] = {}
    for name in _pictures(tree, images):
        text = f"{name.rpartition('.')[0]}.txt"
        path = join(label_folder, text)
        if text not in texts:
            mistakes.append(f"{tree.show(join(images, name))}: has no {tree.show(path)}")
            continue
        try:
            label, box = _read_box(tree.read(path), tree.show(path))
        except ValueError as error:
            mistakes.append(str(error))
        else:
            found[name] = Render(tree, join(images, name), label, box)
    raise_all(mistakes)
    return Renders("yolo", tree.show(folder), _in_order(found))


def _read_box(content: bytes, place: str) -> tuple[int, tuple[float, ...] | None]:
    """Returns (class, box) of a picture; (0, None) of one without the object."""
    rows = [row.split() for row in content.decode("utf-8", "replace").splitlines() if row.strip()]
    if not rows:
        return 0, None
    if len(rows) > 1:
        raise ValueError(f"{place}: has {len(rows)} boxes, a render shows one object")
    try:
        (number, *values) = rows[0]
        cx, cy, w, h = map(float, values)
        label = UNITY_CLASSES[int(number)] if number.isdecimal() else None
    except (ValueError, IndexError):
        label = None
    if label is None or not (0 <= cx <= 1 and 0 <= cy <= 1 and 0 < w <= 1 and 0 < h <= 1):
        raise ValueError(
            f"{place}: {files.shorten(' '.join(rows[0]))} is not class cx cy w h, a class in "
            f"0…{len(UNITY_CLASSES) - 1} and a box in 0…1"
        )
    return label, (cx, cy, w, h)


def _in_order(found: Mapping[str, Render]) -> list[Render]:
    return [found[name] for name in sorted(found)]
