"""Labels by the clock: what people and labelling tools write, as steps and frames.

`formats` reads the files. A step is its id or its name as `stormpsr_jax.procedure show` prints it,
in any case, or a word that --words maps to one. An interval is complete at its end.

A completion counts from the first frame at or after its time; the last frame stands for one that
comes less than a frame after it. What the first frame shows was done before it: a step there is
part of the state that the recording begins with, and no completion in it. Times of tools are
rounded: one that is up to a millisecond (`Format.tolerance`), but less than half a frame, after a
frame belongs to it, and where the video is at hand, to the picture that is as near. A number of a
picture counts from the first frame that shows this picture or a later one.

Errors are all those of a file, as ValueError, each with file, line (or entry) and field.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each, note, raise_all
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.formats import formats
from stormpsr_jax.recordings.formats.formats import Parsed
from stormpsr_jax.recordings.formats.sample import Entry, Unit
from stormpsr_jax.recordings.labels import Step
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.words import Steps, Terms

_VALUES = (1, -1, 0)  # of a component after step 3k, 3k + 1, 3k + 2
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


@dataclasses.dataclass(frozen=True)
class Shown:
    """The pictures of a recording, M as they are stored, by the frames that show them.

    Attributes:
        times: (M,) seconds after the first one, ascending.
        frames: (M,) the first frame, from 0, that shows each picture or a later one.
    """

    times: np.ndarray
    frames: np.ndarray


def read_times(
    path: str | os.PathLike,
    procedure: Procedure,
    terms: Terms | None = None,
    recording: str | None = None,
    *,
    with_pictures: bool = False,
    parsed: Parsed | None = None,
) -> list[TimedStep]:
    """Reads the labels of a recording in any format, in order of the times.

    Args:
        terms: words for steps, and the rate of the tool's frames.
        recording: whose labels are wanted, of a file with several; None for the file's name.
        with_pictures: whether those of the recording are at hand, so that numbers of pictures go
            by these and not by the tool's rate.
        parsed: the content of the file, where it has been read before.
    """
    terms = terms or Terms()
    steps = Steps(procedure, terms.words)

    def find(entry: Entry) -> int | None:
        return steps.find(entry.text, f"{path}: {entry.place}: step")

    if parsed is None:
        parsed = formats.read(path, find)
    entries = _of_recording(parsed, recording or pathlib.Path(str(path)).stem, path)

    def parse(entry: Entry) -> list[TimedStep]:
        step_id = find(entry)
        if step_id is None:
            return []
        at, unit = entry.at, entry.unit
        of_tool = unit in (Unit.TICKS, Unit.COUNTED) or (
            unit is Unit.PICTURES and not with_pictures
        )
        if of_tool and terms.fps is not None:
            at, unit = at / terms.fps, Unit.SECONDS
        if unit is Unit.COUNTED:
            unit = Unit.FRAMES
        if unit is Unit.TICKS:
            raise ValueError(
                f"{path}: {entry.place}: time: counts frames at the rate set in the tool, "
                "which the file does not say; give --labels_fps=F"
            )
        return [TimedStep(at, entry.place, step_id, unit, parsed.format.tolerance)]

    timed = [step for its in for_each([(entry,) for entry in entries], parse) for step in its]
    return sorted(timed, key=lambda step: step.at)


def _of_recording(parsed: Parsed, name: str, path: object) -> list[Entry]:
    """The entries of a recording, where the tool has put those of several into a file."""
    if len(parsed.recordings) < 2:
        return parsed.entries
    if any(name in group for group in parsed.recordings):
        return [entry for entry in parsed.entries if name in entry.recordings]
    found = ", ".join(
        files.shorten(group[-1] if group else "(none)") for group in parsed.recordings[:10]
    )
    raise ValueError(
        f"{path}: has labels of several recordings ({found}), none of them {files.shorten(name)}; "
        "put the file beside the labels of other recordings, in no folder that is one's"
    )


def to_frames(
    path: str | os.PathLike,
    timed: Sequence[TimedStep],
    initial_state: Sequence[int],
    procedure: Procedure,
    *,
    first_frame: int = 0,
    num_frames: int | None = None,
    shown: Callable[[], Shown] | None = None,
) -> tuple[tuple[int, ...], list[Step]]:
    """Converts times to frames, and checks that each step changes its component.

    Args:
        timed: of `read_times`.
        initial_state: K values before the first step.
        first_frame: the frame at time 0.
        num_frames: of the recording; None if it is not known.
        shown: gives its pictures, and is asked only for labels that need them; None without them.

    Returns:
        the state at the first frame, which is the initial one but for steps at that frame, and the
        steps after it, [(frame, step id)] in order of time.
    """
    fps = procedure.fps
    last = csvfile.MAX_FRAME if num_frames is None else first_frame + num_frames - 1
    state, first_state = list(initial_state), list(initial_state)
    since: dict[int, tuple[str, int | float | None]]
    since = dict.fromkeys(range(len(state)), ("from the start", None))
    steps: list[Step] = []
    errors: list[str] = []
    needed = any(step.unit is Unit.PICTURES or step.tolerance for step in timed)
    pictures = shown() if shown is not None and needed else None
    for step in timed:
        try:
            frame = frame_of(step, fps, first_frame, pictures, path)
        except ValueError as error:
            note(errors, error)
            continue
        k, value = step.step_id // 3, _VALUES[step.step_id % 3]
        when, at = since[k]
        name = f"{step.step_id} ({procedure.step_name(step.step_id)})"
        field, what = "step", ""
        if frame > csvfile.MAX_FRAME:
            field = "time"
            what = f"{step.when} is after frame {csvfile.MAX_FRAME:,}, the last there may be"
        elif num_frames is not None and frame > last + 1:
            field = "time"
            end = (last + 1 - first_frame) / fps
            what = f"{step.when} is after the end of the recording, {end:.1f} s"
            if step.unit is Unit.FRAMES:
                what += "; do they count at another rate, give it as --labels_fps"
        elif frame < first_frame:
            field = "time"
            what = f"{step.when} is before the first picture, {first_frame}"
        elif value == state[k]:
            what = f"{name} changes nothing: it is {_ALREADY[value]} {when}"
        elif min(frame, last) == at:
            what = f"{name} falls into the same frame as the one of the same component {when}"
        if what:
            note(errors, ValueError(f"{path}: {step.place}: {field}: {what}"))
            continue
        frame = int(min(frame, last))
        state[k], since[k] = value, (f"since {step.place}", frame)
        if frame == first_frame:
            first_state[k] = value
        else:
            steps.append((frame, step.step_id))
    raise_all(errors)
    return tuple(first_state), steps


def frame_of(
    step: TimedStep, fps: float, first_frame: int, shown: Shown | None, path: object
) -> int:
    """Returns the frame that a step counts from; it may be one after the last.

    Arguments and errors as of `to_frames`; `shown` are the recording's pictures.
    """
    if step.unit is Unit.FRAMES:
        return int(step.at)
    if step.unit is Unit.PICTURES:
        if shown is None:
            raise ValueError(
                f"{path}: {step.place}: time: counts the pictures of the video, which is not "
                "available here; give --labels_fps=F, the rate of a video whose rate is constant"
            )
        if step.at >= len(shown.frames):
            raise ValueError(
                f"{path}: {step.place}: time: {step.when} is after the last of "
                f"{len(shown.frames)} pictures of the video"
            )
        return first_frame + int(shown.frames[int(step.at)])
    tolerance = min(step.tolerance, 0.5 / fps)
    if tolerance and shown is not None:
        near = int(np.searchsorted(shown.times, step.at - tolerance))
        if near < len(shown.times) and abs(shown.times[near] - step.at) <= tolerance:
            return first_frame + int(shown.frames[near])
    # A millionth: 2.2 · 5 = 11.000000000000002.
    return first_frame + max(0, math.ceil((step.at - tolerance) * fps - 1e-6))
