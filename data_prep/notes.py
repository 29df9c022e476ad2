"""What a user should know about labels that are right: how much of them counts in which way."""

import math
from collections.abc import Sequence

import numpy as np

from stormpsr_jax.data.folder import ENOUGH, pixels_across
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.recordings.labels import Labels, states_to_steps
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.recording import Recording

# With so many videos, in which each part is put on wrong so often, F1 is near the best that was
# measured (benchmarks/results/own-product-videos.md).
ENOUGH_VIDEOS, ENOUGH_WRONG = 6, 2
MAX_SHOWN = 5  # of states, steps or recordings in one line


def describe(recordings: Sequence[Recording], procedure: Procedure) -> list[str]:
    """Returns lines about the labels of all recordings, for the log."""
    classes = {r.name: procedure.state_classes(r.states) for r in recordings}
    num_frames = sum(map(len, classes.values()))
    num_boxes = looked_at = cut = repeated = fitting = of_file = 0
    without_boxes, sparse, of_boxes = [], [], [np.zeros(0, int)]
    for recording in recordings:
        name, video = recording.name, recording.video
        if (boxes := recording.boxes) is None:
            without_boxes.append(name)
            continue
        looked_at += int(boxes.looked_at(video.first_frame, video.num_frames).sum())
        if boxes.every_frame and boxes.sparse:
            sparse.append(name)
        of_states = classes[name][boxes.frames - video.first_frame]
        of_boxes.append(of_states if boxes.classes is None else boxes.classes)
        num_boxes += len(of_states)
        cut += boxes.num_cut
        repeated += boxes.num_repeated
        if boxes.classes is not None:
            of_file += len(of_states)
            fitting += int(agree(boxes.classes, of_states, procedure).sum())
    lines = [
        f"{len(recordings)} recordings, {num_frames} frames "
        f"({_kinds(np.concatenate([*classes.values()]), procedure)}), {num_boxes} boxes "
        f"({_kinds(np.concatenate(of_boxes), procedure)}; {cut} cut off at the picture's edge, "
        f"{repeated} left out for a larger one of the same frame)"
    ]
    if looked_at:
        lines.append(
            f"{looked_at - num_boxes + repeated} frames are annotated as empty, "
            f"{num_frames - looked_at} are not annotated"
        )
    if of_file:
        few = (
            ". These are few: classes or frames may be shifted, so look at the boxes by state on "
            "the contact sheet of data_prep.check before training"
        )
        lines.append(
            f"{fitting:,} of {of_file:,} boxes agree with the step labels"
            f"{few * (2 * fitting < of_file)}"
        )
    for recording in recordings:
        lines += differing_steps(recording.name, recording.labels, procedure)
    if sparse:
        lines.append(
            f"most boxes of recordings {', '.join(sparse)} have none in the frame before or after: "
            "frames without a box count as not annotated there, and not as empty"
        )
    if without_boxes:
        lines.append(f"no boxes (ASD labels) for recordings {', '.join(without_boxes)}")
    return lines


def product_size(
    boxes: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]], framing: Framing
) -> tuple[str, str]:
    """Says how large the product is in the pictures made, and what to do if that is too small.

    `boxes` are (M, 4) of each recording, in 0…1 of its pictures, which have `shapes` (H, W).
    Returns a line, and a warning; "" without any box, and where the product is large enough.
    """
    made = [framing.place(*shape).map_boxes(of) for of, shape in zip(boxes, shapes, strict=True)]
    across = pixels_across(np.concatenate([np.zeros((0, 4)), *made]), framing.size)
    if math.isnan(across):
        return "", ""
    of_video = [
        pixels_across(of, shape) for of, shape in zip(boxes, shapes, strict=True) if len(of)
    ]
    size, stored = framing.size[0], float(np.median(of_video))
    line = (
        f"the product is {across:.0f} pixels across at --size={size} (in the videos {stored:.0f})"
    )
    if across >= ENOUGH:
        return line, ""
    needed = math.ceil(size * ENOUGH / across / 8) * 8
    way = f"--size={needed}" if stored >= ENOUGH else "record from nearer"
    return line, f"{line}; {ENOUGH} were enough on our rendered toy: {way}, or give a --crop"


def _kinds(classes: np.ndarray, procedure: Procedure) -> str:
    error, none = int((classes == procedure.error_class).sum()), int((classes == 0).sum())
    return (
        f"{len(classes) - error - none} in a catalogued state, {error} in an error state, {none} "
        "in an uncatalogued one"
    )


def differing_steps(name: str, own: Labels, procedure: Procedure) -> list[str]:
    """Returns a line for a recording whose steps are not the changes of its states."""
    steps = {step for step in own.steps if step[1] % 3 != 1}
    changes = set(states_to_steps(own.frames, own.states))
    differing = []
    for text, some_steps in (
        ("changes of state that are no steps: ", changes - steps),
        ("steps without a change of state: ", steps - changes),
    ):
        named = [
            f"{procedure.step_name(step)} at frame {frame}" for frame, step in sorted(some_steps)
        ]
        differing += [text + some(named)] if named else []
    if not differing:
        return []
    return [
        f"recording {name}: PSR_labels.csv and the states differ, {'; '.join(differing)}. Training "
        "follows the states and scores follow the steps: correct whichever is wrong"
    ]


def some(texts: Sequence[str]) -> str:
    """Returns the first few of many texts, and how many more there are."""
    rest = len(texts) - MAX_SHOWN
    return ", ".join(texts[:MAX_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def agree(of_boxes: np.ndarray, of_states: np.ndarray, procedure: Procedure) -> np.ndarray:
    """(M,) bool: which boxes, of classes (M,), fit the classes (M,) of the states at their frames.

    An annotator calls `error_state` what no catalogued state is: an incorrect part (-1 in the
    PSR labels), or a state outside the catalogue. Around a completion the two labels may differ, as
    a box tells what is seen, and the PSR labels what has been completed.
    """
    no_state = (of_states == 0) | (of_states == procedure.error_class)
    return np.where(of_boxes == procedure.error_class, no_state, of_boxes == of_states)
