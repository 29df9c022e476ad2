"""Makes clip shards of IndustReal.

    python -m data_prep.industreal --data=DIR --out=DIR

--data is the folder `recordings`, one above it, or a folder in which each download has been
unpacked into a folder of its name (train_p1 …, which says the split). A recording is a folder
<split>/<recording> with rgb/000000.jpg … (or rgb.mp4, or <recording>.mp4 anywhere, 10 frames per
second), PSR_labels*.csv and OD_labels.json; its other camera streams are not used. Image files go
before videos, and what has no labels is left out. --psr_labels takes the PSR labels from a folder
of their own, <split>/<recording>/PSR_labels*.csv; those in --data are then not read.

Frames have the numbers of the image files, which are those of the labels, and which begin at 30 in
recording 11_assy_0_1. The first frame of its video is number 29, of every other video 0.

The number of a box's category is its class: 0 background (ignored), 1…22 the states in the order of
the procedure, 23 an error state. The names that OD_labels.json gives the categories may be one off
(1 background … 24 error_state). The log says how many boxes agree with the PSR labels at their
frame.

A frame without a box is empty, as in IndustReal's own training, where the recording has an
OD_labels.json whose boxes stand frame by frame. Where most boxes have none beside them, only the
images that it lists have been looked at; without the file, no frame has.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import command, matching
from data_prep.writing import from_files
from stormpsr_jax.base import files, folders
from stormpsr_jax.media import sources
from stormpsr_jax.recordings import box_files
from stormpsr_jax.recordings.boxes import Boxes, Id, of_one
from stormpsr_jax.recordings.procedure import load_procedure

PROCEDURE = load_procedure("industreal")
_VIDEO_STARTS = {"11_assy_0_1": 29}  # the first frame of its video; of every other one 0
_BOXES = "OD_labels.json"
# Other camera streams of a recording, of as many files again.
_OTHER_STREAMS = ("depth", "stereo_left", "stereo_right", "ambient_light")


def read_boxes(path: Path) -> Boxes:
    """Reads the boxes of a recording with their classes; ValueError has all errors.

    One is that numbers and names in the table neither agree nor are one off as in the download.
    """
    data = files.read_json(path)
    table, number = box_files.coco_categories(data, path), box_files.class_names(PROCEDURE)
    by_name = {key: number.get(name, -1) for key, name in table.items()}
    last = PROCEDURE.error_class
    one_off = by_name.get(1) == 0 and by_name.get(last + 1) == last
    for key, name in table.items():
        if not one_off and key != by_name[key]:
            raise ValueError(
                f"{path}: categories: id {files.shorten(key)} has the name {files.shorten(name)}, "
                "which is not that of the class of this number; number the categories as classes "
                "(0 background, 1… the states of the procedure, then error_state), or as the "
                f"download (1 background … {last + 1} error_state, where the number is the class)"
            )

    def check(category: Id, where: str) -> Id:
        if category not in range(last + 1):
            what = f"is no class of procedure {PROCEDURE.name!r} (0…{last})"
            raise ValueError(f"{where}: {files.shorten(category)} {what}")
        return category

    found = of_one(box_files.coco(data, path, check), path.stem)
    classes = np.array(found.categories, np.int64)
    return dataclasses.replace(found, classes=classes, every_frame=True)


def make_dataset(
    out: str | Path,
    *,
    data: str | Path,
    psr_labels: str | Path | None = None,
    **options: Any,
) -> None:
    """Makes the clip shards; see the module and from_files.build. ValueError has all errors."""
    top = of_labels = folders.require(data, "--data")
    flag = f"--data={data}"
    if psr_labels is not None:
        of_labels, flag = folders.require(psr_labels, "--psr_labels"), f"--psr_labels={psr_labels}"
    labelled = matching.find_labels(of_labels, flag, _OTHER_STREAMS)
    boxed = matching.find_box_files(
        top,
        "--data",
        lambda file: file.parent.name if file.name == _BOXES else None,
        _OTHER_STREAMS,
    )
    pictured = matching.images_first(sources.find_pictures(top, "rgb", _OTHER_STREAMS))
    matched = matching.match(
        labelled,
        pictured,
        {n: functools.partial(read_boxes, path) for n, path in boxed.items() if n in labelled},
        lambda path, name: matching.open_pictures(path, PROCEDURE.fps, _VIDEO_STARTS.get(name, 0)),
        "--data",
        PROCEDURE,
        (of_labels, top),
        early_start=True,
    )
    from_files.build(matched, out, procedure=PROCEDURE, **options)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="PATH", help="folder of recordings")
    what = "folder of PSR labels that count instead of those in --data"
    parser.add_argument("--psr_labels", metavar="PATH", help=what)
    command.add_recording_flags(parser)


main = command.command("industreal", __doc__, _add_flags, make_dataset)

if __name__ == "__main__":
    sys.exit(main())
