"""From the times of labels to the frames of a recording.

An interval is complete at its end. A completion counts from the first frame at or after its time;
the last frame stands for one that comes less than a frame after it. What the first frame shows was
done before it: a step there is part of the state that the recording begins with, and no completion
in it. Times of tools are rounded: one that is up to a millisecond, but less than half a frame,
after a frame belongs to it, and where the video is at hand, to the picture that is as near. A
number of a picture counts from the first frame that shows this picture or a later one.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from stormpsr_jax.base.errors import note, raise_all
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.label_tools import Unit
from stormpsr_jax.recordings.pictures import Pictures, Timestamps
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.steps import VALUES, Step

_ALREADY = {1: "installed", -1: "incorrectly installed", 0: "absent"}


@dataclasses.dataclass(frozen=True)
class TimedStep:
    """A label: step `step_id` is complete at `at`, which counts what `unit` says.

    Attributes:
        at: seconds, or a number of frames or pictures, from 0.
        place: where it stands in its file.
        unit: SECONDS, FRAMES or PICTURES.
        tolerance: seconds by which a time may be too late.
    """

    at: float
    place: str
    step_id: int
    unit: Unit = Unit.SECONDS
    tolerance: float = 0.0

    @property
    def when(self) -> str:
        """For messages."""
        return (
            f"{self.at:g} s" if self.unit is Unit.SECONDS else f"{self.unit.value[:-1]} {self.at:g}"
        )


def to_frames(
    path: object,
    timed: Sequence[TimedStep],
    initial_state: Sequence[int],
    procedure: Procedure,
    video: Pictures | None = None,
) -> tuple[tuple[int, ...], list[Step]]:
    """Converts times to frames, and checks that each step changes its component.

    Args:
        path: of the file, for messages.
        timed: in order of the times.
        initial_state: K values before the first step.
        video: of the recording; None without it, which begins at frame 0 then.

    Returns:
        the state at the first frame, which is the initial one but for steps at that frame, and the
        steps after it, [(frame, step id)] in order of time.

    Raises:
        ValueError: all labels that are no frame of the recording, or that change nothing.
    """
    fps, first, num = procedure.fps, 0, None
    if video is not None:
        first, num = video.first_frame, video.num_frames
    last = csvfile.MAX_FRAME if num is None else first + num - 1
    state, first_state = list(initial_state), list(initial_state)
    since: dict[int, tuple[str, int | float | None]]
    since = dict.fromkeys(range(len(state)), ("from the start", None))
    steps: list[Step] = []
    errors: list[str] = []
    needed = any(step.unit is Unit.PICTURES or step.tolerance for step in timed)
    timestamps = video.timestamps(fps) if video is not None and needed else None
    for step in timed:
        try:
            frame = frame_of(step, fps, first, timestamps, path)
        except ValueError as error:
            note(errors, error)
            continue
        k, value = step.step_id // 3, VALUES[step.step_id % 3]
        when, at = since[k]
        name = f"{step.step_id} ({procedure.step_name(step.step_id)})"
        field, what = "step", ""
        if frame > csvfile.MAX_FRAME:
            field = "time"
            what = f"{step.when} is after frame {csvfile.MAX_FRAME:,}, the last there may be"
        elif num is not None and frame > last + 1:
            field = "time"
            what = f"{step.when} is after the end of the recording, {num / fps:.1f} s"
            if step.unit is Unit.FRAMES:
                what += "; do they count at another rate, give it as --labels_fps"
        elif frame < first:
            field = "time"
            what = f"{step.when} is before the first picture, {first}"
        elif value == state[k]:
            what = f"{name} changes nothing: it is {_ALREADY[value]} {when}"
        elif min(frame, last) == at:
            what = f"{name} falls into the same frame as the one of the same component {when}"
        if what:
            note(errors, ValueError(f"{path}: {step.place}: {field}: {what}"))
            continue
        frame = int(min(frame, last))
        state[k], since[k] = value, (f"since {step.place}", frame)
        if frame == first:
            first_state[k] = value
        else:
            steps.append((frame, step.step_id))
    raise_all(errors)
    return tuple(first_state), steps


def frame_of(
    step: TimedStep, fps: float, first_frame: int, timestamps: Timestamps | None, path: object
) -> int:
    """Returns the frame that a step counts from; it may be one after the last.

    `timestamps` are the recording's pictures; without them ValueError where a step counts pictures.
    """
    if step.unit is Unit.FRAMES:
        return int(step.at)
    if step.unit is Unit.PICTURES:
        if timestamps is None:
            raise ValueError(
                f"{path}: {step.place}: time: counts the pictures of the video, which is not "
                "available here; give --labels_fps=F, the rate of a video whose rate is constant"
            )
        if step.at >= len(timestamps.frames):
            raise ValueError(
                f"{path}: {step.place}: time: {step.when} is after the last of "
                f"{len(timestamps.frames)} pictures of the video"
            )
        return first_frame + int(timestamps.frames[int(step.at)])
    tolerance = min(step.tolerance, 0.5 / fps)
    if tolerance and timestamps is not None:
        near = int(np.searchsorted(timestamps.times, step.at - tolerance))
        if near < len(timestamps.times) and abs(timestamps.times[near] - step.at) <= tolerance:
            return first_frame + int(timestamps.frames[near])
    # A millionth: 2.2 · 5 = 11.000000000000002.
    return first_frame + max(0, math.ceil((step.at - tolerance) * fps - 1e-6))
