"""The labels of a recording: states, steps, boxes and the classes of these."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_prep.reading import psr_labels
from data_prep.reading.asd_labels import Boxes
from data_prep.reading.data_sets import Format, RecordingFiles
from stormpsr_jax.base.mistakes import raise_all
from stormpsr_jax.psr.files import labels
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
        found = psr_labels.read(
            *recording.labels, recording.name, procedure, frames, early_start=form.early_start
        )
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


def agree(of_boxes: np.ndarray, of_states: np.ndarray, procedure: Procedure) -> np.ndarray:
    """Says which boxes are of a class that fits the state of the PSR labels at their frame.

    An annotator calls `error_state` what no catalogued state is: a part that sits wrong (-1 in the
    PSR labels), or a state outside the catalogue. Around a completion the two labels may differ, as
    a box tells what is seen, and the PSR labels what has been completed.

    Args:
        of_boxes: (M,) classes of boxes.
        of_states: (M,) classes of the states at their frames.
        procedure: of the recording.

    Returns:
        (M,) bool.
    """
    no_state = (of_states == 0) | (of_states == procedure.error_class)
    return np.where(of_boxes == procedure.error_class, no_state, of_boxes == of_states)
