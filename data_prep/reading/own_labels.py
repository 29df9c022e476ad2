"""Labels of a user's own recordings: PSR label files or a CSV of times; boxes in COCO or YOLO."""

import dataclasses
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.reading import asd_labels
from data_prep.reading.layout import Format, Place, Recording
from data_prep.reading.trees import join
from data_prep.writing import recorded
from data_prep.writing.recorded import Labels
from stormpsr_jax.psr import labels, timed_labels
from stormpsr_jax.psr.procedure import Procedure

FORMAT = Format("own recordings", 0, asd_labels.read_coco_boxes, "--videos")

_NUMBERED = re.compile(r"(?:.*[^0-9])?([0-9]{1,9})\.txt", re.ASCII | re.IGNORECASE | re.DOTALL)


def read_labels(recording: Recording, procedure: Procedure) -> Labels:
    """Reads the labels and boxes of a recording.

    Args:
        recording: its `labels` are a folder of PSR label files or a CSV file, its `boxes` a COCO
            file or a folder of YOLO text files.
        procedure: with the frame rate of the recording.

    Raises:
        ValueError: the first mistake, with file, line and field.
    """
    _check_variant(recording.name, procedure)
    tree, name = recording.labels
    if tree.exists(name):
        known = _read_timed(recording, procedure)
    else:
        without = dataclasses.replace(recording, boxes=None)
        known = recorded.read_labels(FORMAT, without, procedure)
    if recording.boxes is None:
        return known
    boxes, digest = _read_boxes(recording.boxes)
    boxes.of_frames(recording.pictures.first_frame, recording.pictures.num_frames)
    return dataclasses.replace(known, boxes=boxes, digest=known.digest ^ digest)


def _check_variant(name: str, procedure: Procedure) -> None:
    try:
        procedure.variant_for(name)
    except ValueError as error:
        # There is no --variant here: training and scoring go by the globs too.
        raise ValueError(str(error).replace("pass --variant or ", "")) from error


def _read_timed(recording: Recording, procedure: Procedure) -> Labels:
    tree, name = recording.labels
    first = recording.pictures.first_frame
    initial = procedure.variant_for(recording.name).initial_state
    with tree.on_disk(name) as path:
        timed = timed_labels.read_times(path, procedure)
        steps = timed_labels.to_frames(
            path,
            timed,
            initial,
            procedure,
            first_frame=first,
            num_frames=recording.pictures.num_frames,
        )
    frames, states = labels.steps_to_states(steps, initial, first)
    derived = labels.states_to_steps(frames, states)
    return Labels(frames, states, derived, None, {}, zlib.crc32(tree.read(name)))


def _read_boxes(place: Place) -> tuple[asd_labels.Boxes, int]:
    """Returns the boxes of a COCO file or a folder of YOLO files, and a digest of the files."""
    tree, name = place
    if tree.exists(name):
        with tree.on_disk(name) as path:
            boxes = asd_labels.read_coco_boxes(path)
        # What a user calls the object says nothing about its state.
        boxes = dataclasses.replace(boxes, states=("",) * len(boxes.frames))
        return boxes, zlib.crc32(tree.read(name))
    paths: dict[int, Path] = {}
    digest = 0
    for file in tree.entries(name)[1]:
        if not (match := _NUMBERED.fullmatch(file)):  # such as classes.txt
            continue
        path = Path(tree.path, name, file)
        other = paths.setdefault(int(match[1]), path)
        if other != path:
            raise ValueError(f"{tree.show(name)}: {other.name} and {file} are the same frame")
        digest = zlib.crc32(tree.read(join(name, file)), zlib.crc32(file.encode(), digest))
    return asd_labels.read_yolo_boxes(paths), digest


def find_boxes(folder: str | Path, tree: Any) -> Mapping[str, Place]:
    """Finds <recording>.json (COCO) and folders <recording>/ of .txt files (YOLO).

    Raises:
        ValueError: there are none, or a recording has both.
    """
    found: dict[str, Place] = {}
    for place, _, files in tree.walk():
        entries = {file[: -len(".json")]: file for file in files if file.endswith(".json")}
        if place and any(map(_NUMBERED.fullmatch, files)):
            entries[place.split("/")[-1]] = ""
        for name, file in entries.items():
            where = join(place, file) if file else place
            if name in found:
                raise ValueError(
                    f"--boxes: {tree.show(found[name][1])} and {tree.show(where)} are of the same "
                    "recording"
                )
            found[name] = (tree, where)
    if not found:
        raise ValueError(
            f"--boxes={folder}: has neither <recording>.json (COCO) nor <recording>/*.txt (YOLO)"
        )
    return found
