"""Recordings as data sets ship them, pictures and label files, into a folder of clip shards.

What the data sets have in common; data_prep.meccano, data_prep.industreal and data_prep.own say
what is their own.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from data_prep.reading import pictures, psr_labels
from data_prep.reading.asd_labels import Boxes
from data_prep.reading.layout import Format, Recording, raise_problems
from data_prep.writing import shards
from stormpsr_jax import files
from stormpsr_jax.data.framing import Framing
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.procedure import Procedure

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of a recording.

    Attributes:
        frames: (M,) of PSR_labels_raw.csv.
        states: (M, K), each from its frame on.
        steps: of PSR_labels.csv, or those that lead from state to state if it is not shipped.
        boxes: of its ASD labels; None if there are none.
        files: the PSR label files that are shipped.
        digest: changes with any of the label files.
    """

    frames: np.ndarray
    states: np.ndarray
    steps: list[labels.Step]
    boxes: Boxes | None
    files: Mapping[str, bytes]
    digest: int


def read_labels(form: Format, recording: Recording, procedure: Procedure) -> Labels:
    """Reads the label files of a recording.

    Raises:
        ValueError: the first mistake, with file, line and field; see psr_labels.read.
    """
    first, num_frames = recording.pictures.first_frame, recording.pictures.num_frames
    frames = range(first, first + num_frames)
    found = psr_labels.read(*recording.labels, recording.name, procedure, frames)
    boxes, digest = None, found.digest
    if recording.boxes is not None:
        tree, name = recording.boxes
        digest = zlib.crc32(tree.read(name), digest)
        with tree.on_disk(name) as path:
            boxes = form.read_boxes(path)
            boxes.of_frames(first, num_frames)
    steps = found.steps
    if steps is None:
        steps = labels.states_to_steps(found.frames, found.states)
    return Labels(found.frames, found.states, steps, boxes, found.files, digest)


def make_recording(
    split: str,
    name: str,
    *,
    read: Callable[[Recording, Procedure], Labels],
    recordings: Mapping[str, Recording],
    procedure: Procedure,
    framing: Framing,
) -> shards.RecordingData:
    """Reads one recording; its pictures are read as they are asked for."""
    del split
    recording = recordings[name]
    known = read(recording, procedure)
    frames = recording.pictures
    states = labels.states_per_frame(
        known.frames, known.states, frames.first_frame, frames.num_frames
    )
    boxes, classes = _boxes(recording, known, procedure.state_classes(states), procedure, framing)
    return shards.RecordingData(
        name=name,
        first_frame=frames.first_frame,
        jpegs=pictures.encode(frames.read(), framing),
        states=states,
        boxes=boxes,
        classes=classes,
        visible=np.full(frames.num_frames, np.nan),
        label_files=known.files,
    )


