"""What a user should know about labels that are right: how much of them counts in which way."""

from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.reading.data_sets import RecordingFiles
from data_prep.reading.recording_labels import Labels, agree
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.procedure import Procedure

MAX_SHOWN = 5  # of states, steps or recordings in one line


def describe(
    recordings: Sequence[RecordingFiles], known: Mapping[str, Labels], procedure: Procedure
) -> list[str]:
    """Returns lines about the labels of all recordings, for the log.

    Args:
        recordings: all of them.
        known: their labels, by name.
        procedure: of them.
    """
    counts = np.zeros(3, int)  # frames that are catalogued, in an error state, uncatalogued
    of_boxes = np.zeros(3, int)
    num_boxes = cut = repeated = 0
    without_boxes, sparse = [], []
    looked_at = 0
    for recording in recordings:
        own = known[recording.name]
        classes = _class_per_frame(recording, own, procedure)
        counts += _kinds(classes, procedure)
        if own.boxes is None:
            without_boxes.append(recording.name)
            continue
        pictures = recording.pictures
        looked_at += int(own.boxes.looked_at(pictures.first_frame, pictures.num_frames).sum())
        if own.boxes.every_frame and own.boxes.sparse:
            sparse.append(recording.name)
        of_box = own.boxes.classes
        if of_box is None:
            of_box = classes[own.boxes.frames - pictures.first_frame]
        of_boxes += _kinds(of_box, procedure)
        num_boxes += len(of_box)
        cut += own.boxes.num_cut
        repeated += own.boxes.num_repeated
    kinds = "{} in a catalogued state, {} in an error state, {} in an uncatalogued one"
    lines = [
        f"{len(recordings)} recordings, {counts.sum()} frames ({kinds.format(*counts)}), "
        f"{num_boxes} boxes ({kinds.format(*of_boxes)}; {cut} cut off at the picture's edge, "
        f"{repeated} left out for a larger one of the same frame)",
        *_own_classes(recordings, known, procedure),
        *_uncatalogued(recordings, known, procedure),
        *_differing_steps(recordings, known, procedure),
    ]
    if looked_at:
        lines.insert(
            1,
            f"{looked_at - num_boxes + repeated} frames are annotated as empty, "
            f"{counts.sum() - looked_at} are not annotated",
        )
    if sparse:
        lines.append(
            f"most boxes of recordings {', '.join(sparse)} have none in the frame before or after: "
            "frames without a box count as not annotated there, and not as empty"
        )
    if early := [
        f"{recording.name} (frame {own.frames[0]}, first picture {recording.pictures.first_frame})"
        for recording in recordings
        if (own := known[recording.name]).frames[0] < recording.pictures.first_frame
    ]:
        lines.append(f"the first state is labelled before the first picture: {some(early)}")
    if without_steps := [name for name, own in known.items() if len(own.states) == 1]:
        lines.append(f"no step in the labels of recordings {some(without_steps)}")
    if without_boxes:
        lines.append(f"no boxes (ASD labels) for recordings {', '.join(without_boxes)}")
    return lines


def _own_classes(
    recordings: Sequence[RecordingFiles], known: Mapping[str, Labels], procedure: Procedure
) -> list[str]:
    """Returns lines about boxes whose classes are in their files, as IndustReal's are.

    The tables of the files name classes too, maybe others: the PSR labels tell which are right.
    """
    one_off: list[str] = []
    alike: list[str] = []
    listed: list[str] = []
    num_boxes = by_number = by_name = 0
    for recording in recordings:
        boxes = known[recording.name].boxes
        if boxes is None or boxes.classes is None or boxes.named is None:
            continue
        if len(boxes.empty):
            listed.append(recording.name)
        if len(boxes.classes):
            same = (boxes.classes == boxes.named).all()
            (alike if same else one_off).append(recording.name)
        of_frames = _class_per_frame(recording, known[recording.name], procedure)
        of_states = of_frames[boxes.frames - recording.pictures.first_frame]
        num_boxes += len(boxes.classes)
        by_number += int(agree(boxes.classes, of_states, procedure).sum())
        by_name += int(agree(boxes.named, of_states, procedure).sum())
    if not num_boxes:
        return []
    line = (
        f"{by_number:,} of {num_boxes:,} boxes agree with the step labels (by the number of the "
        f"category, which counts; by its name: {by_name:,})"
    )
    if 2 * by_number < num_boxes:
        line += (
            ". These are few: classes or frames may be shifted, so look at the boxes by state on "
            "the page of data_prep.check before training"
        )
    return [
        "categories of the boxes: number and name are the same class in "
        f"{len(alike)} recordings; in {len(one_off)} the names are others, one off in the download",
        line,
        f"images without a box are listed in the files of {len(listed)} recordings, in the others "
        "none is",
    ]


