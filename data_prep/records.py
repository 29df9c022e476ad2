"""Writes one recording as a shard of ArrayRecord records, with its label files."""

import contextlib
import dataclasses
import errno
import fcntl
import io
import itertools
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from data_prep import parallel
from stormpsr_jax.data.clips import count_records
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.procedure import Procedure

# Random access wants one record per chunk; JPEGs do not compress any further.
WRITER_OPTIONS = "group_size:1,uncompressed"
# Records of an unfinished recording; a folder, so that no listing of shards can meet them.
UNFINISHED = "unfinished"
LABEL_FILES = ("PSR_labels.csv", "PSR_labels_with_errors.csv", "PSR_labels_raw.csv")


@dataclasses.dataclass
class RecordingData:
    """A recording to be written: N frames and their labels.

    Attributes:
        name: of the recording.
        first_frame: number of the first frame; the others follow without gaps.
        jpegs: N JPEG files, all of one size; consumed once, never held all at once.
        states: (N, K) values in {-1, 0, 1}.
        boxes: (N, 4) cx, cy, w, h in 0…1; NaN where not annotated.
        classes: (N,) -1 not annotated, 0 uncatalogued, 1…S assembly state, S + 1 error state.
        visible: (N,) visible fraction of the object; NaN where unknown.
        label_files: of LABEL_FILES, those that a data set ships; they are kept byte for byte.
            The others are derived from `states`, which a PSR_labels_raw.csv has to agree with.
    """

    name: str
    first_frame: int
    jpegs: Iterable[bytes]
    states: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    visible: np.ndarray
    label_files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Job:
    """A recording to make, and where it goes."""

    out: Path
    split: str
    name: str
    shard: Path
    procedure: Procedure
    description: dict[str, Any]

    @property
    def labels(self) -> Path:
        """Folder of the label files."""
        return self.out / "labels" / self.split / self.name

    def __str__(self) -> str:
        return f"recording {self.split}/{self.name}"


