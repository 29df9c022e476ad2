"""Labels by the clock: a CSV of times, or of intervals, as people and annotation tools write them.

A CSV of times begins with the header `time,step`, one of intervals with `start,end,step`; then a
step is complete at its end. Times are seconds, or m:ss or h:mm:ss with a decimal point, from the
first picture of the recording on. A step is its id or its name as `stormpsr_jax.procedure show`
prints it. Rows may be in any order, other columns are not read, and files that a spreadsheet has
saved with semicolons and decimal commas are understood.

A completion counts from the first frame at or after its time; the last frame stands for one that
comes less than a frame after it. What the first frame shows was done before it: a step there is
part of the state that the recording begins with, and no completion in it. The header alone says
that nothing was done.
"""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence

from stormpsr_jax.base import files
from stormpsr_jax.base.mistakes import for_each, note, raise_all
from stormpsr_jax.psr.files import csvfile
from stormpsr_jax.psr.files.labels import Step
from stormpsr_jax.psr.procedure import Procedure

# At most nine digits: no recording is as long, and no frame number is too large.
_TIME = re.compile(r"(?:(?:([0-9]{1,9}):)?([0-9]{1,9}):)?([0-9]{1,9}(?:\.[0-9]*)?)", re.ASCII)
_MAX_COMPARED = 200  # names of steps that one that is none of them is held against
_VALUES = (1, -1, 0)  # of a component after step 3k, 3k + 1, 3k + 2
_ALREADY = {1: "installed", -1: "incorrectly installed", 0: "absent"}


@dataclasses.dataclass(frozen=True)
class TimedStep:
    """A row of a CSV: step `step_id` is complete at `time` seconds."""

    time: float
    line: int
    step_id: int


def read_times(path: str | os.PathLike, procedure: Procedure) -> list[TimedStep]:
    """Reads a CSV of times or intervals, in order of the times.

    Raises:
        ValueError: all mistakes, each with file, line and field.
    """
    text = files.read_text(path)
    header = text.partition("\n")[0]
    semicolons = ";" in header and "," not in header
    rows = csvfile.rows_of(text, path, ";" if semicolons else ",")
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    time_names = ("start", "end") if {"start", "end"} <= set(names) else ("time",)
    if not {*time_names, "step"} <= set(names) or ("time" in names and "end" in names):
        found = files.shorten(",".join(names))
        raise ValueError(
            f"{path}: line 1: header: {found} is neither time,step nor start,end,step; put the one "
            "that fits as the first line (or give PSR_labels.csv in a folder of the recording's "
            "name)"
        )

    steps = {procedure.step_name(i): i for i in range(3 * procedure.num_components)}

    def parse(line: int, row: list[str]) -> TimedStep:
        csvfile.check_width(path, line, row[: len(names)], names)
        field = dict(zip(names, row, strict=False))
        times = [_parse_time(field[n], semicolons, path, line, n) for n in time_names]
        if times[0] > times[-1]:
            what = f"{field['end'].strip()} is before the start, {field['start'].strip()}"
            raise csvfile.field_error(path, line, "end", what)
        return TimedStep(times[-1], line, _parse_step(field["step"], steps, procedure, path, line))

    timed = for_each([row for row in rows[1:] if any(map(str.strip, row[1]))], parse)
    return sorted(timed, key=lambda step: (step.time, step.line))


def _parse_time(
    text: str, decimal_comma: bool, path: str | os.PathLike, line: int, field: str
) -> float:
    """Returns the seconds of 75.5, 1:15.5 or 0:01:15.5."""
    text = text.strip()
    match = _TIME.fullmatch(text.replace(",", ".") if decimal_comma else text)
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if (
        not match
        or (match[2] is not None and seconds >= 60)
        or (match[1] is not None and minutes >= 60)
    ):
        what = f"{files.shorten(text)} is not a time such as 75.5, 1:15.5 or 0:01:15.5"
        raise csvfile.field_error(path, line, field, what)
    return 3600 * hours + 60 * minutes + seconds


def _parse_step(
    text: str, names: Mapping[str, int], procedure: Procedure, path: str | os.PathLike, line: int
) -> int:
    """Returns the id of a step given as id or name; `names` are those of all steps."""
    text = text.strip()
    if re.fullmatch("[+-]?[0-9]+", text, re.ASCII):
        return csvfile.parse_integer(text, 0, len(names) - 1, path, line, "step")
    if text in names:
        return names[text]
    # Comparing names takes some hundredths of a millisecond each.
    folded = {name.casefold(): name for name in names} if len(names) <= _MAX_COMPARED else {}
    near = difflib.get_close_matches(text.casefold(), folded, n=3, cutoff=0.5)
    hint = f"; near it are {', '.join(repr(folded[name]) for name in near)}" if near else ""
    raise csvfile.field_error(
        path,
        line,
        "step",
        f"{files.shorten(text)} is no step of procedure {procedure.name!r}{hint} "
        "(python -m stormpsr_jax.procedure show FILE lists them)",
    )


def to_frames(
    path: str | os.PathLike,
    timed: Sequence[TimedStep],
    initial_state: Sequence[int],
    procedure: Procedure,
    *,
    fps: float | None = None,
    first_frame: int = 0,
    num_frames: int | None = None,
) -> tuple[tuple[int, ...], list[Step]]:
    """Converts times to frames, and checks that each step changes its component.

    Args:
        path: of the file, for messages.
        timed: of `read_times`.
        initial_state: K values before the first step.
        procedure: names the steps.
        fps: frames per second, None for the procedure's.
        first_frame: the frame at time 0.
        num_frames: of the recording; None if it is not known.

    Returns:
        the state at the first frame, which is the initial one but for steps at that frame, and the
        steps after it, [(frame, step id)] in order of time.

    Raises:
        ValueError: all mistakes, each with file, line and field.
    """
    fps = procedure.fps if fps is None else fps
    last = csvfile.MAX_FRAME if num_frames is None else first_frame + num_frames - 1
    state, first_state = list(initial_state), list(initial_state)
    since: dict[int, tuple[str, int | None]]
    since = dict.fromkeys(range(len(state)), ("from the start", None))
    steps: list[Step] = []
    mistakes: list[str] = []
    for step in timed:
        # A millionth: 2.2 · 5 = 11.000000000000002.
        frame = first_frame + math.ceil(step.time * fps - 1e-6)
        k, value = step.step_id // 3, _VALUES[step.step_id % 3]
        when, at = since[k]
        name = f"{step.step_id} ({procedure.step_name(step.step_id)})"
        field, what = "step", ""
        if frame > csvfile.MAX_FRAME:
            field = "time"
            what = f"{step.time:g} s is after frame {csvfile.MAX_FRAME:,}, the last there may be"
        elif frame > last + 1:
            field = "time"
            end = (last + 1 - first_frame) / fps
            what = f"{step.time:g} s is after the end of the recording, {end:.1f} s"
        elif value == state[k]:
            what = f"{name} changes nothing: it is {_ALREADY[value]} {when}"
        elif min(frame, last) == at:
            what = f"{name} falls into the same frame as the one of the same component {when}"
        if what:
            note(mistakes, csvfile.field_error(path, step.line, field, what))
            continue
        frame = min(frame, last)
        state[k], since[k] = value, (f"since line {step.line}", frame)
        if frame == first_frame:
            first_state[k] = value
        else:
            steps.append((frame, step.step_id))
    raise_all(mistakes)
    return tuple(first_state), steps
