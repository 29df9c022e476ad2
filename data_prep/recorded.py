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

from data_prep import pictures, shards
from data_prep.asd_labels import Boxes
from data_prep.layout import Format, Recording, raise_problems
from data_prep.pictures import Framing
from data_prep.records import LABEL_FILES
from data_prep.trees import join
from stormpsr_jax.psr import csvfile, labels
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

    Without PSR_labels_raw.csv, the states follow from the steps (with errors, if those are there)
    and the initial state of the procedure's variant.

    Raises:
        ValueError: the first mistake, with file, line and field; also frames outside the recording
            and rows out of order.
    """
    tree, folder = recording.labels
    first = recording.pictures.first_frame
    last = first + recording.pictures.num_frames - 1
    digest, files, steps = 0, {}, {}
    for file in LABEL_FILES:
        name = join(folder, file)
        if not tree.exists(name):
            continue
        files[file] = tree.read(name)
        digest = zlib.crc32(files[file], digest)
        with tree.on_disk(name) as path:
            if file == "PSR_labels_raw.csv":
                frames, states = labels.read_states(path, procedure)
                _check_frames(path, frames, first, last)
            else:
                steps[file] = labels.read_steps(path, procedure)
                _check_frames(path, [frame for frame, _ in steps[file]], first, last)
    if "PSR_labels_raw.csv" not in files:
        known = steps.get("PSR_labels_with_errors.csv", steps.get("PSR_labels.csv", []))
        initial = procedure.variant_for(recording.name).initial_state
        try:
            frames, states = labels.steps_to_states(known, initial, first)
        except ValueError as error:
            raise ValueError(f"{tree.show(folder)}: {error}") from error
    boxes = None
    if recording.boxes is not None:
        tree, name = recording.boxes
        digest = zlib.crc32(tree.read(name), digest)
        with tree.on_disk(name) as path:
            boxes = form.read_boxes(path)
            boxes.per_frame(first, last - first + 1)
    shipped = steps.get("PSR_labels.csv")
    derived = labels.states_to_steps(frames, states) if shipped is None else shipped
    return Labels(frames, states, derived, boxes, files, digest)


def _check_frames(path: Path, frames: Sequence[int], first: int, last: int) -> None:
    """Raises ValueError if a row's frame is outside the recording or before the row above."""
    for i, frame in enumerate(frames):
        if first <= frame <= last and (not i or frame >= frames[i - 1]):
            continue
        line = csvfile.read_rows(path)[i][0]
        what = f"frame {frame} is not among the recording's frames {first}…{last}"
        if first <= frame <= last:
            what = f"frame {frame} comes after frame {frames[i - 1]}"
        raise csvfile.field_error(path, line, "image", what)


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
    boxes = np.full((frames.num_frames, 4), np.nan)
    if known.boxes is not None:
        placement = framing.place(*pictures.picture_size(frames))
        boxes = placement.map_boxes(known.boxes.per_frame(frames.first_frame, frames.num_frames))
    classes = np.where(np.isnan(boxes[:, 0]), -1, procedure.state_classes(states))
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
    more_changes, without_boxes, other_states = [], [], 0
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
        of_box = classes[its.boxes.frames - first]
        of_boxes += _kinds(of_box, procedure)
        num_boxes += len(of_box)
        cut += its.boxes.num_cut
        repeated += its.boxes.num_repeated
        other_states += sum(
            state not in ("", _state_name(c, procedure))
            for state, c in zip(its.boxes.states, of_box, strict=True)
        )
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
            f"{other_states} boxes whose category is another state than that of the PSR labels, "
            "which counts"
        )
    if without_boxes:
        lines.append(f"no boxes (ASD labels) for recordings {', '.join(without_boxes)}")
    return lines


def _kinds(classes: np.ndarray, procedure: Procedure) -> np.ndarray:
    error, uncatalogued = classes == procedure.error_class, classes == 0
    return np.array([(~(error | uncatalogued)).sum(), error.sum(), uncatalogued.sum()])


def _state_name(state_class: int, procedure: Procedure) -> str:
    """Returns the name that IndustReal's categories have for a state."""
    if state_class == procedure.error_class:
        return "error_state"
    if state_class == 0:
        return "background"
    return "".join(map(str, procedure.states[state_class - 1]))