def features(num_components: int) -> tfds.features.FeaturesDict:
    """Returns the features of a record, a clip of T frames of one recording.

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


def make_recording(
    make: Callable[[str, str], RecordingData], job: Job, progress: parallel.Progress
) -> None:
    """Makes one recording: its label files, and last of all its shard under its name.

    Makes nothing if another run has made it meanwhile or is making it.
    """
    with lock(job.out, job.shard.name, wait=False) as free:
        if not free or is_finished(job):
            progress.begin(0)
            return
        data = make(job.split, job.name)
        arrays = _checked_labels(data, job)
        progress.begin(len(arrays["states"]))
        with unfinished(job.out, job.shard) as path:
            arrays |= _write_shard(path, data, arrays, job, progress)
            _write_labels(job, arrays, data.label_files)


def is_finished(job: Job) -> bool:
    """Says whether all of a recording is there."""
    if not job.shard.exists() or not (job.labels / "frames.npz").exists():
        return False
    return count_records(job.shard) == read_arrays(job)["num_records"]


def read_arrays(job: Job) -> dict[str, np.ndarray]:
    """Returns the frames.npz of a finished recording."""
    with np.load(job.labels / "frames.npz", allow_pickle=False) as file:
        return dict(file)


def _checked_labels(data: RecordingData, job: Job) -> dict[str, np.ndarray]:
    """Returns the labels as they are stored; ValueError if they do not fit each other."""
    if data.name != job.name:
        raise ValueError(f"make returned recording {data.name!r}")
    states = np.asarray(data.states, np.int8)
    num_frames = len(states)
    shapes = {
        "states": (num_frames, job.procedure.num_components),
        "boxes": (num_frames, 4),
        "classes": (num_frames,),
        "visible": (num_frames,),
    }
    arrays = {
        "states": states,
        "boxes": np.asarray(data.boxes, np.float32),
        "classes": np.asarray(data.classes, np.int16),
        "visible": np.asarray(data.visible, np.float32),
    }
    if not num_frames:
        raise ValueError("it has no frames")
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise ValueError(f"{key} have shape {arrays[key].shape}, expected {shape}")
    allowed = {"states": (-1, 1), "boxes": (0, 1), "visible": (0, 1)}
    allowed["classes"] = (-1, job.procedure.error_class)
    for key, (low, high) in allowed.items():
        outside = (arrays[key] < low) | (arrays[key] > high)  # NaN: not annotated
        if outside.any():
            frame = data.first_frame + int(np.argwhere(outside)[0][0])
            raise ValueError(f"{key} of frame {frame} are outside {low}…{high}")
    return arrays | {"first_frame": np.int64(data.first_frame)}


def _write_shard(
    path: Path,
    data: RecordingData,
    arrays: dict[str, np.ndarray],
    job: Job,
    progress: parallel.Progress,
) -> dict[str, int]:
    """Writes the records; returns their number and total size in bytes."""
    spec = features(job.procedure.num_components)
    serializer = ExampleSerializer(spec.get_serialized_info())
    clip_length = job.description["clip_length"]
    frames = _checked_frames(data, len(arrays["states"]), job.description["image_size"], progress)
    num_records = num_bytes = 0
    with _disk_errors(path), _open_writer(path) as writer:
        while jpegs := list(itertools.islice(frames, clip_length)):
            start = num_records * clip_length
            clip = slice(start, start + len(jpegs))
            example = {
                "recording": data.name,
                "first_frame": data.first_frame + start,
                "jpeg": jpegs,
                "state": arrays["states"][clip],
                "box": arrays["boxes"][clip],
                "asd_class": arrays["classes"][clip],
                "visible": arrays["visible"][clip],
            }
            message = serializer.get_tf_example(spec.encode_example(example))
            # A map's order is left open by protobuf unless asked for.
            record = message.SerializeToString(deterministic=True)
            writer.write(record)
            num_records += 1
            num_bytes += len(record)
    if count_records(path) != num_records:
        raise OSError(errno.EIO, "the shard could not be read back", str(path))
    return {"num_records": num_records, "num_bytes": num_bytes}


def _checked_frames(
    data: RecordingData, num_frames: int, image_size: Sequence[int], progress: parallel.Progress
) -> Iterator[bytes]:
    """Yields the JPEGs; ValueError if one has another size, or there are too few or too many."""
    count = 0
    for jpeg in data.jpegs:
        frame = data.first_frame + count
        if count == num_frames:
            raise ValueError(f"it has more images than its {num_frames} labelled frames")
        try:
            size = simplejpeg.decode_jpeg_header(jpeg)[:2]
        except ValueError as error:
            raise ValueError(f"frame {frame} is not a JPEG ({error})") from error
        if list(size) != list(image_size):
            wanted = "x".join(map(str, image_size))
            raise ValueError(f"frame {frame} is {size[0]}x{size[1]} (HxW), image_size is {wanted}")
        yield jpeg
        count += 1
        progress.advance()
    if count < num_frames:
        raise ValueError(f"it has {count} images for its {num_frames} labelled frames")


@contextlib.contextmanager
def _open_writer(path: Path) -> Iterator[array_record_module.ArrayRecordWriter]:
    writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
    try:
        yield writer
    except BaseException:
        with contextlib.suppress(RuntimeError):  # the first error is the one to report
            writer.close()
        raise
    writer.close()


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turns array_record's RuntimeError about a full disk into the OSError it stands for."""
    try:
        yield
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _write_labels(job: Job, arrays: dict[str, np.ndarray], shipped: Mapping[str, bytes]) -> None:
    """Writes the label CSVs and frames.npz of a recording."""
    job.labels.mkdir(parents=True, exist_ok=True)
    states, first_frame = arrays["states"], int(arrays["first_frame"])
    changes = np.flatnonzero((states[1:] != states[:-1]).any(axis=1)) + 1
    rows = np.concatenate([[0], changes])
    frames = first_frame + rows
    labels.write_states(job.labels / "PSR_labels_raw.csv", frames, states[rows])
    for file, with_errors in (("PSR_labels.csv", False), ("PSR_labels_with_errors.csv", True)):
        steps = labels.states_to_steps(frames, states[rows], with_errors=with_errors)
        labels.write_steps(job.labels / file, steps, job.procedure)
    for file, content in shipped.items():
        if file not in LABEL_FILES:
            raise ValueError(f"label_files: {file!r} is not one of {', '.join(LABEL_FILES)}")
        (job.labels / file).write_bytes(content)
    if "PSR_labels_raw.csv" in shipped:
        shipped_rows = labels.read_states(job.labels / "PSR_labels_raw.csv", job.procedure)
        differs = labels.states_per_frame(*shipped_rows, first_frame, len(states)) != states
        if differs.any():
            frame = first_frame + int(np.argwhere(differs)[0][0])
            raise ValueError(f"PSR_labels_raw.csv gives frame {frame} another state than `states`")
    write_arrays(job.out, job.labels / "frames.npz", **arrays)


