"""Makes clip shards of IndustReal's synthetic pictures, for pre-training.

    python -m data_prep.industreal_cad --data=DIR --out=DIR

--data is a folder or zip file with the pictures and what they show, maybe among other downloads:

    labels_coco.json images/…png                     the download, as it is (.zip.001 and .zip.002),
                                                     joined or unpacked
    synth/labels.json synth/images/…                 as the code of STORM-PSR (its --syn_path), and
                                                     a download too, unpacked or synth.tar

labels.json goes before labels_coco.json; of several folders, as the download with synth/ has, synth
is taken. In labels.json, lists `images` and `labels` of one length, classes are IndustReal's: 0
background, 1…22 states, and above those states that are not in the catalogue. Its list `bbox` is
not read: nothing published uses it or says whether the pictures are cut to it. labels_coco.json
also has boxes, and its classes have the order of the Unity scene that rendered the pictures; a
picture without a box shows none of them.

Writes split "cad" of a folder of its own, which a run takes with --config.data.cad_dir: a recording
a catalogued state (`cad_01` is state 1), whose pictures have nothing to do with each other.
Backgrounds, error states and states that are not in the catalogue are left out.
"""

import argparse
import dataclasses
import functools
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from absl import logging

from data_prep import command
from data_prep.reading.boxes import inside
from data_prep.writing import shards
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.base.trees import Place, Tree, zip_of
from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import DEFAULT_FRAMING, Framing
from stormpsr_jax.psr.files import box_forms
from stormpsr_jax.psr.files.boxes import Id, Picture
from stormpsr_jax.psr.procedure import Procedure, load_procedure

LABELS = "labels.json"
SYNTH = "synth"  # its folder in the download that has it
COCO = "labels_coco.json"
IMAGES = "images"
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


def fingerprint(pictures: Sequence[Render]) -> dict[str, int]:
    """Numbers that tell other labels and other pictures, of which not all are read."""
    labels = "\n".join(f"{r.path} {r.label} {r.box}" for r in pictures)
    shown = pictures[0].tree.fingerprint_all([r.path for r in pictures])  # all are of one tree
    return {"labels": zlib.crc32(labels.encode()), "pictures": shown}


def read_renders(trees: Iterable[Tree], flag: str) -> tuple[str, str, list[Render]]:
    """Finds the renders in a folder or zip file, and reads what they show.

    Returns:
        The layout ("labels.json" or "labels_coco.json"), the place of the folder for messages, and
        the pictures by name.

    Raises:
        ValueError: there are none, or several such folders; all errors in the labels.
    """
    found = [
        (Place(tree, folder), layout)
        for tree in trees
        for folder, folders, names in tree.walk()
        if IMAGES in folders and (layout := LABELS if LABELS in names else COCO) in names
    ]
    if not found:
        raise ValueError(
            f"{flag}: has neither {COCO} nor {LABELS} beside a folder {IMAGES}; give the folder of "
            "IndustReal's synthetic pictures"
        )
    named = [one for one in found if one[0].last == SYNTH]
    if len(found) > 1 and len(named) == 1:  # beside the pictures of other studies
        found = named
    if len(found) > 1:
        shown = " and ".join(str(folder) for folder, _ in found)
        raise ValueError(f"{flag}: renders in {shown}; give one of them")
    ((folder, layout),) = found
    tree, images, place = folder.tree, folder / IMAGES, str(folder / layout)
    names = [name for name in tree.entries(images.name)[1] if name.lower().endswith(_PICTURES)]
    data = (folder / layout).read(files.read_json)
    labelled = dict((_read_json if layout == LABELS else _read_coco)(data, place))
    if unknown := sorted(labelled.keys() - {*names}):
        raise ValueError(
            f"{place}: {files.shorten(unknown[0])} is no picture in {images}, nor are "
            f"{len(unknown) - 1} more that it lists"
        )
    if more := len({*names} - labelled.keys()):
        logging.warning("%s: pictures that are left out: %d of %d", place, more, len(names))
    renders = [Render(tree, (images / name).name, *labelled[name]) for name in sorted(labelled)]
    return layout, str(folder), renders


