"""Labels of a user's own recordings: PSR label files, or a CSV of times or of intervals.

A CSV of times begins with the header `time,step`, one of intervals with `start,end,step`; then a
step is complete at its end. Times are seconds, or m:ss or h:mm:ss with a decimal point, from the
first picture of the recording on. A step is its id or its name as `stormpsr_jax.procedure show`
prints it. Rows may be in any order, other columns are not read, and files that a spreadsheet has
saved with semicolons and decimal commas are understood.

A completion counts from the first frame at or after its time; the last frame stands for one that
comes less than a frame after it.
"""

import dataclasses
import difflib
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from data_prep import asd_labels, recorded
from data_prep.layout import Format, Place, Recording
from data_prep.recorded import Labels
from data_prep.trees import join
from stormpsr_jax.psr import csvfile, labels
from stormpsr_jax.psr.procedure import Procedure

FORMAT = Format("own recordings", 0, asd_labels.read_coco_boxes, "--videos")

_NUMBERED = re.compile(r"(?:.*[^0-9])?([0-9]{1,9})\.txt", re.ASCII | re.IGNORECASE | re.DOTALL)
_TIME = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:\.[0-9]*)?)", re.ASCII)
_VALUES = (1, -1, 0)  # of a component after step 3k, 3k + 1, 3k + 2
_ALREADY = {1: "installed", -1: "incorrectly installed", 0: "absent"}


@dataclasses.dataclass(frozen=True)
class _TimedStep:
    """A row of a CSV: step `step_id` is complete at `time` seconds."""

    time: float
    line: int
    step_id: int


def read_labels(recording: Recording, procedure: Procedure) -> Labels:
    """Reads the labels and boxes of a recording.

    Args:
        recording: its `labels` are a folder of PSR label files or a CSV file, its `boxes` a COCO
            file or a folder of YOLO text files.
        procedure: with the frame rate of the recording.

    Raises:
        ValueError: the first mistake, with file, line and field.
    """
    _check_variant(recording.name, procedure)
    tree, name = recording.labels
    if tree.exists(name):
        known = _read_timed(recording, procedure)
    else:
        without = dataclasses.replace(recording, boxes=None)
        known = recorded.read_labels(FORMAT, without, procedure)
    if recording.boxes is None:
        return known
    boxes, digest = _read_boxes(recording.boxes)
    boxes.of_frames(recording.pictures.first_frame, recording.pictures.num_frames)
    return dataclasses.replace(known, boxes=boxes, digest=known.digest ^ digest)


def _check_variant(name: str, procedure: Procedure) -> None:
    try:
        procedure.variant_for(name)
    except ValueError as error:
        # There is no --variant here: training and scoring go by the globs too.
        raise ValueError(str(error).replace("pass --variant or ", "")) from error


def _read_timed(recording: Recording, procedure: Procedure) -> Labels:
    tree, name = recording.labels
    first = recording.pictures.first_frame
    with tree.on_disk(name) as path:
        timed = read_times(path, procedure)
        steps = _to_frames(path, timed, recording, procedure)
    initial = procedure.variant_for(recording.name).initial_state
    frames, states = labels.steps_to_states(steps, initial, first)
    derived = labels.states_to_steps(frames, states)
    return Labels(frames, states, derived, None, {}, zlib.crc32(tree.read(name)))


def read_times(path: Path, procedure: Procedure) -> list[_TimedStep]:
    """Reads a CSV of times or intervals, in order of the times.

    Raises:
        ValueError: naming file, line and field.
    """
    header = csvfile.read_text(path).partition("\n")[0]
    semicolons = ";" in header and "," not in header
    rows = csvfile.read_rows(path, ";" if semicolons else ",")
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    time_names = ("start", "end") if {"start", "end"} <= set(names) else ("time",)
    if not {*time_names, "step"} <= set(names) or ("time" in names and "end" in names):
        found = csvfile.shorten(",".join(names))
        raise ValueError(
            f"{path}: line 1: header: {found} is neither time,step nor start,end,step; put the one "
            "that fits as the first line (or give PSR_labels.csv in a folder of the recording's "
            "name)"
        )
    timed = []
    for line, row in rows[1:]:
        if not any(text.strip() for text in row):
            continue
        csvfile.check_width(path, line, row[: len(names)], names)
        field = dict(zip(names, row, strict=False))
        times = [_parse_time(field[n], semicolons, path, line, n) for n in time_names]
        if times[0] > times[-1]:
            what = f"{field['end'].strip()} is before the start, {field['start'].strip()}"
            raise csvfile.field_error(path, line, "end", what)
        step_id = _parse_step(field["step"], procedure, path, line)
        timed.append(_TimedStep(times[-1], line, step_id))
    if not timed:
        raise ValueError(f"{path}: has no steps")
    ordered = sorted(timed, key=lambda step: (step.time, step.line))
    if ordered != timed:
        logging.info("%s: rows are not in the order in which the steps end; sorted", path)
    return ordered


