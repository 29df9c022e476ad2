"""The labels of a recording: states, steps, boxes and the classes of these."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.reading import psr_labels
from data_prep.reading.asd_labels import Boxes
from data_prep.reading.layout import Format, RecordingFiles
from stormpsr_jax.mistakes import raise_all
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.procedure import Procedure


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of a recording.

    Attributes:
        frames: (M,) of PSR_labels_raw.csv.
        states: (M, K), each from its frame on.
        steps: of PSR_labels.csv, or those that lead from state to state if it is not shipped.
        boxes: None if there are none.
        files: the PSR label files that are shipped.
        digest: changes with any of the label files; boxes have their own.
    """

    frames: np.ndarray
    states: np.ndarray
    steps: list[labels.Step]
    boxes: Boxes | None
    files: Mapping[str, bytes]
    digest: int


def read_labels(form: Format, recording: RecordingFiles, procedure: Procedure) -> Labels:
    """Reads the label files of a recording, and the file of its boxes.

    Raises:
        ValueError: the mistakes of all files, with file, line and field; see psr_labels.read.
    """
    first, num_frames = recording.pictures.first_frame, recording.pictures.num_frames
    frames = range(first, first + num_frames)
    mistakes, boxes = [], None
    try:
        found = psr_labels.read(*recording.labels, recording.name, procedure, frames)
    except ValueError as error:
        mistakes.append(str(error))
    if recording.boxes is not None:
        tree, name = recording.boxes
        try:
            with tree.on_disk(name) as path:
                boxes = form.read_boxes(path)
                boxes.of_frames(first, num_frames)
        except ValueError as error:
            mistakes.append(str(error))
    raise_all(mistakes)
    steps = found.steps
    if steps is None:
        steps = labels.states_to_steps(found.frames, found.states)
    return Labels(found.frames, found.states, steps, boxes, found.files, found.digest)


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
        if (of_name := category_class(name, procedure)) is not None:
            classes[i] = of_name
    return classes


def category_class(name: str, procedure: Procedure) -> int | None:
    """Returns the class of a category such as 10010110000, background or error_state; or None."""
    if name == "error_state":
        return procedure.error_class
    if name == "background":
        return 0
    if len(name) == procedure.num_components and set(name) <= {"0", "1"}:
        return procedure.state_class(tuple(map(int, name)))
    return None