def _read_json(data: Any, place: str) -> Iterator[tuple[str, tuple[int]]]:
    """Yields the name and the class of each picture."""
    names, labels = (files.field(data, key, list, place) for key in ("images", "labels"))
    different = len({*map(str, names)})
    if not len(names) == len(labels) == different:
        raise ValueError(
            f"{place}: images has {len(names)} entries, {different} of them different, labels "
            f"{len(labels)}; each picture needs one label"
        )
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        if not isinstance(name, str) or type(label) is not int or label < 0:
            raise ValueError(
                f"{place}: labels[{i}]: {files.shorten(label)} of {files.shorten(name)} is not a "
                "whole number from 0 up of a picture's name"
            )
        yield name, (label,)
    logging.info("%s: %s", place, _shown(labels))


def _shown(labels: Sequence[int]) -> str:
    """What the classes of labels.json are, for the log."""
    states = load_procedure("industreal").num_states
    kinds = [min(label, states + 1) for label in labels]
    return (
        f"{kinds.count(0)} of class 0, {kinds.count(states + 1)} above {states}. The classes are "
        "taken for IndustReal's; nothing in the file says that they are in that order: look at "
        "some pictures of each recording"
    )


def _read_coco(data: Any, place: str) -> Iterator[tuple[str, tuple]]:
    """Yields the name of each picture, its class, its box if there is one, and its size."""
    logging.info("%s: %s", place, _check_categories(data, place))

    def shown(picture: Picture) -> tuple:
        if picture.size is None:
            raise ValueError(f"{picture.place}: has no width and height")
        size = picture.size[::-1]
        if len(picture.boxes) != 1:
            return 0, None, size
        (box,) = picture.boxes
        if (label := _class_of(box.category)) is None:
            last = len(UNITY_CLASSES) - 1
            what = f"category_id: {files.shorten(box.category)} is no class in 0…{last}"
            raise ValueError(f"{box.place}: {what}")
        return label, tuple(inside(picture.shares(box)).tolist()), size

    pictures = box_forms.coco(data, place)
    for picture, what in zip(pictures, for_each(((p,) for p in pictures), shown), strict=True):
        if len(picture.boxes) < 2:  # which of several objects is meant?
            yield picture.name, what
    several = sum(len(picture.boxes) > 1 for picture in pictures)
    if several:
        logging.warning("%s: pictures with more than one box are left out: %d", place, several)


def _check_categories(data: Any, place: str) -> str:
    """Holds the names of categories against the classes of the Unity scene, by their ids.

    Returns:
        What came out, for the log. A name that tells no state says nothing.

    Raises:
        ValueError: a name tells another state; then the ids are not what they are taken for.
    """
    states = ("".join(map(str, state)) for state in load_procedure("industreal").states.tolist())
    names = ("background", *states, "errorstate")
    agree, wrong = 0, []
    categories = box_forms.coco_categories(data, place) if "categories" in data else {}
    for number, category in categories.items():
        name = re.sub(r"[\s,_\[\]()]", "", category)
        if name in ("background", "errorstate") or re.fullmatch("[01]{11}", name):
            label = _class_of(number)
            expected = "no class" if label is None else names[label]
            agree += name == expected
            if name != expected:
                what = f"id {files.shorten(number)} is {files.shorten(category)}"
                wrong.append(f"{what}, there {expected}")
    if wrong:
        raise ValueError(
            f"{place}: categories: {len(wrong)} of {agree + len(wrong)} names are not those of the "
            f"Unity scene's classes, which the ids are taken for ({wrong[0]}); number them so, or "
            f"give a {LABELS} with IndustReal's classes"
        )
    if agree:
        return f"{agree} of {len(categories)} names of categories say the same state as their ids"
    return "category ids are read as classes of the Unity scene, as none of their names is a state"


