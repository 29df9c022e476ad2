"""Recordings as data sets ship them, pictures and label files, into a folder of clip shards.

What the data sets have in common; data_prep.meccano, data_prep.industreal and data_prep.own say
what is their own.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from data_prep.notes import describe, product_size
from data_prep.writing import shards
from data_prep.writing.locating import CLOSE, Located, locator_of
from stormpsr_jax.base.errors import gathering, raise_all
from stormpsr_jax.data.folder import EMPTY, NOT_ANNOTATED
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import DEFAULT_FRAMING, Framing, Placement
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
    located: Located | None = None,
) -> shards.RecordingData:
    """Makes one recording of its labels; its pictures are read as they are asked for."""
    del split
    recording = recordings[name]
    boxes, classes = _boxes(recording)
    if located is None:
        placement = framing.place(*pictures.picture_size(recording.video))
        had = int(np.isfinite(boxes[:, 0]).sum())
        _warn_of_lost(name, _put(boxes, classes, placement), had)
        jpegs = pictures.encode(recording.video.read(), framing)
    else:
        jpegs = _around(recording, boxes, classes, located, framing)
    return shards.RecordingData(
        name=name,
        first_frame=recording.video.first_frame,
        jpegs=jpegs,
        states=recording.states,
        boxes=boxes,
        classes=classes,
        visible=np.full(recording.video.num_frames, np.nan),
        label_files=recording.labels.files,
    )


def _around(
    recording: Recording, boxes: np.ndarray, classes: np.ndarray, located: Located, framing: Framing
) -> Iterator[bytes]:
    had, lost = int(np.isfinite(boxes[:, 0]).sum()), 0
    locating = located.locating()
    for i, picture in enumerate(pictures.read_upright(recording.video)):
        locating.look(picture)
        box, kind = boxes[i : i + 1], classes[i : i + 1]
        if locating.there:
            lost += _put(box, kind, locating.framed(framing).place(*picture.shape[:2]))
        else:  # a black picture
            lost += int(np.isfinite(box[0, 0]))
            box[:], kind[:] = np.nan, EMPTY
        made = locating.cut(picture, framing)
        yield from pictures.encode([(recording.name, made)], Framing(framing.size))
    _warn_of_lost(recording.name, lost, had)


def _boxes(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    of_states = recording.procedure.state_classes(recording.states)
    boxes = np.full((len(of_states), 4), np.nan)
    classes = np.full(len(of_states), NOT_ANNOTATED)
    if (labelled := recording.boxes) is None:
        return boxes, classes
    first = recording.video.first_frame
    classes[labelled.looked_at(first, len(of_states))] = EMPTY
    at = labelled.of_frames(first, len(of_states))
    there = np.flatnonzero(at >= 0)
    boxes[there] = labelled.boxes[at[there]]
    classes[there] = of_states[there] if labelled.classes is None else labelled.classes[at[there]]
    return boxes, classes


def _put(boxes: np.ndarray, classes: np.ndarray, placement: Placement) -> int:
    """Moves boxes of videos to what becomes of the pictures; returns how many are cut off."""
    had = np.isfinite(boxes[:, 0])
    boxes[had] = placement.map_boxes(boxes[had])
    lost = had & np.isnan(boxes[:, 0])
    classes[lost] = NOT_ANNOTATED  # what is left of the object may be most of what can be seen
    return int(lost.sum())


def _warn_of_lost(name: str, lost: int, had: int) -> None:
    if lost:
        logging.warning(
            "recording %s: %d of its %d boxes are left out, of which less than half is in the part "
            "of the picture that is used",
            name,
            lost,
            had,
        )


def build(
    found: Sequence[Recording],
    out: str | Path,
    *,
    procedure: Procedure,
    warnings: Sequence[str] = (),
    framing: Framing = DEFAULT_FRAMING,
    pad_if_mixed: bool = False,
    locate: str = "never",
    **making: Any,
) -> bool:
    """Says what is in the labels of all recordings, and makes the clip shards.

    `warnings` are for the log, where no mistake has been found; `pad_if_mixed`: another framing
    where pictures differ in shape; `locate`: as of `locator_of`; `making`: as of `shards.build`.
    Returns whether the folder is complete.

    Raises:
        ValueError: all recordings that `framing` would distort; or see shards.build.
    """
    errors: list[str] = []
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
    for line in (*describe(found, procedure), *([size] if size else ())):
        logging.info("%s", line)
    if located := locator_of(found, Path(out), framing, locate, bool(small)):
        framing, small = dataclasses.replace(framing, aspect="pad"), ""
        logging.info("%s", CLOSE)
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for recording in found:
        splits[recording.split].append(recording.name)
    named = {recording.name: recording for recording in found}
    return shards.build(
        out,
        procedure=procedure,
        image_size=framing.size,
        splits=splits,
        make=functools.partial(make_recording, recordings=named, framing=framing, located=located),
        settings={
            "source": procedure.name,
            **shards.described(framing),
            **({"locator": {"size": located.size, "sha256": located.sha256}} if located else {}),
        },
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