def _owner() -> str:
    """Returns a suffix for temporary files that no other process, on any machine, uses now."""
    return f"{socket.gethostname()}.{os.getpid()}"


@contextlib.contextmanager
def unfinished(out: Path, final: Path) -> Iterator[Path]:
    """Gives a path to write a file to, which becomes `final` if all goes well, and else goes.

    The file is locked meanwhile: that is how remove_leftovers tells it from one whose process
    was killed.
    """
    path = out / UNFINISHED / f"{final.name}.{_owner()}"
    with _open_locked(path, wait=True) as file:
        file.truncate(0)  # a killed process of the same number may have left something
        try:
            yield path
            os.fsync(file.fileno())  # before it gets its name: a power cut must not truncate it
            os.replace(path, final)
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(out: Path, name: str, wait: bool) -> Iterator[bool]:
    """Holds the lock `name` of folder `out`, which one process has at a time, on any machine.

    Gives False, and holds nothing, if another process has it and `wait` is false. On a network
    disk without locks everybody gets it: work is then done twice, with the same result.
    """
    path = out / UNFINISHED / f"{name}.lock"
    file = _open_locked(path, wait)
    if file is None:
        yield False
        return
    with file:
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _open_locked(path: Path, wait: bool) -> io.BufferedRandom | None:
    """Opens and locks a file of folder UNFINISHED; None if it is locked and `wait` is false."""
    for attempt in itertools.count(1):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab+")
        except (FileNotFoundError, FileExistsError):
            if attempt == 1000:
                raise
            continue  # another process has just removed the empty folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a network disk without locks
            return file
        if _still_there(file, path):
            return file
        file.close()


def _still_there(file: BinaryIO, path: Path) -> bool:
    """Says whether `path` is the open file yet, which another process may have removed.

    It can between opening and locking; once it is locked here, only this process removes it.
    """
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def remove_leftovers(out: Path) -> None:
    """Removes the unfinished files of killed processes, and their folder when it is empty."""
    try:
        paths = list((out / UNFINISHED).iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: somebody is writing it
            if _still_there(file, path):  # or a file that another process made since is removed
                path.unlink()
    with contextlib.suppress(OSError):
        (out / UNFINISHED).rmdir()


def write_atomically(out: Path, final: Path, content: bytes) -> None:
    """Writes a file in folder `out` that is never seen half-written under its name."""
    with unfinished(out, final) as path:
        path.write_bytes(content)


def write_arrays(out: Path, final: Path, **arrays: Any) -> None:
    """Writes an .npz file, atomically; the same arrays give the same bytes."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # its zip members carry a constant time
    write_atomically(out, final, content.getvalue())