def _class_of(number: Id) -> int | None:
    """The class of an id of a category; None if it is no class of the Unity scene."""
    if isinstance(number, int) and 0 <= number < len(UNITY_CLASSES):
        return UNITY_CLASSES[number]
    return None


def make_recording(
    split: str,
    name: str,
    *,
    recordings: Mapping[str, Sequence[Render]],
    procedure: Procedure,
    framing: Framing,
) -> shards.RecordingData:
    """Reads the pictures of one state as they are asked for."""
    del split
    shown = recordings[name]
    label = shown[0].label
    boxes, classes = np.full((len(shown), 4), np.nan), np.full(len(shown), NOT_ANNOTATED)

    def jpegs() -> Iterator[bytes]:
        for i, render in enumerate(shown):
            place, picture = render.tree.show(render.path), render.tree.read(render.path)
            if render.box is not None:
                size = pictures.size_of(place, picture)
                if render.size not in (None, size):
                    raise ValueError(
                        f"{place}: is {size[0]}x{size[1]} (HxW), {COCO} says "
                        f"{render.size[0]:g}x{render.size[1]:g}; unpack or download it again"
                    )
                placement = framing.place(*size)
                boxes[i] = placement.map_boxes(np.array([render.box]))[0]
                classes[i] = NOT_ANNOTATED if np.isnan(boxes[i, 0]) else label
            yield from pictures.encode([(place, picture)], framing)  # each of a size of its own

    return shards.RecordingData(
        name=name,
        first_frame=0,
        jpegs=jpegs(),
        states=np.tile(procedure.states[label - 1], (len(shown), 1)),
        boxes=boxes,
        classes=classes,
        visible=np.full(len(shown), np.nan),
    )


def make_dataset(
    out: str | Path,
    *,
    data: str | Path,
    framing: Framing = DEFAULT_FRAMING,
    pad_if_mixed: bool = False,
    **making: Unpack[shards.Making],
) -> bool:
    """Makes the clip shards; see the module's docstring and shards.build.

    The renders are all of one shape, so that `pad_if_mixed` changes nothing.

    Raises:
        ValueError: what is wrong with the labels, all at once; a picture that cannot be read.
        OSError: `out` cannot be written.
    """
    procedure = load_procedure("industreal")
    with command.open_downloads("data", data, spare=lambda name: True) as trees:
        if Path(data).is_dir():
            trees += [zip_of(path) for path in Path(data).glob(f"{SYNTH}*.tar")]
        layout, place, found = read_renders(trees, f"--data={data}")
    states = range(1, procedure.num_states + 1)
    by_state = {state: [r for r in found if r.label == state] for state in states}
    missing = [str(state) for state, shown in by_state.items() if not shown]
    if len(missing) == len(by_state):
        raise ValueError(
            f"{place}: none of its {len(found)} pictures shows a state of the catalogue (labels "
            f"1…{procedure.num_states})"
        )
    taken = sum(map(len, by_state.values()))
    logging.info(
        "%s: %d pictures of %d states; %d of no catalogued state are left out",
        place,
        taken,
        len(by_state) - len(missing),
        len(found) - taken,
    )
    if missing:
        logging.warning("%s: has no picture of states %s", place, ", ".join(missing))
    named = {f"cad_{state:02d}": shown for state, shown in by_state.items() if shown}
    return shards.build(
        out,
        procedure=procedure,
        image_size=framing.size,
        splits={"cad": list(named)},
        make=functools.partial(
            make_recording, recordings=named, procedure=procedure, framing=framing
        ),
        settings={"source": f"industreal_cad, {layout}", **shards.described(framing)},
        sources={name: fingerprint(shown) for name, shown in named.items()},
        num_frames={name: len(shown) for name, shown in named.items()},
        **making,
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="PATH", help="folder or zip of renders")
    command.add_recording_flags(parser)


main = command.command("industreal_cad", __doc__, _add_flags, make_dataset)

if __name__ == "__main__":
    sys.exit(main())
