"""One recording: its video, its labels and its boxes, which are read together."""

import dataclasses
from collections.abc import Callable

import numpy as np

from stormpsr_jax.base.errors import gathering, raise_all
from stormpsr_jax.recordings.boxes import Boxes
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import STATES, STEPS, WITH_ERRORS, Labels, states_per_frame
from stormpsr_jax.recordings.pictures import Pictures
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.words import Terms


@dataclasses.dataclass(eq=False)
class Recording:
    """A recording of an assembly: N frames of a video, with what is said of them.

    Attributes:
        labels: its labels, with states.
        states: (N, K) int8, the state of each frame.
        boxes: its boxes; None if there are none.
        split: "train", "val" or "test"; "" until it is chosen.
    """

    name: str
    video: Pictures
    procedure: Procedure
    labels: Labels
    states: np.ndarray
    boxes: Boxes | None = None
    split: str = ""


def read_recording(
    name: str,
    video: Pictures,
    place: LabelPlace,
    procedure: Procedure,
    *,
    read_boxes: Callable[[], Boxes] | None = None,
    terms: Terms | None = None,
    early_start: bool = False,
    change: Callable[[Labels, Variant], Labels] | None = None,
) -> Recording:
    """Reads labels and boxes of a recording.

    Args:
        place: of its labels.
        read_boxes: gives its boxes, from wherever they are; None if there are none.
        terms: what labels call steps, and the rate at which they count frames.
        early_start: whether the first state may be labelled before the first frame.
        change: what a data set makes of the labels in its files; None takes them as they are.

    Raises:
        ValueError: all errors of both, each with file, line and field.
    """
    errors: list[str] = []
    with gathering(errors):
        variant = procedure.variant_for(name)
        labels = place.read(
            procedure, variant, terms=terms, recording=name, video=video, early_start=early_start
        )
        try:
            labels = labels.with_states(variant.initial_state, video.first_frame)
        except ValueError as error:
            of = WITH_ERRORS if WITH_ERRORS in labels.files else STEPS
            raise ValueError(f"{place.path / of}: {error}") from error
        begins = len(labels.states) == 1 and tuple(labels.states[0]) == variant.initial_state
        if begins and STATES not in labels.files:  # hardly anybody records that nothing happens
            raise ValueError(
                f"{place}: no step of {name} is labelled; label it, or take the labels away, so "
                f"that its video is left out (where nothing is to happen, {name}/{STATES} says so "
                "with the first state alone)"
            )
        if change is not None:
            labels = change(labels, variant)
    boxes = None
    if read_boxes is not None:
        with gathering(errors):
            boxes = read_boxes()
            _check_boxes(boxes, video, procedure.fps)
    raise_all(errors)
    states = states_per_frame(labels.frames, labels.states, video.first_frame, video.num_frames)
    return Recording(name, video, procedure, labels, states, boxes)


def _check_boxes(boxes: Boxes, video: Pictures, fps: float) -> None:
    """Raises ValueError for boxes of frames that the recording has not."""
    last = int(boxes.frames.max(initial=0))
    if last >= video.first_frame + video.num_frames:
        times = video.timestamps(fps).times
        if video.num_frames < len(times) and last <= len(times):  # some count from 1
            rate = (len(times) - 1) / times[-1]
            raise ValueError(
                f"{boxes.places[int(boxes.frames.argmax())]}: frame {last} is a number of a "
                f"picture of the video, which has {rate:.3g} a second; the recording has "
                f"{fps:g} frames a second: write in place of picture n frame {fps:g} · n / "
                f"{rate:.3g}, or draw on what --export_frames writes"
            )
    boxes.of_frames(video.first_frame, video.num_frames)
