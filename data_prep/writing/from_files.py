"""Recordings as data sets ship them, pictures and label files, into a folder of clip shards.

What the data sets have in common; data_prep.meccano, data_prep.industreal and data_prep.own say
what is their own.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from absl import logging

from data_prep.notes import describe, product_size
from data_prep.writing import shards
from stormpsr_jax.base.errors import gathering, raise_all
from stormpsr_jax.data.annotation import EMPTY, NOT_ANNOTATED
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import DEFAULT_FRAMING, Framing
from stormpsr_jax.recordings.find import SPLITS
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.recording import Recording

SAME_ASPECT = 0.02  # pictures whose width : height differs by less pass for one shape


def make_recording(
    split: str,
    name: str,
    *,
    recordings: Mapping[str, Recording],
    framing: Framing,
) -> shards.RecordingData:
    """Makes one recording of its labels; its pictures are read as they are asked for."""
    del split
    recording = recordings[name]
    boxes, classes = _boxes(recording, framing)
    return shards.RecordingData(
        name=name,
        first_frame=recording.video.first_frame,
        jpegs=pictures.encode(recording.video.read(), framing),
        states=recording.states,
        boxes=boxes,
        classes=classes,
        visible=np.full(recording.video.num_frames, np.nan),
        label_files=recording.labels.files,
    )


def _boxes(recording: Recording, framing: Framing) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes (N, 4) and classes (N,) of the N frames of a recording."""
    of_states = recording.procedure.state_classes(recording.states)
    boxes = np.full((len(of_states), 4), np.nan)
    classes = np.full(len(of_states), NOT_ANNOTATED)
    if (known := recording.boxes) is None:
        return boxes, classes
    first = recording.video.first_frame
    classes[known.looked_at(first, len(of_states))] = EMPTY
    at = known.of_frames(first, len(of_states))
    there = np.flatnonzero(at >= 0)
    placement = framing.place(*pictures.picture_size(recording.video))
    boxes[there] = placement.map_boxes(known.boxes[at[there]])
    classes[there] = of_states[there] if known.classes is None else known.classes[at[there]]
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
    found: Sequence[Recording],
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

    `notes` are lines for the log, before what is said of the labels; `warnings` come when no
    mistake has been found. Returns whether the folder is complete.

    Raises:
        ValueError: all errors in the labels, and all recordings that `framing` would distort; or
            see shards.build.
    """
    errors: list[str] = []
    for recording in found:
        for read in ("states", "boxes"):
            with gathering(errors):
                getattr(recording, read)
    others = _other_shapes(found, errors) if framing.aspect == "stretch" else []
    if others and pad_if_mixed:
        framing = dataclasses.replace(framing, aspect="pad")
        logging.warning("%s: none is stretched, black is added (--aspect=pad)", others[0])
    elif others:
        how = "give --aspect=pad or --aspect=crop, or leave it out"
        errors += [f"--aspect=stretch would distort {other}; {how}" for other in others]
    raise_all(errors)
    boxed = [recording for recording in found if recording.boxes is not None]
    shapes = [pictures.picture_size(recording.video) for recording in boxed]
    size, small = product_size([r.boxes.boxes for r in boxed if r.boxes], shapes, framing)
    for line in (*notes, *describe(found, procedure), *([size] if size else ())):
        logging.info("%s", line)
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for recording in found:
        splits[recording.split].append(recording.name)
    named = {recording.name: recording for recording in found}
    return shards.build(
        out,
        procedure=procedure,
        image_size=framing.size,
        splits=splits,
        make=functools.partial(make_recording, recordings=named, framing=framing),
        settings={"source": procedure.name, **shards.described(framing)},
        sources={
            recording.name: {
                "frames": recording.video.num_frames,
                "first_frame": recording.video.first_frame,
                "pictures": recording.video.fingerprint(),
                "labels": recording.labels.digest,
                "boxes": recording.boxes.digest if recording.boxes else None,
            }
            for recording in found
        },
        num_frames={recording.name: recording.video.num_frames for recording in found},
        warnings=[*warnings, *([small] if small else ())],
        **making,
    )


def _other_shapes(recordings: Sequence[Recording], errors: list[str]) -> list[str]:
    """Says which recordings have another shape than most; `errors` gets why one cannot be read.

    Stretched all alike, pictures of the shape that most have tell the same as before.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for recording in recordings:
        with gathering(errors):
            shapes[recording.name] = pictures.picture_size(recording.video)
    most = sorted(shapes, key=lambda name: _ratio(shapes[name]))[len(shapes) // 2 :][:1]
    what = "have another shape than those of"
    return [
        f"recording {name}: its pictures, of {width}x{height}, {what} {most[0]}"
        for name, (height, width) in shapes.items()
        if abs(_ratio(shapes[name]) / _ratio(shapes[most[0]]) - 1) >= SAME_ASPECT
    ]


def _ratio(size: tuple[int, int]) -> float:
    return size[1] / size[0]
