"""What a user should know about labels that are right: how much of them counts in which way."""

from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.reading.labels import Labels, box_classes, category_class
from data_prep.reading.layout import RecordingFiles
from stormpsr_jax import files
from stormpsr_jax.psr import labels
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
    num_boxes = cut = repeated = other_states = 0
    without_boxes, no_states = [], []
    for recording in recordings:
        its = known[recording.name]
        states = _per_frame(recording, its)
        classes = procedure.state_classes(states)
        counts += _kinds(classes, procedure)
        if its.boxes is None:
            without_boxes.append(recording.name)
            continue
        by_frame = classes[its.boxes.frames - recording.pictures.first_frame]
        of_box = box_classes(its.boxes.states, by_frame, procedure)
        of_boxes += _kinds(of_box, procedure)
        num_boxes += len(of_box)
        cut += its.boxes.num_cut
        repeated += its.boxes.num_repeated
        other_states += int((of_box != by_frame).sum())
        no_states += [
            name for name in its.boxes.states if name and category_class(name, procedure) is None
        ]
    kinds = "{} in a catalogued state, {} in an error state, {} in an uncatalogued one"
    lines = [
        f"{len(recordings)} recordings, {counts.sum()} frames ({kinds.format(*counts)}), "
        f"{num_boxes} boxes ({kinds.format(*of_boxes)}; {cut} cut off at the picture's edge, "
        f"{repeated} left out for a larger one of the same frame)",
        *_uncatalogued(recordings, known, procedure),
        *_differing_steps(recordings, known, procedure),
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
    if without_steps := [name for name, its in known.items() if len(its.states) == 1]:
        lines.append(f"no step in the labels of recordings {_some(without_steps)}")
    if without_boxes:
        lines.append(f"no boxes (ASD labels) for recordings {', '.join(without_boxes)}")
    return lines


def _per_frame(recording: RecordingFiles, its: Labels) -> np.ndarray:
    """Returns the states (N, K) of the frames of a recording."""
    pictures = recording.pictures
    return labels.states_per_frame(
        its.frames, its.states, pictures.first_frame, pictures.num_frames
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
    shown = [f"{vector} ({frames[vector]} frames of {_some(where[vector])})" for vector in often]
    return [
        f"{sum(frames.values())} frames show states that procedure "
        f"{procedure.name!r} does not catalogue: {_some(shown)}. Neither the encoder nor the "
        'detector learns such states: add those that the assembly goes through to "states" of '
        "the procedure file, and correct the labels where a state is wrong"
    ]


def _differing_steps(
    recordings: Sequence[RecordingFiles], known: Mapping[str, Labels], procedure: Procedure
) -> list[str]:
    """Returns a line for each recording whose steps are not the changes of its states."""
    lines = []
    for recording in recordings:
        its = known[recording.name]
        steps = {step for step in its.steps if step[1] % 3 != 1}
        changes = set(labels.states_to_steps(its.frames, its.states))
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
    return _some([f"{procedure.step_name(step)} at frame {frame}" for frame, step in sorted(steps)])


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - MAX_SHOWN
    return ", ".join(texts[:MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _kinds(classes: np.ndarray, procedure: Procedure) -> np.ndarray:
    error, uncatalogued = classes == procedure.error_class, classes == 0
    return np.array([(~(error | uncatalogued)).sum(), error.sum(), uncatalogued.sum()])
