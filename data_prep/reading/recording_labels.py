"""The labels of a recording: states, steps, boxes and the classes of these."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.reading.boxes import Boxes
from data_prep.reading.data_sets import Format, RecordingFiles
from stormpsr_jax.base.errors import for_each, raise_all
from stormpsr_jax.media.pictures import Pictures
from stormpsr_jax.recordings import csvfile, label_files, labels
from stormpsr_jax.recordings.label_files import STATES, STEPS, WITH_ERRORS
from stormpsr_jax.recordings.procedure import Procedure


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of a recording.

    Attributes:
        frames: (M,) of PSR_labels_raw.csv.
        states: (M, K), each from its frame on.
        steps: of PSR_labels.csv, or those that lead from state to state if it is not shipped.
        files: the PSR label files that are shipped.
        digest: changes with any of the label files; boxes have their own.
        boxes: None if there are none.
    """

    frames: np.ndarray
    states: np.ndarray
    steps: list[labels.Step]
    files: Mapping[str, bytes]
    digest: int
    boxes: Boxes | None = None

    def per_frame(self, pictures: Pictures) -> np.ndarray:
        """Returns the state (N, K) of each of the N frames of the recording."""
        first, count = pictures.first_frame, pictures.num_frames
        return labels.states_per_frame(self.frames, self.states, first, count)


def read_psr_files(
    folder: Path,
    name: str,
    procedure: Procedure,
    frames: range,
    *,
    early_start: bool = False,
) -> Labels:
    """Reads the PSR label files in a folder, and holds them against the frames of their recording.

    Without PSR_labels_raw.csv, the states follow from the steps (with errors, if those are there)
    and the initial state of the procedure's variant. With `early_start` the first state may be from
    before the recording.

    Raises:
        ValueError: the errors of all files, with file, line and field; also frames outside the
            recording and rows out of order.
    """

    def check(path: Path, numbers: list[int]) -> None:
        _check_frames(path, numbers, frames, early_start and path.name == STATES)

    there = label_files.psr_files(folder)
    known = label_files.read_files(folder, there, procedure, check)
    digest, files = 0, {}
    for file in there:
        files[file] = (folder / file).read_bytes()
        digest = zlib.crc32(files[file], zlib.crc32(file.encode(), digest))
    if STATES not in known:
        of = next((file for file in (WITH_ERRORS, STEPS) if file in known), STEPS)
        initial = procedure.variant_for(name).initial_state
        try:
            known[STATES] = labels.steps_to_states(known.get(of, []), initial, frames.start)
        except ValueError as error:
            raise ValueError(f"{folder / of}: {error}") from error
    changes, states = known[STATES]
    steps = known[STEPS] if STEPS in known else labels.states_to_steps(changes, states)
    return Labels(changes, states, steps, files, digest)


def _check_frames(path: Path, numbers: Sequence[int], frames: range, early_start: bool) -> None:
    """Raises ValueError for all rows whose frame is no frame, or before the row above."""
    wrong: dict[int, str] = {}
    for i, frame in enumerate(numbers):
        if frame not in frames and not (early_start and not i and frame < frames.stop):
            where = f"{frames.start}…{frames.stop - 1}"
            wrong[i] = f"frame {frame} is not among the recording's frames {where}"
        elif i and frame < numbers[i - 1]:
            wrong[i] = f"frame {frame} comes after frame {numbers[i - 1]}"
    if wrong:  # only then is the file read again, for the numbers of its lines
        lines = [line for line, _ in csvfile.read_rows(path)]
        raise_all([str(lines[i].error("image", what)) for i, what in wrong.items()])


def read_labels(form: Format, recording: RecordingFiles, procedure: Procedure) -> Labels:
    """Reads the label files of a recording, and its boxes; ValueError has all errors."""

    def read_steps() -> Labels:
        return read_psr_labels(recording, procedure, early_start=form.any_first)

    return with_boxes(recording, read_steps, form.read_boxes)


def read_psr_labels(
    recording: RecordingFiles, procedure: Procedure, *, early_start: bool = False
) -> Labels:
    """Reads the PSR label files of a recording with pictures; see read_psr_files."""
    first = recording.pictures.first_frame
    frames = range(first, first + recording.pictures.num_frames)
    where = recording.labels.path, recording.name
    return read_psr_files(*where, procedure, frames, early_start=early_start)


def with_boxes(
    recording: RecordingFiles,
    read_steps: Callable[[], Labels],
    read_boxes: Callable[[Path], Boxes] | None,
) -> Labels:
    """Returns labels with the boxes of a recording; ValueError with the errors of both."""

    if (place := recording.boxes) is None:
        return read_steps()

    def boxes_of() -> Boxes:
        assert read_boxes is not None
        boxes = place if isinstance(place, Boxes) else read_boxes(place)
        boxes.of_frames(recording.pictures.first_frame, recording.pictures.num_frames)
        return boxes

    known, boxes = for_each([(read_steps,), (boxes_of,)], lambda read: read())
    return dataclasses.replace(known, boxes=boxes)


def agree(of_boxes: np.ndarray, of_states: np.ndarray, procedure: Procedure) -> np.ndarray:
    """(M,) bool: which boxes, of classes (M,), fit the classes (M,) of the states at their frames.

    An annotator calls `error_state` what no catalogued state is: an incorrect part (-1 in the
    PSR labels), or a state outside the catalogue. Around a completion the two labels may differ, as
    a box tells what is seen, and the PSR labels what has been completed.
    """
    no_state = (of_states == 0) | (of_states == procedure.error_class)
    return np.where(of_boxes == procedure.error_class, no_state, of_boxes == of_states)
