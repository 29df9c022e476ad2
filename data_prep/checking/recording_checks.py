"""Finds what is wrong with one recording of a folder of clip shards: its labels and its shard."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import simplejpeg
import tqdm
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from data_prep.checking.checked import Checked
from data_prep.checking.statistics import completed_steps
from data_prep.reading.recording_labels import agree
from stormpsr_jax.base import files, memory, npy
from stormpsr_jax.data.annotation import NOT_ANNOTATED, LabelledFrames
from stormpsr_jax.data.clips import READER_OPTIONS, count_records
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.files.labels import Step
from stormpsr_jax.psr.procedure import Procedure

T = TypeVar("T")

SAMPLED_RECORDS = 5  # of a recording, evenly spread, the first and the last among them
MAX_RANGES = 8  # of frames, in one line
REMAKE = "delete this shard and run the same data_prep command again, which makes only it"


@dataclasses.dataclass
class Expected:
    """What the label files say of a recording.

    Attributes:
        recording: its labels.
        num_records: of its shard.
        steps: (frame, step id) of PSR_labels.csv and the incorrect installations of
            PSR_labels_with_errors.csv; None if these files cannot be read.
        sound: its values are possible ones, so that they can be counted.
    """

    recording: LabelledFrames
    num_records: int
    steps: list[Step] | None = None
    sound: bool = True


def frame_ranges(frames: Sequence[int] | np.ndarray) -> str:
    """Names frame numbers for people: "frame 7" or "frames 1…4, 9"."""
    frames = np.unique(np.asarray(frames, np.int64))
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}…{run[-1]}" for run in runs]
    if len(texts) > MAX_RANGES:
        texts[MAX_RANGES:] = [f"{len(texts) - MAX_RANGES} more ranges"]
    return f"frame{'s' if len(frames) > 1 else ''} {', '.join(texts)}"


def check_labels(
    folder: Path, where: str, of_split: Expected | None, checked: Checked
) -> Expected | None:
    """Checks the label files of a recording against each other and against the procedure.

    Args:
        folder: `labels/<split>/<recording>`.
        where: split/recording, for messages.
        of_split: what `labels/<split>.npz` says.
        checked: collects what is found.

    Returns:
        The labels to hold the shard against; None if no file gives them.
    """
    remedy = f"delete {folder} and the recording's shard, then run the same data_prep command again"
    own = _read_frames(folder, where, remedy, checked)
    if of_split is not None and (mistake := _shape_mistake(of_split.recording, checked.procedure)):
        checked.problems.append(f"{where}: labels of the split: {mistake}; {remedy}")
        of_split = None
    if own is not None and of_split is not None:
        for what in _differences(own, of_split):
            checked.problems.append(
                f"{where}: {what} in frames.npz differ from labels/{where.split('/')[0]}.npz; "
                f"delete the latter and dataset_info.json, or {remedy}"
            )
    found = own or of_split
    if found is None:
        return None
    found.sound = _check_values(found.recording, where, remedy, checked)
    records = math.ceil(found.recording.num_frames / checked.clip_length)
    if found.num_records != records:
        checked.problems.append(
            f"{where}: num_records is {found.num_records}, but {found.recording.num_frames} frames "
            f"in clips of {checked.clip_length} are {records}; {remedy}"
        )
    found.steps = _check_csvs(folder, where, found.recording, remedy, checked)
    return found


def _read_frames(folder: Path, where: str, remedy: str, checked: Checked) -> Expected | None:
    path = folder / "frames.npz"
    if not path.exists():
        checked.problems.append(f"{path}: missing; {remedy}")
        return None
    try:
        files.check_regular(path, "remove it")
        with zipfile.ZipFile(path) as archive:  # compressed, little can be much
            memory.check_fits(sum(info.file_size for info in archive.infolist()), "what is in it")
        with np.load(path, allow_pickle=False, max_header_size=npy.MAX_HEADER) as file:
            first, records = int(file["first_frame"]), int(file["num_records"])
            arrays = [file[key] for key in ("states", "boxes", "classes", "visible")]
            arrays.append(file.get("poses"))  # renders have them
    except npy.UNREADABLE as error:
        checked.problems.append(f"{path}: not readable ({npy.reason(error)}); {remedy}")
        return None
    recording = LabelledFrames(where.split("/", 1)[1], first, *arrays)
    if mistake := _shape_mistake(recording, checked.procedure):
        checked.problems.append(f"{path}: {mistake}; {remedy}")
        return None
    return Expected(recording, records)


def _shape_mistake(recording: LabelledFrames, procedure: Procedure) -> str:
    """Says which array cannot be one of this procedure; '' if all can."""
    shapes = {
        "states": (len(recording.states), procedure.num_components),
        "boxes": (len(recording.states), 4),
        "classes": (len(recording.states),),
        "visible": (len(recording.states),),
        "poses": (len(recording.states), 6),
    }
    for key, shape in shapes.items():
        array = getattr(recording, key)
        if array.shape != shape or array.dtype.kind not in "if":
            return f"{key} have shape {array.shape} and type {array.dtype}, expected shape {shape}"
    return "" if len(recording.states) else "it has no frames"


def _differences(own: Expected, other: Expected) -> list[str]:
    a, b = own.recording, other.recording
    scalars = {
        "first frames": (a.first_frame, b.first_frame),
        "numbers of frames": (a.num_frames, b.num_frames),
        "numbers of records": (own.num_records, other.num_records),
    }
    found = [f"the {key} ({x} and {y})" for key, (x, y) in scalars.items() if x != y]
    if a.num_frames == b.num_frames:
        for key in ("states", "boxes", "classes", "visible", "poses"):
            if (rows := _unequal(getattr(a, key), getattr(b, key))).any():
                found.append(f"{key} of {frame_ranges(a.first_frame + np.flatnonzero(rows))}")
    return found


def _unequal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) bool: rows that differ; NaN equals NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    differ = (a != b) & ~(np.isnan(a) & np.isnan(b))
    return differ.reshape(len(differ), -1).any(axis=1)


def _check_values(recording: LabelledFrames, where: str, remedy: str, checked: Checked) -> bool:
    """States, boxes, classes and visible fractions make sense; says whether they do."""
    r, procedure = recording, checked.procedure
    known = np.isfinite(r.boxes).all(axis=1)
    boxed = r.classes >= 0
    low, high = r.boxes[:, :2] - r.boxes[:, 2:] / 2, r.boxes[:, :2] + r.boxes[:, 2:] / 2
    rows = {
        "states have values other than -1, 0 and 1": ((r.states < -1) | (r.states > 1)).any(axis=1),
        f"classes are outside {NOT_ANNOTATED}…{procedure.error_class}": (r.classes < NOT_ANNOTATED)
        | (r.classes > procedure.error_class),
        "visible fractions are outside 0…1": (r.visible < 0) | (r.visible > 1),
        "boxes have NaN beside numbers": np.isnan(r.boxes).any(axis=1)
        & ~np.isnan(r.boxes).all(axis=1),
        "boxes have numbers outside 0…1": ((r.boxes < 0) | (r.boxes > 1)).any(axis=1),
        "boxes have no width or no height": (r.boxes[:, 2:] <= 0).any(axis=1),
        "a box without a class": known & ~boxed,
        "a class without a box": boxed & np.isnan(r.boxes).all(axis=1),
    }
    for what, at in rows.items():
        if at.any():
            frames = frame_ranges(r.first_frame + np.flatnonzero(at))
            checked.problems.append(f"{where}: {frames}: {what}; {remedy}")
    if any(at.any() for at in rows.values()):
        return False
    pixel = 1 / np.array(checked.image_size[::-1])
    outside = known & ((low < -pixel) | (high > 1 + pixel)).any(axis=1)
    other = boxed & ~agree(r.classes, procedure.state_classes(r.states), procedure)
    notes = {
        "boxes reach out of the picture by more than a pixel": outside,
        "boxes are of another assembly state than the frame's state vector": other,
    }
    for what, at in notes.items():
        if at.any():
            frames = frame_ranges(r.first_frame + np.flatnonzero(at))
            checked.warnings.append(f"{where}: {at.sum()} {what} ({frames})")
    return True


def _check_csvs(
    folder: Path, where: str, recording: LabelledFrames, remedy: str, checked: Checked
) -> list[Step] | None:
    """The label CSVs fit the procedure and the states of the frames; returns their steps."""
    procedure = checked.procedure
    first, last = recording.first_frame, recording.first_frame + recording.num_frames - 1

    def read(file: str, reader: Callable[[Path, Procedure], T]) -> T | None:
        try:
            return reader(folder / file, procedure)
        except ValueError as error:
            checked.problems.append(f"{error}; {remedy}")
            return None

    raw = read("PSR_labels_raw.csv", labels.read_states)
    right = read("PSR_labels.csv", labels.read_steps)
    with_wrong = read("PSR_labels_with_errors.csv", labels.read_steps)
    if raw is not None:
        there = labels.states_per_frame(*raw, first, recording.num_frames)
        if (rows := _unequal(there, recording.states)).any():
            checked.problems.append(
                f"{where}: PSR_labels_raw.csv: {frame_ranges(first + np.flatnonzero(rows))} have "
                f"other states than in the shards; {remedy}"
            )
    of_states = completed_steps(recording)
    for file, steps, with_errors in (
        ("PSR_labels.csv", right, False),
        ("PSR_labels_with_errors.csv", with_wrong, True),
    ):
        if steps is None:
            continue
        if outside := [frame for frame, _ in steps if not first <= frame <= last]:
            checked.problems.append(
                f"{where}: {file}: {frame_ranges(outside)}: steps outside of the recording, "
                f"{first}…{last}; mend the label file that it came from, then {remedy}"
            )
        expected = {s for s in of_states if with_errors or s[1] % 3 != 1}
        if with_errors:  # where 1 becomes -1, authors list the incorrect installation alone
            expected -= {(at, step + 1) for at, step in expected if step % 3 == 1} - {*steps}
        _compare_steps(f"{where}: {file}", set(steps), expected, procedure, checked)
    if right is None or with_wrong is None:
        return None
    return sorted({*right, *(step for step in with_wrong if step[1] % 3 == 1)})


def _compare_steps(
    where: str, there: set[Step], expected: set[Step], procedure: Procedure, checked: Checked
) -> None:
    """Warns of rows that are not the changes between the states, as in some shipped labels."""
    for what, rows in (
        ("rows without a change of state", there - expected),
        ("changes of state without a row", expected - there),
    ):
        if rows:
            listed = [f"{frame} {procedure.step_name(step)}" for frame, step in sorted(rows)]
            listed[MAX_RANGES:] = [f"{len(rows) - MAX_RANGES} more"] if listed[MAX_RANGES:] else []
            checked.warnings.append(
                f"{where}: {len(rows)} {what}: {'; '.join(listed)}. Evaluation follows this file, "
                "training follows the states"
            )


def check_shard(
    path: Path,
    where: str,
    expected: Expected,
    checked: Checked,
    everything: bool,
    bar: tqdm.tqdm,
) -> np.ndarray:
    """Reads a shard and holds it against the labels.

    Args:
        path: the shard.
        where: split/recording, for messages.
        expected: its labels.
        checked: collects what is found.
        everything: read all records and decode all pictures, not a sample.
        bar: is moved on by the frames of the recording.

    Returns:
        (M,) uint64 hashes of the pictures that were read; of a sample, those at fixed places.
    """
    recording = expected.recording
    num_records = count_records(path)
    hashes: list[int] = []
    if num_records != expected.num_records:
        checked.problems.append(
            f"{path}: {where} has {num_records} records instead of {expected.num_records}: the "
            f"file is damaged or of another run; {REMAKE}"
        )
        bar.update(recording.num_frames)
        return np.array(hashes, np.uint64)
    reader = array_record_module.ArrayRecordReader(str(path), READER_OPTIONS)
    wanted = np.arange(num_records)
    if not everything:
        wanted = np.unique(np.linspace(0, num_records - 1, SAMPLED_RECORDS).round().astype(int))
        bar.update(recording.num_frames)
    wrong: dict[str, list[int]] = {}  # frames by what is wrong with them
    for index in wanted.tolist():
        start = index * checked.clip_length
        rows = np.arange(start, min(start + checked.clip_length, recording.num_frames))
        frames = recording.first_frame + rows
        try:
            data = reader.read([index])[0]
        except RuntimeError as error:
            message = f"record {index} cannot be read ({str(error).split(' (')[0][:80]})"
            wrong.setdefault(message, []).extend(frames.tolist())
            continue
        jpegs = _check_record(data, recording, rows, wrong)
        for i in range(len(jpegs)) if everything else sorted({0, len(jpegs) - 1} & {*rows - start}):
            if mistake := _picture_mistake(jpegs[i], checked.image_size):
                wrong.setdefault(mistake, []).append(int(frames[0]) + i)
            digest = hashlib.blake2b(jpegs[i], digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "big"))
        if everything:
            bar.update(len(rows))
    reader.close()
    checked.num_decoded += len(hashes)
    for what, at in wrong.items():
        checked.problems.append(f"{path}: {where}: {frame_ranges(at)}: {what}; {REMAKE}")
    return np.array(hashes, np.uint64)


def _check_record(
    data: bytes, recording: LabelledFrames, rows: np.ndarray, wrong: dict[str, list[int]]
) -> Sequence[bytes]:
    """Compares a record with the labels of its frames; returns its pictures."""
    frames = (recording.first_frame + rows).tolist()

    def note(what: str, at: Sequence[int] = frames) -> None:
        wrong.setdefault(what, []).extend(at)

    try:
        feature = tf_example_pb2.Example.FromString(data).features.feature
        name = feature["recording"].bytes_list.value[0].decode("utf-8")
        first = feature["first_frame"].int64_list.value[0]
        arrays = {
            "states": np.array(feature["state"].int64_list.value).reshape(len(rows), -1),
            "boxes": np.array(feature["box"].float_list.value).reshape(len(rows), -1),
            "classes": np.array(feature["asd_class"].int64_list.value),
            "visible": np.array(feature["visible"].float_list.value),
        }
        jpegs = feature["jpeg"].bytes_list.value
    except Exception as error:  # protobuf has errors of its own, by implementation
        note(f"not a clip of this many frames ({type(error).__name__})")
        return []
    if name != recording.name:
        note(f"the record says that it is of recording {name!r}")
    if first != frames[0]:
        note(f"the record's first frame is {first} instead of {frames[0]}")
    for key, there in arrays.items():
        expected = getattr(recording, key)[rows]
        if there.shape != expected.shape:
            note(f"{key} have shape {there.shape} instead of {expected.shape}")
        elif (differ := _unequal(there, expected)).any():
            note(f"{key} differ from the label files", [frames[i] for i in np.flatnonzero(differ)])
    if len(jpegs) != len(rows):
        note(f"the record has {len(jpegs)} pictures instead of {len(rows)}")
    return jpegs[: len(rows)]


def _picture_mistake(jpeg: bytes, image_size: tuple[int, int]) -> str:
    """Says what is wrong with a picture; '' if it can be decoded and has the right size."""
    try:
        height, width = simplejpeg.decode_jpeg(jpeg, strict=True).shape[:2]
    except ValueError as error:
        return f"not a readable JPEG ({error})"
    if (height, width) != image_size:
        wanted = "x".join(map(str, image_size))
        return f"the picture is {height}x{width} (HxW) instead of {wanted}"
    return ""
