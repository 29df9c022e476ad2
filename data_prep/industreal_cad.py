"""Makes clip shards of IndustReal's synthetic pictures, for pre-training.

    python -m data_prep.industreal_cad --data=DIR --out=DIR

--data is the unpacked download: a folder with labels_coco.json and images/…png, or the folder that
this one is in. The classes of labels_coco.json have the order of the Unity scene that rendered the
pictures; a picture without a box shows none of them.

Writes split "cad" of a folder of its own, which a run takes with --config.data.cad_dir: a recording
a catalogued state (`cad_01` is state 1), whose pictures have nothing to do with each other.
Pictures without a box or with several, error states and states that are not in the catalogue are
left out.
"""

import argparse
import dataclasses
import functools
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from data_prep import command
from data_prep.writing import shards
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.data.folder import NOT_ANNOTATED
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import DEFAULT_FRAMING, Framing
from stormpsr_jax.recordings import box_files
from stormpsr_jax.recordings.boxes import Picture, inside
from stormpsr_jax.recordings.procedure import Procedure, load_procedure

COCO = "labels_coco.json"
IMAGES = "images"
# IndustReal's class of each class of the Unity scene.
CLASSES = dict(enumerate((
    0, 15, 12, 2, 19, 22, 14, 20, 3, 11, 8, 4,
    10, 18, 1, 7, 9, 21, 13, 5, 6, 17, 16, 23,
)))  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Render:
    """A picture: its class, its box (cx, cy, w, h in 0…1), the size (H, W) that labels say."""

    path: Path
    label: int
    box: tuple[float, ...]
    size: tuple[float, float]


def read_renders(data: Path) -> tuple[Path, list[Render]]:
    """The folder of the pictures, and those with one box, by name; ValueError has all errors."""
    if not data.is_dir():
        raise ValueError(f"--data={data}: no such folder; unpack the download and give its folder")
    folders_of = [p.parent for p in sorted((*data.glob(COCO), *data.glob(f"*/{COCO}")))]
    folders_of = [folder for folder in folders_of if (folder / IMAGES).is_dir()]
    if not folders_of:
        raise ValueError(
            f"--data={data}: has no {COCO} beside a folder {IMAGES}; give IndustReal's synthetic "
            "pictures, unpacked (zip and tar files and labels.json are not read)"
        )
    if len(folders_of) > 1:
        raise ValueError(
            f"--data: renders in {' and '.join(map(str, folders_of))}; give one of them"
        )
    (folder,) = folders_of
    place = str(folder / COCO)
    content = files.read_json(folder / COCO)
    _check_categories(content, place)
    pictures = box_files.coco(content, place)
    there = {path.name for path in (folder / IMAGES).iterdir()}
    if unknown := sorted({picture.name for picture in pictures} - there):
        raise ValueError(
            f"{place}: {files.shorten(unknown[0])} is no picture in {folder / IMAGES}, nor are "
            f"{len(unknown) - 1} more that it lists"
        )
    if more := len(there) - len(pictures):
        logging.warning("%s: pictures that are left out: %d of %d", place, more, len(there))
    several = sum(len(picture.boxes) > 1 for picture in pictures)
    if several:  # which of several objects is meant?
        logging.warning("%s: pictures with more than one box are left out: %d", place, several)
    boxed = [picture for picture in pictures if len(picture.boxes) == 1]
    read = functools.partial(_render, folder / IMAGES)
    return folder, sorted(for_each(((p,) for p in boxed), read), key=lambda r: r.path.name)


def _render(folder: Path, picture: Picture) -> Render:
    if picture.size is None:
        raise ValueError(f"{picture.place}: has no width and height")
    (box,) = picture.boxes
    if box.category not in CLASSES:
        what = f"category_id: {files.shorten(box.category)} is no class in 0…{len(CLASSES) - 1}"
        raise ValueError(f"{box.place}: {what}")
    shares = tuple(inside(picture.shares(box)).tolist())
    return Render(folder / picture.name, CLASSES[box.category], shares, picture.size[::-1])