def _boxes(
    recording: Recording,
    known: Labels,
    of_states: np.ndarray,
    procedure: Procedure,
    framing: Framing,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes (N, 4) and classes (N,) of a recording whose states are of_states (N,)."""
    boxes, classes = np.full((len(of_states), 4), np.nan), np.full(len(of_states), -1)
    if known.boxes is None:
        return boxes, classes
    at = known.boxes.of_frames(recording.pictures.first_frame, len(of_states))
    there = np.flatnonzero(at >= 0)
    placement = framing.place(*pictures.picture_size(recording.pictures))
    boxes[there] = placement.map_boxes(known.boxes.boxes[at[there]])
    names = [known.boxes.states[i] for i in at[there]]
    classes[there] = box_classes(names, of_states[there], procedure)
    lost = (at >= 0) & np.isnan(boxes[:, 0])
    classes[lost] = -1
    if lost.any():
        logging.warning(
            "recording %s: %d of its %d boxes are left out, of which the crop leaves less than "
            "half",
            recording.name,
            lost.sum(),
            len(there),
        )
    return boxes, classes


def box_classes(names: Sequence[str], of_states: np.ndarray, procedure: Procedure) -> np.ndarray:
    """Returns the class of each of M boxes: by its category, or else by the frame's state.

    A category that is named after a state, as those of IndustReal are, is what an annotator saw in
    that very picture, which is what a detector has to tell. The PSR labels say which steps have
    been completed by then; the two may differ around a completion.

    Args:
        names: M categories; '' where the format has none.
        of_states: (M,) classes of the states of the PSR labels at the boxes' frames.
        procedure: of the recording.
    """
    classes = of_states.copy()
    for i, name in enumerate(names):
        if (of_name := _category_class(name, procedure)) is not None:
            classes[i] = of_name
    return classes


def _category_class(name: str, procedure: Procedure) -> int | None:
    """Returns the class of a category such as 10010110000, background or error_state; or None."""
    if name == "error_state":
        return procedure.error_class
    if name == "background":
        return 0
    if len(name) == procedure.num_components and set(name) <= {"0", "1"}:
        return procedure.state_class(tuple(map(int, name)))
    return None


def build(
    read: Callable[[Recording, Procedure], Labels],
    recordings: Sequence[Recording],
    out: str | Path,
    *,
    procedure: Procedure,
    framing: Framing,
    workers: int,
    glob: str,
) -> bool:
    """Checks the labels of all recordings, says what is in them, and makes the clip shards.

    Args:
        read: reads the labels of a recording; picklable.
        recordings: all of them.
        out: folder for the shards.
        procedure: of all recordings; its frame rate is theirs.
        framing: what becomes of a picture.
        workers: processes.
        glob: on recording names; only these are made.

    Returns:
        Whether the folder is complete; not if `glob` left recordings out.

    Raises:
        ValueError: all mistakes in the label files; or see shards.build.
    """
    known, problems = {}, []
    for recording in recordings:
        try:
            known[recording.name] = read(recording, procedure)
        except ValueError as error:
            problems.append(str(error))
    raise_problems(problems)
    for line in describe(recordings, known, procedure):
        logging.info("%s", line)
    num_frames = {recording.name: recording.pictures.num_frames for recording in recordings}
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for recording in recordings:
        splits[recording.split].append(recording.name)
    return shards.build(
        out,
        procedure=procedure,
        fps=procedure.fps,
        image_size=framing.size,
        splits=splits,
        make=functools.partial(
            make_recording,
            read=read,
            recordings={recording.name: recording for recording in recordings},
            procedure=procedure,
            framing=framing,
        ),
        workers=workers,
        settings={
            "source": procedure.name,
            "aspect": framing.aspect,
            "crop": list(framing.region),
            "quality": framing.quality,
            "frames": num_frames,
            "labels": {name: known[name].digest for name in sorted(known)},
        },
        recordings=glob,
        num_frames=num_frames,
    )


def describe(
    recordings: Sequence[Recording], known: Mapping[str, Labels], procedure: Procedure
) -> list[str]:
    """Returns lines about what is particular in the labels: how much of it goes through how."""
    counts = np.zeros(3, int)  # frames that are catalogued, in an error state, uncatalogued
    of_boxes = np.zeros(3, int)
    num_boxes = cut = repeated = 0
    more_changes, without_boxes, other_states, no_states = [], [], 0, []
    for recording in recordings:
        its = known[recording.name]
        first, num_frames = recording.pictures.first_frame, recording.pictures.num_frames
        classes = procedure.state_classes(
            labels.states_per_frame(its.frames, its.states, first, num_frames)
        )
        counts += _kinds(classes, procedure)
        if int((its.states[1:] != its.states[:-1]).any(axis=1).sum()) > len(its.steps):
            more_changes.append(recording.name)
        if its.boxes is None:
            without_boxes.append(recording.name)
            continue
        by_frame = classes[its.boxes.frames - first]
        of_box = box_classes(its.boxes.states, by_frame, procedure)
        of_boxes += _kinds(of_box, procedure)
        num_boxes += len(of_box)
        cut += its.boxes.num_cut
        repeated += its.boxes.num_repeated
        other_states += int((of_box != by_frame).sum())
        no_states += [
            name for name in its.boxes.states if name and _category_class(name, procedure) is None
        ]
    kinds = "{} in a catalogued state, {} in an error state, {} in an uncatalogued one"
    lines = [
        f"{len(recordings)} recordings, {counts.sum()} frames ({kinds.format(*counts)}), "
        f"{num_boxes} boxes ({kinds.format(*of_boxes)}; {cut} cut off at the picture's edge, "
        f"{repeated} left out for a larger one of the same frame)",
        f"recordings with more changes of state than steps: {len(more_changes)}"
        + (f" ({', '.join(more_changes)})" if more_changes else ""),
    ]
    if other_states:
        lines.append(
            f"{other_states} boxes whose category is another state than the PSR labels give at "
            "their frame; the category counts"
        )
    if no_states:
        shown = ", ".join(sorted(map(files.shorten, set(no_states)))[:5])
        lines.append(
            f"{len(no_states)} boxes whose category is no state (such as {shown}); the state of "
            "the PSR labels at their frame counts"
        )
    if without_boxes:
        lines.append(f"no boxes (ASD labels) for recordings {', '.join(without_boxes)}")
    return lines


def _kinds(classes: np.ndarray, procedure: Procedure) -> np.ndarray:
    error, uncatalogued = classes == procedure.error_class, classes == 0
    return np.array([(~(error | uncatalogued)).sum(), error.sum(), uncatalogued.sum()])
