"""Recordings as data sets ship them, pictures and label files, into a folder of clip shards.

What the data sets have in common; data_prep.meccano, data_prep.industreal and data_prep.own say
what is their own.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from absl import logging

from data_prep.reading.data_sets import RecordingFiles
from data_prep.reading.notes import describe
from data_prep.reading.recording_labels import Labels
from data_prep.writing import shards
from stormpsr_jax.base.errors import gathering, raise_all
from stormpsr_jax.data.annotation import EMPTY, NOT_ANNOTATED
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import DEFAULT_FRAMING, Framing
from stormpsr_jax.recordings.label_files import SPLITS
from stormpsr_jax.recordings.procedure import Procedure

SAME_ASPECT = 0.02  # pictures whose width : height differs by less pass for one shape


def make_recording(
    split: str,
    name: str,
    *,
    known_of: Mapping[str, tuple[RecordingFiles, Labels]],
    procedure: Procedure,
    framing: Framing,
) -> shards.RecordingData:
    """Makes one recording of its labels; its pictures are read as they are asked for."""
    del split
    recording, known = known_of[name]
    frames = recording.pictures
    states = known.per_frame(frames)
    boxes, classes = _boxes(recording, known, procedure.state_classes(states), framing)
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
    recording: RecordingFiles,
    known: Labels,
    of_states: np.ndarray,
    framing: Framing,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes (N, 4) and classes (N,) of a recording whose states are of_states (N,)."""
    boxes = np.full((len(of_states), 4), np.nan)
    classes = np.full(len(of_states), NOT_ANNOTATED)
    if known.boxes is None:
        return boxes, classes
    first = recording.pictures.first_frame
    classes[known.boxes.looked_at(first, len(of_states))] = EMPTY
    at = known.boxes.of_frames(first, len(of_states))
    there = np.flatnonzero(at >= 0)
    placement = framing.place(*pictures.picture_size(recording.pictures))
    boxes[there] = placement.map_boxes(known.boxes.boxes[at[there]])
    of_file = known.boxes.classes
    classes[there] = of_states[there] if of_file is None else of_file[at[there]]
    lost = (at >= 0) & np.isnan(boxes[:, 0])
    classes[lost] = NOT_ANNOTATED  # what is left of the object may be most of what can be seen
    if lost.any():
        logging.warning(
            "recording %s: %d of its %d boxes are left out, of which the crop leaves less than "
            "half",
            recording.name,
            lost.sum(),
            len(there),
        )
    return boxes, classes


class Options(shards.Making, total=False):
    """What becomes of recordings; `pad_if_mixed`: another framing where they differ in shape."""

    framing: Framing
    pad_if_mixed: bool


def build(
    read: Callable[[RecordingFiles, Procedure], Labels],
    found: Sequence[RecordingFiles],
    out: str | Path,
    *,
    procedure: Procedure,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    framing: Framing = DEFAULT_FRAMING,
    pad_if_mixed: bool = False,
    **making: Unpack[shards.Making],
) -> bool:
    """Checks the labels of all recordings, says what is in them, and makes the clip shards.

    `read` reads the labels of a recording, once. `notes` are lines for the log, before what is said
    of the labels; `warnings` come when no mistake has been found. Returns whether the folder is
    complete.

    Raises:
        ValueError: all errors in the labels, and all recordings that `framing` would distort; or
            see shards.build.
    """
    known: dict[str, Labels] = {}
    errors: list[str] = []
    for recording in found:
        with gathering(errors):
            known[recording.name] = read(recording, procedure)
    others = _other_shapes(found, errors) if framing.aspect == "stretch" else []
    if others and pad_if_mixed:
        framing = dataclasses.replace(framing, aspect="pad")
        logging.warning("%s: none is stretched, black is added (--aspect=pad)", others[0])
    elif others:
        how = "give --aspect=pad or --aspect=crop, or leave it out"
        errors += [f"--aspect=stretch would distort {other}; {how}" for other in others]
    raise_all(errors)
    for line in (*notes, *describe(found, known, procedure)):
        logging.info("%s", line)
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for recording in found:
        splits[recording.split].append(recording.name)
    return shards.build(
        out,
        procedure=procedure,
        image_size=framing.size,
        splits=splits,
        make=functools.partial(
            make_recording,
            known_of={recording.name: (recording, known[recording.name]) for recording in found},
            procedure=procedure,
            framing=framing,
        ),
        settings={"source": procedure.name, **shards.described(framing)},
        sources={
            recording.name: {
                "frames": recording.pictures.num_frames,
                "first_frame": recording.pictures.first_frame,
                "pictures": recording.pictures.fingerprint(),
                "labels": known[recording.name].digest,
                "boxes": boxes.digest if (boxes := known[recording.name].boxes) else None,
            }
            for recording in found
        },
        num_frames={recording.name: recording.pictures.num_frames for recording in found},
        warnings=warnings,
        **making,
    )


def _other_shapes(recordings: Sequence[RecordingFiles], errors: list[str]) -> list[str]:
    """Says which recordings have another shape than most; `errors` gets why one cannot be read.

    Stretched all alike, pictures of the shape that most have tell the same as before.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for recording in recordings:
        with gathering(errors):
            shapes[recording.name] = pictures.picture_size(recording.pictures)
    most = sorted(shapes, key=lambda name: _ratio(shapes[name]))[len(shapes) // 2 :][:1]
    what = "have another shape than those of"
    return [
        f"recording {name}: its pictures, of {width}x{height}, {what} {most[0]}"
        for name, (height, width) in shapes.items()
        if abs(_ratio(shapes[name]) / _ratio(shapes[most[0]]) - 1) >= SAME_ASPECT
    ]


def _ratio(size: tuple[int, int]) -> float:
    return size[1] / size[0]