def _check_categories(data: Any, place: str) -> None:
    """Raises ValueError if a category's name is a state, but not that of its id's class."""
    states = load_procedure("industreal").states.tolist()
    names = ["background", *("".join(map(str, state)) for state in states), "error state"]
    categories = box_files.coco_categories(data, place) if "categories" in data else {}
    for number, category in categories.items():
        name = re.sub(r"[\s,_\[\]()]", "", category)
        expected = names[CLASSES[number]] if number in CLASSES else "nothing"
        if re.fullmatch("[01]{11}", name) and name != expected:
            raise ValueError(
                f"{place}: categories: id {files.shorten(number)} is {files.shorten(category)}, in "
                f"the Unity scene {expected}; number them as there"
            )


def fingerprint(folder: Path, renders: Sequence[Render]) -> dict[str, int]:
    """Numbers that tell other labels and other pictures, of which three are opened."""
    names = [r.path.relative_to(folder).as_posix() for r in renders]
    labels = "\n".join(f"{name} {r.label} {r.box}" for name, r in zip(names, renders, strict=True))
    return {
        "labels": zlib.crc32(labels.encode()),
        "pictures": pictures.fingerprint_all([r.path for r in renders]),
    }


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
    renders = recordings[name]
    label = renders[0].label
    boxes, classes = np.full((len(renders), 4), np.nan), np.full(len(renders), NOT_ANNOTATED)

    def jpegs() -> Iterator[bytes]:
        for i, render in enumerate(renders):
            place, picture = str(render.path), render.path.read_bytes()
            size = pictures.size_of(place, picture)
            if size != render.size:
                raise ValueError(
                    f"{place}: is {size[0]}x{size[1]} (HxW), {COCO} says "
                    f"{render.size[0]:g}x{render.size[1]:g}; unpack or download it again"
                )
            boxes[i] = framing.place(*size).map_boxes(np.array([render.box]))[0]
            classes[i] = NOT_ANNOTATED if np.isnan(boxes[i, 0]) else label
            yield from pictures.encode([(place, picture)], framing)  # each of a size of its own

    return shards.RecordingData(
        name=name,
        first_frame=0,
        jpegs=jpegs(),
        states=np.tile(procedure.states[label - 1], (len(renders), 1)),
        boxes=boxes,
        classes=classes,
        visible=np.full(len(renders), np.nan),
    )


def make_dataset(
    out: str | Path,
    *,
    data: str | Path,
    framing: Framing = DEFAULT_FRAMING,
    pad_if_mixed: bool = False,
    **making: Any,
) -> None:
    """Makes the clip shards; renders are of one shape, so `pad_if_mixed` changes nothing."""
    procedure = load_procedure("industreal")
    folder, matched = read_renders(Path(data))
    by_state = {
        f"cad_{state:02d}": [render for render in matched if render.label == state]
        for state in range(1, procedure.num_states + 1)
    }
    named = {name: renders for name, renders in by_state.items() if renders}
    if not named:
        raise ValueError(
            f"{folder}: none of its {len(matched)} pictures with a box shows a state of the "
            "catalogue"
        )
    taken = sum(map(len, named.values()))
    logging.info("%s: %d pictures of %d states are taken", folder, taken, len(named))
    if missing := by_state.keys() - named.keys():
        logging.warning("%s: has no picture for %s", folder, ", ".join(sorted(missing)))
    shards.build(
        out,
        procedure=procedure,
        image_size=framing.size,
        splits={"cad": list(named)},
        make=functools.partial(
            make_recording, recordings=named, procedure=procedure, framing=framing
        ),
        settings={"source": f"industreal_cad, {COCO}", **shards.described(framing)},
        sources={name: fingerprint(Path(data), renders) for name, renders in named.items()},
        num_frames={name: len(renders) for name, renders in named.items()},
        **making,
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the renders")
    command.add_recording_flags(parser)


main = command.command("industreal_cad", __doc__, _add_flags, make_dataset)

if __name__ == "__main__":
    sys.exit(main())
