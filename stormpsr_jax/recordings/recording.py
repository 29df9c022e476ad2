"""One recording: its video, its labels and its boxes, each read once, when it is asked for."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stormpsr_jax.base.folders import printable
from stormpsr_jax.recordings.boxes import Boxes
from stormpsr_jax.recordings.label_file import LabelFile
from stormpsr_jax.recordings.labels import (
    STATES,
    STEPS,
    WITH_ERRORS,
    Labels,
    Step,
    read_folder,
    states_per_frame,
)
from stormpsr_jax.recordings.pictures import Pictures
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.words import Terms


@dataclasses.dataclass(frozen=True)
class LabelPlace:
    """Where a recording's labels are: a folder of PSR files, or a file that says when."""

    path: Path

    def __str__(self) -> str:
        return printable(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # another process reads the file anew

    @functools.cached_property
    def file(self) -> LabelFile | None:
        """The file, which is read once; None of a folder."""
        return LabelFile(self.path) if self.path.is_file() else None

    def read(
        self,
        procedure: Procedure,
        variant: Variant | None,
        *,
        terms: Terms | None = None,
        recording: str | None = None,
        needed: str | None = None,
        video: Pictures | None = None,
        early_start: bool = False,
    ) -> Labels:
        """Returns the labels of a recording.

        Args:
            variant: of the recording, whose initial state a file's labels start from; None if it is
                not known, which leaves their changes unchecked and the result empty.
            terms: what a file calls steps, and the rate at which it counts frames.
            recording: its name, of a file with several; None if the file has it.
            needed: of a folder, the file with steps that is wanted, `STEPS` or `WITH_ERRORS`.
            video: of the recording, in which all labels have to lie; None if it is not at hand.
            early_start: of a folder, whether the first state may be from before the video.

        Raises:
            ValueError: all errors, with file, line and field.
        """
        if self.file is not None:
            name = recording or self.path.stem
            return self.file.read(procedure, variant, terms or Terms(), name, video)
        frames = None
        if video is not None:
            frames = range(video.first_frame, video.first_frame + video.num_frames)
        return read_folder(self.path, procedure, needed, frames, early_start)


@dataclasses.dataclass(eq=False)
class Recording:
    """A recording of an assembly, with video and labels.

    Attributes:
        video: its N frames.
        place: of its labels.
        box_reader: gives its boxes, from wherever they are; None if there are none.
        procedure: of its product.
        terms: what labels call steps, and the rate at which they count frames.
        early_start: whether the first state may be labelled before the first frame.
        change: what a data set makes of the labels in its files; None takes them as they are.
        split: "train", "val" or "test"; "" until it is chosen.
    """

    name: str
    video: Pictures
    place: LabelPlace
    box_reader: Callable[[], Boxes] | None
    procedure: Procedure
    terms: Terms = dataclasses.field(default_factory=Terms)
    early_start: bool = False
    change: Callable[[Labels, Variant], Labels] | None = None
    split: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """What has been read goes along to another process, without what read it."""
        return {**vars(self), "box_reader": None, "change": None}

    @functools.cached_property
    def labels(self) -> Labels:
        """Its labels, with states; ValueError has all errors."""
        procedure, place = self.procedure, self.place
        variant = procedure.variant_for(self.name)
        found = place.read(
            procedure,
            variant,
            terms=self.terms,
            recording=self.name,
            video=self.video,
            early_start=self.early_start,
        )
        try:
            found = found.with_states(variant.initial_state, self.video.first_frame)
        except ValueError as error:
            of = WITH_ERRORS if WITH_ERRORS in found.files else STEPS
            raise ValueError(f"{place.path / of}: {error}") from error
        begins = len(found.states) == 1 and tuple(found.states[0]) == variant.initial_state
        if begins and STATES not in found.files:  # hardly anybody films that nothing happens
            raise ValueError(
                f"{place}: no step of {self.name} is labelled; label it, or take the labels away, "
                f"so that its video is left out (where nothing is to happen, {self.name}/{STATES} "
                "says so with the first state alone)"
            )
        return found if self.change is None else self.change(found, variant)

    @property
    def steps(self) -> list[Step]:
        """(frame, step id) of the completed steps."""
        return self.labels.steps

    @functools.cached_property
    def states(self) -> np.ndarray:
        """The state (N, K) int8 of each frame."""
        first, count = self.video.first_frame, self.video.num_frames
        return states_per_frame(self.labels.frames, self.labels.states, first, count)

    @functools.cached_property
    def boxes(self) -> Boxes | None:
        """Its boxes; None if there are none. ValueError has all errors, also of the frames."""
        if self.box_reader is None:
            return None
        boxes, video = self.box_reader(), self.video
        last = int(boxes.frames.max(initial=0))
        if last >= video.first_frame + video.num_frames:
            times, fps = video.timestamps(self.procedure.fps).times, self.procedure.fps
            if video.num_frames < len(times) and last <= len(times):  # some count from 1
                rate = (len(times) - 1) / times[-1]
                raise ValueError(
                    f"{boxes.places[int(boxes.frames.argmax())]}: frame {last} is a number of a "
                    f"picture of the video, which has {rate:.3g} a second; the recording has "
                    f"{fps:g} frames a second: write in place of picture n frame {fps:g} · n / "
                    f"{rate:.3g}, or draw on what --export_frames writes"
                )
        boxes.of_frames(video.first_frame, video.num_frames)
        return boxes