def _class_per_frame(recording: RecordingFiles, own: Labels, procedure: Procedure) -> np.ndarray:
    """Returns the classes (N,) of the states of the frames of a recording."""
    return procedure.state_classes(_per_frame(recording, own))


def _per_frame(recording: RecordingFiles, own: Labels) -> np.ndarray:
    """Returns the states (N, K) of the frames of a recording."""
    pictures = recording.pictures
    return labels.states_per_frame(
        own.frames, own.states, pictures.first_frame, pictures.num_frames
    )


def _uncatalogued(
    recordings: Sequence[RecordingFiles], known: Mapping[str, Labels], procedure: Procedure
) -> list[str]:
    """Returns a line that names the states without a class, if there are some.

    Initial states are left out: nothing has been assembled there that could be recognised.
    """
    initial = {variant.initial_state for variant in procedure.variants.values()}
    frames: dict[str, int] = {}
    where: dict[str, list[str]] = {}
    for recording in recordings:
        states, counts = np.unique(
            _per_frame(recording, known[recording.name]), axis=0, return_counts=True
        )
        for i in np.flatnonzero(procedure.state_classes(states) == 0):
            if tuple(states[i]) in initial:
                continue
            vector = "".join(map(str, states[i]))
            frames[vector] = frames.get(vector, 0) + int(counts[i])
            where.setdefault(vector, []).append(recording.name)
    if not frames:
        return []
    often = sorted(frames, key=lambda vector: (-frames[vector], vector))
    shown = [f"{vector} ({frames[vector]} frames of {some(where[vector])})" for vector in often]
    return [
        f"{sum(frames.values())} frames show states that procedure "
        f"{procedure.name!r} does not catalogue: {some(shown)}. Neither the encoder nor the "
        'detector learns such states: add those that the assembly goes through to "states" of '
        "the procedure file, and correct the labels where a state is wrong"
    ]


def _differing_steps(
    recordings: Sequence[RecordingFiles], known: Mapping[str, Labels], procedure: Procedure
) -> list[str]:
    """Returns a line for each recording whose steps are not the changes of its states."""
    lines = []
    for recording in recordings:
        own = known[recording.name]
        steps = {step for step in own.steps if step[1] % 3 != 1}
        changes = set(labels.states_to_steps(own.frames, own.states))
        differing = [
            f"{what} {_steps(found, procedure)}"
            for what, found in (
                ("changes of state that are no steps:", changes - steps),
                ("steps without a change of state:", steps - changes),
            )
            if found
        ]
        if differing:
            lines.append(
                f"recording {recording.name}: PSR_labels.csv and the states differ, "
                f"{'; '.join(differing)}. Training follows the states and scores follow the steps: "
                "correct whichever is wrong"
            )
    return lines


def _steps(steps: set[labels.Step], procedure: Procedure) -> str:
    return some([f"{procedure.step_name(step)} at frame {frame}" for frame, step in sorted(steps)])


def some(texts: Sequence[str]) -> str:
    """Returns the first few of many texts, and how many more there are."""
    rest = len(texts) - MAX_SHOWN
    return ", ".join(texts[:MAX_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _kinds(classes: np.ndarray, procedure: Procedure) -> np.ndarray:
    error, uncatalogued = classes == procedure.error_class, classes == 0
    return np.array([(~(error | uncatalogued)).sum(), error.sum(), uncatalogued.sum()])
