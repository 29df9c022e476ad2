"""Writes one recording: a shard of ArrayRecord records and label files, in a folder of its name."""

import contextlib
import dataclasses
import errno
import itertools
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from stormpsr_jax.base import files
from stormpsr_jax.data.clips import count_records
from stormpsr_jax.recordings import labels, predictions
from stormpsr_jax.recordings.labels import Step, states_to_steps
from stormpsr_jax.recordings.procedure import Procedure

# Random access wants one record per chunk; JPEGs do not compress any further.
WRITER_OPTIONS = "group_size:1,uncompressed"
SHARD, ARRAYS = "clips.array_record", "frames.npz"  # in the folder of a recording


@dataclasses.dataclass
class RecordingData:
    """A recording to be written: N frames and their labels.

    What a picture shows may be known only once it is rendered: row i of `boxes`, `classes` and
    `visible` has to be right from when picture i has been given on.

    Attributes:
        first_frame: number of the first frame; the others follow without gaps.
        jpegs: N JPEG files, all of one size; consumed once, never held all at once.
        states: (N, K) values in {-1, 0, 1}.
        boxes: (N, 4) cx, cy, w, h in 0…1; NaN where there is none.
        classes: (N,) of a box 0 uncatalogued, 1…S assembly state, S + 1 error state; without one
            EMPTY (-1: somebody looked, no whole object is there) or NOT_ANNOTATED (-2).
        visible: (N,) visible fraction of the object; NaN where unknown.
        poses: (N, 6) how the product lies in a render, see `annotation.LabelledFrames`; None of
            recordings, of which nobody knows it. In the label files alone.
        label_files: of PSR_FILES, those that a data set ships; they are kept byte for byte.
            The others are derived from `states`, which a PSR_labels_raw.csv has to agree with.
        visible_from: of a render, see `predictions.read_visible_from`; None where nobody knows it.
    """

    name: str
    first_frame: int
    jpegs: Iterable[bytes]
    states: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    visible: np.ndarray
    poses: np.ndarray | None = None
    label_files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    visible_from: Mapping[Step, int | None] | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """A recording to make, and the folder that it becomes."""

    out: Path
    split: str
    name: str
    procedure: Procedure
    clip_length: int

    @property
    def folder(self) -> Path:
        """Where it is until all recordings are there."""
        return self.out / "recordings" / self.name

    def __str__(self) -> str:
        return f"recording {self.split}/{self.name}"


def features(num_components: int) -> tfds.features.FeaturesDict:
    """The features of a record, a clip of T frames of one recording.

    The frames stay encoded (a sequence of bytes), so that a reader decodes only what it needs.
    """
    f = tfds.features
    return f.FeaturesDict(
        {
            "recording": f.Text(),
            "first_frame": f.Scalar(np.int64),
            "jpeg": f.Sequence(f.Text(doc="T JPEG files")),
            "state": f.Tensor(shape=(None, num_components), dtype=np.int8),
            "box": f.Tensor(shape=(None, 4), dtype=np.float32),
            "asd_class": f.Tensor(shape=(None,), dtype=np.int16),
            "visible": f.Tensor(shape=(None,), dtype=np.float32),
        }
    )


def write(job: Job, *, make: Callable[[str, str], RecordingData]) -> None:
    """Makes a recording, by its split and name, and writes its folder."""
    data = make(job.split, job.name)
    # No other process, on any machine, has the same folder until it is whole.
    with files.replacing_folder(job.folder, f"{socket.gethostname()}.{os.getpid()}") as folder:
        sizes = _write_shard(folder / SHARD, data, job)
        arrays: dict[str, Any] = _stored_labels(data, slice(None))
        scalars = {"first_frame": data.first_frame, **sizes}
        arrays |= {key: np.array(value, np.int64) for key, value in scalars.items()}
        _write_labels(folder, arrays, data, job.procedure)
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # a power cut must not truncate what has its name


