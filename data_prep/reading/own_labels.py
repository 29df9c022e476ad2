"""Labels of a user's own recordings: PSR files or a label format; boxes of COCO, CVAT or YOLO."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from data_prep.reading import asd_labels
from data_prep.reading.asd_labels import Boxes
from data_prep.reading.data_sets import Format, RecordingFiles
from data_prep.reading.recording_labels import Labels
from data_prep.reading.recording_labels import read_labels as read_psr_labels
from stormpsr_jax.base.errors import for_each, raise_all
from stormpsr_jax.media import containers, finding, video
from stormpsr_jax.media.finding import Place
from stormpsr_jax.media.pictures import Pictures
from stormpsr_jax.media.trees import Tree, join
from stormpsr_jax.psr.files import labels, timed_labels, yolo
from stormpsr_jax.psr.files.timed_labels import Shown
from stormpsr_jax.psr.files.words import Terms
from stormpsr_jax.psr.procedure import Procedure, Variant

FORMAT = Format("own recordings", 0, asd_labels.read_coco_boxes, "--videos")

_CVAT = ".xml"


def read_labels(
    recording: RecordingFiles, procedure: Procedure, terms: Terms | None = None
) -> Labels:
    """Reads the labels and boxes of a recording.

    Args:
        recording: its `labels` are a folder of PSR label files or a file of a label format, its
            `boxes` a COCO file or a folder of YOLO text files.
        procedure: with the frame rate of the recording.
        terms: what --words and --labels_fps say.

    Raises:
        ValueError: the mistakes of all files, with file, line and field.
    """
    mistakes: list[str] = []
    boxes: Boxes | None = None
    try:
        known = _read_steps(recording, procedure, terms or Terms())
    except ValueError as error:
        mistakes.append(str(error))
    place = recording.boxes
    try:
        if place is not None:
            boxes = place if isinstance(place, Boxes) else _read_boxes(place)
            boxes.of_frames(recording.pictures.first_frame, recording.pictures.num_frames)
    except ValueError as error:
        mistakes.append(str(error))
    raise_all(mistakes)
    return dataclasses.replace(known, boxes=boxes)


def _read_steps(recording: RecordingFiles, procedure: Procedure, terms: Terms) -> Labels:
    """Reads the labels of a recording without its boxes."""
    variant_of(recording.name, procedure)  # which it has to have
    tree, name = recording.labels
    if tree.exists(name):
        return _read_timed(recording, procedure, terms)
    return read_psr_labels(FORMAT, dataclasses.replace(recording, boxes=None), procedure)


def variant_of(name: str, procedure: Procedure) -> Variant:
    """Returns the variant that a recording's name asks for; ValueError if that is not one."""
    try:
        return procedure.variant_for(name)
    except ValueError as error:
        # There is no --variant here: training and scoring go by the globs too.
        raise ValueError(str(error).replace("pass --variant or ", "")) from error


def _read_timed(recording: RecordingFiles, procedure: Procedure, terms: Terms) -> Labels:
    tree, name = recording.labels
    first = recording.pictures.first_frame
    initial = procedure.variant_for(recording.name).initial_state
    with tree.on_disk(name) as path:
        timed = timed_labels.read_times(path, procedure, terms, recording.name)
        first_state, steps = timed_labels.to_frames(
            path,
            timed,
            initial,
            procedure,
            first_frame=first,
            num_frames=recording.pictures.num_frames,
            shown=functools.partial(_shown, recording.pictures, procedure.fps),
        )
    frames, states = labels.steps_to_states(steps, first_state, first)
    derived = labels.states_to_steps(frames, states)
    checksum = zlib.crc32(terms.fingerprint.encode(), zlib.crc32(tree.read(name)))
    return Labels(frames, states, derived, {}, checksum)


def _shown(pictures: Pictures, fps: float) -> Shown:
    """Returns which frames show the pictures of a recording, of a video by its timestamps."""
    if isinstance(pictures, video.Resampled):
        times = containers.read_times(pictures.tree, pictures.name)
        repeats = video.resample(times, fps)
        return Shown(times - times[0], np.cumsum(repeats) - repeats)
    numbers = np.arange(pictures.num_frames)
    return Shown(numbers / fps, numbers)


def _read_boxes(place: Place) -> Boxes:
    """Returns the boxes of a COCO or CVAT file or a folder of YOLO files of one recording."""
    tree, name = place
    if tree.exists(name):
        with tree.on_disk(name) as path:
            if name.lower().endswith(_CVAT):
                return asd_labels.read_cvat_boxes(path)
            return asd_labels.read_coco_boxes(path)
    paths: dict[int, Path] = {}

    def add(file: str) -> None:
        path = Path(tree.path, name, file)
        other = paths.setdefault(yolo.frame_of(file, str(path)), path)
        if other != path:
            raise ValueError(f"{tree.show(name)}: {other.name} and {file} are the same frame")

    for_each([(file,) for file in tree.entries(name)[1] if yolo.is_of_picture(file)], add)
    return asd_labels.read_yolo_boxes(paths)


def _read_shared_boxes(path: Path, names: Collection[str]) -> dict[str, Boxes]:
    if path.suffix.lower() == _CVAT:
        return asd_labels.read_shared_cvat_boxes(path, names)
    return asd_labels.read_shared_coco_boxes(path, names)


def find_boxes(path: str | Path, names: Collection[str]) -> Mapping[str, Place | Boxes]:
    """Finds the boxes of each recording.

    Args:
        path: a folder with <recording>.json (COCO), <recording>.xml (CVAT) and folders
            <recording>/ of .txt files (YOLO); or a COCO or CVAT file of all recordings, or a
            folder with such a file and nothing else.
        names: of the recordings that have labels.

    Raises:
        ValueError: there are none, a recording has both, or a file of all recordings has
            mistakes.
    """
    if os.path.isfile(path):
        return _read_shared_boxes(Path(path), names)
    if not os.path.isdir(path):
        raise ValueError(f"--boxes={path}: no such folder, COCO or CVAT file")
    places: list[tuple[str, Place]] = []
    tree = Tree(os.fspath(path))
    for folder, _, files in tree.walk():
        places += [
            (file.rpartition(".")[0], (tree, join(folder, file)))
            for file in files
            if file.lower().endswith((".json", _CVAT))
        ]
        if folder and any(map(yolo.is_of_picture, files)):
            places.append((folder.rpartition("/")[2], (tree, folder)))
    found = finding.by_name(places)
    if not found:
        raise ValueError(
            f"--boxes={path}: has no <recording>.json (COCO), <recording>.xml (CVAT) or "
            "<recording>/*.txt (YOLO)"
        )
    if len(places) == 1 and not found.keys() & set(names):
        ((_, file),) = (place for _, place in places)
        if tree.exists(file):
            return _read_shared_boxes(Path(path, file), names)
    raise_all(
        [
            f"--boxes: {' and '.join(map(finding.show, its))} are of the same recording, {name}; "
            "keep one of them"
            for name, its in found.items()
            if len(its) > 1
        ]
    )
    return {name: place for name, [place] in found.items()}