def _parse_time(text: str, decimal_comma: bool, path: Path, line: int, field: str) -> float:
    """Returns the seconds of 75.5, 1:15.5 or 0:01:15.5."""
    text = text.strip()
    match = _TIME.fullmatch(text.replace(",", ".") if decimal_comma else text)
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if (
        not match
        or (match[2] is not None and seconds >= 60)
        or (match[1] is not None and minutes >= 60)
    ):
        what = f"{csvfile.shorten(text)} is not a time such as 75.5, 1:15.5 or 0:01:15.5"
        raise csvfile.field_error(path, line, field, what)
    return 3600 * hours + 60 * minutes + seconds


def _parse_step(text: str, procedure: Procedure, path: Path, line: int) -> int:
    """Returns the id of a step given as id or name."""
    text = text.strip()
    count = 3 * procedure.num_components
    if re.fullmatch("[+-]?[0-9]+", text, re.ASCII):
        return csvfile.parse_integer(text, 0, count - 1, path, line, "step")
    names = {procedure.step_name(step_id): step_id for step_id in range(count)}
    if text in names:
        return names[text]
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(text.casefold(), folded, n=3, cutoff=0.5)
    hint = f"; near it are {', '.join(repr(folded[name]) for name in near)}" if near else ""
    raise csvfile.field_error(
        path,
        line,
        "step",
        f"{csvfile.shorten(text)} is no step of procedure {procedure.name!r}{hint} "
        "(python -m stormpsr_jax.procedure show FILE lists them)",
    )


def _to_frames(
    path: Path, timed: list[_TimedStep], recording: Recording, procedure: Procedure
) -> list[labels.Step]:
    """Returns (frame, step id), after checking that each step changes its component."""
    first = recording.pictures.first_frame
    last = first + recording.pictures.num_frames - 1
    state = list(procedure.variant_for(recording.name).initial_state)
    since = dict.fromkeys(range(len(state)), ("from the start", first))
    steps = []
    for step in timed:
        # A millionth: 2.2 · 5 = 11.000000000000002.
        frame = first + math.ceil(step.time * procedure.fps - 1e-6)
        if not first < frame <= last + 1:
            length = recording.pictures.num_frames / procedure.fps
            what = (
                f"{step.time:g} s is after the end of the recording, {length:.1f} s"
                if frame > last
                else "a step cannot be complete at the first frame, which shows the initial state "
                "of the procedure's variant"
            )
            raise csvfile.field_error(path, step.line, "time", what)
        frame = min(frame, last)
        k, value = step.step_id // 3, _VALUES[step.step_id % 3]
        when, at = since[k]
        name = f"{step.step_id} ({procedure.step_name(step.step_id)})"
        if value == state[k]:
            what = f"{name} changes nothing: it is {_ALREADY[value]} {when}"
            raise csvfile.field_error(path, step.line, "step", what)
        if frame == at:
            what = f"{name} falls into the same frame as the one of the same component {when}"
            raise csvfile.field_error(path, step.line, "step", what)
        state[k], since[k] = value, (f"since line {step.line}", frame)
        steps.append((frame, step.step_id))
    return steps


def _read_boxes(place: Place) -> tuple[asd_labels.Boxes, int]:
    """Returns the boxes of a COCO file or a folder of YOLO files, and a digest of the files."""
    tree, name = place
    if tree.exists(name):
        with tree.on_disk(name) as path:
            boxes = asd_labels.read_coco_boxes(path)
        # What a user calls the object says nothing about its state.
        boxes = dataclasses.replace(boxes, states=("",) * len(boxes.frames))
        return boxes, zlib.crc32(tree.read(name))
    paths: dict[int, Path] = {}
    digest = 0
    for file in tree.entries(name)[1]:
        if not (match := _NUMBERED.fullmatch(file)):  # such as classes.txt
            continue
        path = Path(tree.path, name, file)
        other = paths.setdefault(int(match[1]), path)
        if other != path:
            raise ValueError(f"{tree.show(name)}: {other.name} and {file} are the same frame")
        digest = zlib.crc32(tree.read(join(name, file)), zlib.crc32(file.encode(), digest))
    return asd_labels.read_yolo_boxes(paths), digest


def find_boxes(folder: str | Path, tree: Any) -> Mapping[str, Place]:
    """Finds <recording>.json (COCO) and folders <recording>/ of .txt files (YOLO).

    Raises:
        ValueError: there are none, or a recording has both.
    """
    found: dict[str, Place] = {}
    for place, _, files in tree.walk():
        entries = {file[: -len(".json")]: file for file in files if file.endswith(".json")}
        if place and any(map(_NUMBERED.fullmatch, files)):
            entries[place.split("/")[-1]] = ""
        for name, file in entries.items():
            where = join(place, file) if file else place
            if name in found:
                raise ValueError(
                    f"--boxes: {tree.show(found[name][1])} and {tree.show(where)} are of the same "
                    "recording"
                )
            found[name] = (tree, where)
    if not found:
        raise ValueError(
            f"--boxes={folder}: has neither <recording>.json (COCO) nor <recording>/*.txt (YOLO)"
        )
    return found