def is_finished(shard: Path, labels: Path) -> bool:
    """Says whether all of a recording is there, and its labels, in a folder, can be read."""
    if not shard.exists() or not (labels / ARRAYS).exists():
        return False
    try:
        return count_records(shard) == int(read_arrays(labels)["num_records"])
    except files.UNREADABLE:
        return False


def read_arrays(labels: Path) -> dict[str, np.ndarray]:
    """Returns the frames.npz of a finished recording."""
    with np.load(labels / ARRAYS, allow_pickle=False) as file:
        return dict(file)


def _stored_labels(data: RecordingData, rows: slice) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {
        "states": np.asarray(data.states[rows], np.int8),
        "boxes": np.asarray(data.boxes[rows], np.float32),
        "classes": np.asarray(data.classes[rows], np.int16),
        "visible": np.asarray(data.visible[rows], np.float32),
    }
    if data.poses is not None:
        arrays["poses"] = np.asarray(data.poses[rows], np.float32)
    return arrays


def _write_shard(path: Path, data: RecordingData, job: Job) -> dict[str, int]:
    spec = features(job.procedure.num_components)
    serializer = ExampleSerializer(spec.get_serialized_info())
    clip_length = job.clip_length
    frames = _counted_frames(data)
    num_records = num_bytes = 0
    with _open_writer(path) as writer:
        while jpegs := list(itertools.islice(frames, clip_length)):
            start = num_records * clip_length
            arrays = _stored_labels(data, slice(start, start + len(jpegs)))
            example = {
                "recording": data.name,
                "first_frame": data.first_frame + start,
                "jpeg": jpegs,
                "state": arrays["states"],
                "box": arrays["boxes"],
                "asd_class": arrays["classes"],
                "visible": arrays["visible"],
            }
            message = serializer.get_tf_example(spec.encode_example(example))
            # A map's order is left open by protobuf unless asked for.
            record = message.SerializeToString(deterministic=True)
            writer.write(record)
            num_records += 1
            num_bytes += len(record)
    return {"num_records": num_records, "num_bytes": num_bytes}


def _counted_frames(data: RecordingData) -> Iterator[bytes]:
    """Yields the JPEGs; ValueError if there are too few or too many, as of a damaged video."""
    count, num_frames = 0, len(data.states)
    for jpeg in data.jpegs:
        count += 1
        if count > num_frames:
            raise ValueError(f"it has more images than its {num_frames} labelled frames")
        yield jpeg
    if count < num_frames:
        raise ValueError(f"it has {count} images for its {num_frames} labelled frames")


@contextlib.contextmanager
def _open_writer(path: Path) -> Iterator[array_record_module.ArrayRecordWriter]:
    """Opens a shard; array_record's RuntimeError about a full disk becomes the OSError it is."""
    try:
        writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
        try:
            yield writer
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the first error is the one to report
                writer.close()
            raise
        writer.close()
    except RuntimeError as error:
        for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _write_labels(
    folder: Path, arrays: dict[str, Any], data: RecordingData, procedure: Procedure
) -> None:
    states, first_frame = arrays["states"], int(arrays["first_frame"])
    changes = np.flatnonzero((states[1:] != states[:-1]).any(axis=1)) + 1
    rows = np.concatenate([[0], changes])
    frames = first_frame + rows
    labels.write_states(folder / "PSR_labels_raw.csv", frames, states[rows])
    for file, with_errors in (("PSR_labels.csv", False), ("PSR_labels_with_errors.csv", True)):
        steps = states_to_steps(frames, states[rows], with_errors=with_errors)
        labels.write_steps(folder / file, steps, procedure)
    for file, content in data.label_files.items():
        (folder / file).write_bytes(content)
    if data.visible_from is not None:
        predictions.write_visible_from(folder / predictions.VISIBLE_FROM, data.visible_from)
    np.savez(folder / ARRAYS, **arrays)  # its zip members carry a constant time
