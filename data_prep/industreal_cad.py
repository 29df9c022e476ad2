"""Makes clip shards of IndustReal's synthetic pictures, for pre-training.

    python -m data_prep.industreal_cad --data=DIR --out=DIR

--data is a folder that has labels_coco.json and images/…png somewhere in it, as the download
unpacks. Its classes have the order of the Unity scene that rendered the pictures; a picture without
a box shows none of them.

Writes split "cad" of a folder of its own, which a run takes with --config.data.cad_dir: a recording
a catalogued state (`cad_01` is state 1), whose pictures have nothing to do with each other.
Backgrounds, error states and pictures with several boxes are left out.
"""

import argparse
import functools
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
from absl import logging

from data_prep import command
from data_prep.reading.boxes import inside
from data_prep.writing import shards
from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.base.folders import printable
from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import DEFAULT_FRAMING, Framing
from stormpsr_jax.psr.files import box_forms
from stormpsr_jax.psr.files.boxes import Id, Picture
from stormpsr_jax.psr.procedure import Procedure, load_procedure

COCO = "labels_coco.json"
IMAGES = "images"
# IndustReal's class of each class of the Unity scene.
UNITY_CLASSES = (
    0, 15, 12, 2, 19, 22, 14, 20, 3, 11, 8, 4,
    10, 18, 1, 7, 9, 21, 13, 5, 6, 17, 16, 23,
)  # fmt: skip


class Render(NamedTuple):
    """One picture, with its class, its box (cx, cy, w, h in 0…1; None without one) and (H, W)."""

    path: Path
    label: int
    box: tuple[float, ...] | None
    size: tuple[float, float]


def fingerprint(renders: Sequence[Render], top: Path) -> dict[str, int]:
    """Numbers that tell other labels and other pictures below `top`, of which not all are read."""
    labels = "\n".join(f"{r.path.relative_to(top)} {r.label} {r.box}" for r in renders)
    shown = pictures.fingerprint_all([r.path for r in renders])
    return {"labels": zlib.crc32(labels.encode()), "pictures": shown}


def read_renders(top: Path) -> list[Render]:
    """Finds the renders in a folder, by name, and reads what they show.

    Raises:
        ValueError: there are none, or several such folders; all errors in the labels.
    """
    walked = folders.walk(top)
    found = [folder for folder, inner, names in walked if IMAGES in inner and COCO in names]
    if len(found) != 1:
        there = " and ".join(map(printable, found)) or f"no folder with {COCO} and {IMAGES}/"
        advice = "give one of them" if found else "unpack the download of synthetic pictures"
        raise ValueError(f"--data={top}: has {there}; {advice}")
    (folder,) = found
    names = set(folders.entries(folder / IMAGES)[1])
    shown_in = dict(_read_coco(files.read_json(folder / COCO), folder / COCO))
    if unknown := sorted(shown_in.keys() - names):
        raise ValueError(
            f"{folder / COCO}: {files.shorten(unknown[0])} is no picture in {folder / IMAGES}, nor "
            f"are {len(unknown) - 1} more that it lists"
        )
    if more := len(names - shown_in.keys()):
        logging.warning("%s: files that are left out: %d of %d", folder, more, len(names))
    return [Render(folder / IMAGES / name, *shown_in[name]) for name in sorted(shown_in)]


def _read_coco(data: Any, path: Path) -> Iterator[tuple[str, tuple]]:
    """Yields the name of each picture, its class, its box if there is one, and its size."""
    logging.info("%s: %s", path, _check_categories(data, path))

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

    listed = box_forms.coco(data, path)
    for picture, what in zip(listed, for_each(((p,) for p in listed), shown), strict=True):
        if len(picture.boxes) < 2:  # which of several objects is meant?
            yield picture.name, what
    if several := sum(len(picture.boxes) > 1 for picture in listed):
        logging.warning("%s: pictures with more than one box are left out: %d", path, several)


def _check_categories(data: Any, path: Path) -> str:
    """Holds the names of categories against the classes of the Unity scene, by their ids.

    Returns:
        What came out, for the log. A name that tells no state says nothing.

    Raises:
        ValueError: a name tells another state; then the ids are not what they are taken for.
    """
    states = ("".join(map(str, state)) for state in load_procedure("industreal").states.tolist())
    names = ("background", *states, "errorstate")
    agree, wrong = 0, []
    categories = box_forms.coco_categories(data, path) if "categories" in data else {}
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
            f"{path}: categories: {len(wrong)} of {agree + len(wrong)} names are not those of the "
            f"Unity scene's classes, which the ids are taken for ({wrong[0]}); number them so"
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
            place, picture = printable(render.path), pictures.read_file(render.path)
            if render.box is not None:
                size = pictures.size_of(place, picture)
                if render.size != size:
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
    procedure, top = load_procedure("industreal"), folders.given(data, "--data")
    found = read_renders(top)
    states = range(1, procedure.num_states + 1)
    by_state = {state: [r for r in found if r.label == state] for state in states}
    missing = [str(state) for state, shown in by_state.items() if not shown]
    if len(missing) == len(by_state):
        raise ValueError(
            f"{top}: none of its {len(found)} pictures shows a state of the catalogue (classes "
            f"1…{procedure.num_states})"
        )
    taken = sum(map(len, by_state.values()))
    logging.info(
        "%s: %d pictures of %d states; %d of no catalogued state are left out",
        top,
        taken,
        len(by_state) - len(missing),
        len(found) - taken,
    )
    if missing:
        logging.warning("%s: has no picture of states %s", top, ", ".join(missing))
    named = {f"cad_{state:02d}": shown for state, shown in by_state.items() if shown}
    return shards.build(
        out,
        procedure=procedure,
        image_size=framing.size,
        splits={"cad": list(named)},
        make=functools.partial(
            make_recording, recordings=named, procedure=procedure, framing=framing
        ),
        settings={"source": f"industreal_cad, {COCO}", **shards.described(framing)},
        sources={name: fingerprint(shown, top) for name, shown in named.items()},
        num_frames={name: len(shown) for name, shown in named.items()},
        **making,
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="PATH", help="folder of the renders")
    command.add_recording_flags(parser)


main = command.command("industreal_cad", __doc__, _add_flags, make_dataset)

if __name__ == "__main__":
    sys.exit(main())
