"""Makes clip shards of MECCANO, with the PSR and ASD labels of STORM-PSR.

    python -m data_prep.meccano --frames=DIR --labels=DIR --asd_labels=DIR --out=DIR

--frames has a folder of image files per recording (…/0001/00001.jpg), or a video (…/0001.mp4, 12
frames per second). --labels holds <split>/<recording>/PSR_labels*.csv and decides on the splits,
--asd_labels <split>/<recording>_GT.csv.

A box is of the class of the state that the PSR labels give at its frame: error state, or "ignored"
where it is not catalogued. A frame without a box is empty where the recording has ASD labels whose
boxes stand frame by frame. Otherwise nobody has looked at it: recording 0005 has no ASD labels.
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
from stormpsr_jax.recordings.boxes import Boxes, join_pictures
from stormpsr_jax.recordings.procedure import load_procedure

_BOXES = "_GT.csv"


def read_boxes(path: Path) -> Boxes:
    """Reads `<recording>_GT.csv`; errors as of `box_files.meccano`."""
    pictures, unsure = box_files.meccano(files.read_text(path), path)
    ranges = np.array(unsure, np.int64).reshape(-1, 2)
    return dataclasses.replace(join_pictures(pictures), every_frame=True, unsure=ranges)


def find_boxes(asd_labels: str | Path) -> dict[str, Path]:
    """The files <recording>_GT.csv; ValueError: there are none, or a recording has two."""
    by_name = matching.find_box_files(
        folders.require(asd_labels, "--asd_labels"),
        "--asd_labels",
        lambda file: file.name.removesuffix(_BOXES) if file.name.endswith(_BOXES) else None,
    )
    if not by_name:
        raise ValueError(f"--asd_labels: {asd_labels}: no <recording>{_BOXES} is in it")
    return by_name


def make_dataset(
    out: str | Path,
    *,
    frames: str | Path,
    labels: str | Path,
    asd_labels: str | Path | None = None,
    **options: Any,
) -> None:
    """Makes the clip shards; see the module and from_files.build. ValueError has all errors."""
    procedure = load_procedure("meccano")
    tops = folders.require(labels, "--labels"), folders.require(frames, "--frames", "or a video")
    labelled = matching.find_labels(tops[0], f"--labels={labels}")
    pictured = matching.images_first(sources.find_pictures(tops[1]))
    boxed = find_boxes(asd_labels) if asd_labels else {}
    matched = matching.match(
        labelled,
        pictured,
        {name: functools.partial(read_boxes, path) for name, path in boxed.items()},
        lambda path, name: matching.open_pictures(path, procedure.fps, 1, "MECCANO"),
        "--frames",
        procedure,
        tops,
    )
    from_files.build(matched, out, procedure=procedure, **options)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--frames", required=True, metavar="PATH", help="folder of the frames")
    add("--labels", required=True, metavar="PATH", help="folder of the PSR labels")
    add("--asd_labels", metavar="PATH", help="folder of the boxes")
    command.add_recording_flags(parser)


main = command.command("meccano", __doc__, _add_flags, make_dataset)

if __name__ == "__main__":
    sys.exit(main())
