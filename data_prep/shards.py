"""Writes a folder of clip shards: recordings as ArrayRecord files that tfds and array_record read.

A folder holds

* `procedure.json` and `settings.json`: what it was made from; written first and compared on every
  later run;
* `clips-<split>.array_record-<i>-of-<n>`: one shard per recording, in the order of their names.
  A record is a clip of `clip_length` consecutive frames (the last one may be shorter). A shard
  appears under its name only when it is complete, so its presence means: recording finished;
* `labels/<split>/<recording>/`: the label CSVs and `frames.npz`, the labels of every frame;
* `labels/<split>.npz`: the same for the whole split, so that opening it decodes nothing;
* `features.json` and, last of all, `dataset_info.json`: what tfds reads.

The same recordings give the same bytes, for any number of workers and of interruptions. Several
machines may fill one folder: each finished recording counts, whoever made it.
"""

import contextlib
import dataclasses
import errno
import functools
import glob
import io
import itertools
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core.dataset_info import DatasetIdentity
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from data_prep import parallel
from stormpsr_jax.data.clips import count_records, shard_name
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.procedure import Procedure

CLIP_LENGTH = 16
# Random access wants one record per chunk; JPEGs do not compress any further.
WRITER_OPTIONS = "group_size:1,uncompressed"
# Records of an unfinished recording; a folder, so that no listing of shards can meet them.
UNFINISHED = "unfinished"


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
    """

    name: str
    first_frame: int
    jpegs: Iterable[bytes]
    states: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    visible: np.ndarray


def build(
    out: str | Path,
    *,
    procedure: Procedure,
    fps: float,
    image_size: tuple[int, int],
    splits: Mapping[str, Sequence[str]],
    make: Callable[[str, str], RecordingData],
    clip_length: int = CLIP_LENGTH,
    workers: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Makes every recording that is not there yet, then writes what tfds needs to read them.

    Args:
        out: the folder; created if need be. Finished recordings in it are kept.
        procedure: of all the recordings.
        fps: frames per second of all the recordings.
        image_size: (H, W) of all the frames.
        splits: names of the recordings of each split; a split without any is left out.
        make: (split, name) -> RecordingData, the same whenever it is called. Picklable if
            workers > 1.
        clip_length: frames per record (benchmarks/clip_length.py).
        workers: processes that make recordings.
        settings: whatever else of the caller the recordings depend on, as JSON values; a later
            run into the same folder has to give the same.

    Raises:
        ValueError: a wrong argument, a recording that does not fit it (named), or a folder made
            with other arguments (says which).
        OSError: a full disk among others; what is unfinished does not count as finished.
        RuntimeError: anything else that went wrong with a recording, which is named.
    """
    out = Path(out)
    splits = {split: sorted(names) for split, names in sorted(splits.items()) if names}
    _check_splits(splits)
    for name, value in (("fps", fps), ("clip_length", clip_length), ("workers", workers)):
        if value <= 0:
            raise ValueError(f"{name} = {value!r} is not positive")
    description = {
        "fps": float(fps),
        "image_size": [int(size) for size in image_size],
        "clip_length": int(clip_length),
        "splits": splits,
        "settings": dict(settings or {}),
    }
    _claim_folder(out, procedure, description)
    jobs = [
        _Job(out, split, name, out / shard_name(split, index, len(names)), procedure, description)
        for split, names in splits.items()
        for index, name in enumerate(names)
    ]
    missing = [job for job in jobs if not _is_finished(job)]
    if not missing and (out / "dataset_info.json").is_file():
        return
    (out / "dataset_info.json").unlink(missing_ok=True)
    _remove_leftovers(out / UNFINISHED)
    if missing:
        desc = f"{len(missing)} of {len(jobs)} recordings to make"
        parallel.run(functools.partial(_make_recording, make), missing, workers, desc)
    for split in splits:
        _write_split_labels(out, split, [job for job in jobs if job.split == split])
    _write_dataset_info(out, procedure, jobs)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)


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


@dataclasses.dataclass(frozen=True)
class _Job:
    """A recording to make, and where it goes."""

    out: Path
    split: str
    name: str
    shard: Path
    procedure: Procedure
    description: dict[str, Any]

    @property
    def labels(self) -> Path:
        return self.out / "labels" / self.split / self.name

    def __str__(self) -> str:
        return f"recording {self.split}/{self.name}"


def _check_splits(splits: Mapping[str, Sequence[str]]) -> None:
    seen = {}
    if not splits:
        raise ValueError("splits: there is no recording in any of them")
    for split, names in splits.items():
        if not re.fullmatch(r"[A-Za-z0-9_]+", split):
            raise ValueError(f"split name {split!r}: use letters, digits and _ only")
        for name in names:
            if not re.fullmatch(r"[^./\\\0][^/\\\0]*", name):
                raise ValueError(f"recording name {name!r} cannot be the name of a folder")
            if name in seen:
                raise ValueError(f"recording {name!r} is in split {seen[name]!r} and in {split!r}")
            seen[name] = split


def _claim_folder(out: Path, procedure: Procedure, description: dict[str, Any]) -> None:
    """Writes what the folder is made from, or compares it with what is there."""
    out.mkdir(parents=True, exist_ok=True)
    contents = {"procedure.json": procedure.to_json(), "settings.json": description}
    for file, content in contents.items():
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=file != "procedure.json")
        path = out / file
        if not path.exists():
            _write_atomically(path, text.encode())
        elif differing := _differences(json.loads(path.read_text("utf-8")), json.loads(text)):
            raise ValueError(
                f"{path}: this folder was made with other arguments ({'; '.join(differing)}); "
                "give the same ones, write into another folder, or delete this one"
            )


def _differences(there: Any, asked: Any, name: str = "") -> list[str]:
    """Lists where two JSON values differ, nested keys joined by dots."""
    if there == asked:
        return []
    if isinstance(there, dict) and isinstance(asked, dict):
        return [
            line
            for key in dict.fromkeys([*there, *asked])
            for line in _differences(there.get(key), asked.get(key), f"{name}.{key}".strip("."))
        ]
    shown = [text if len(text := repr(v)) <= 60 else text[:57] + "..." for v in (there, asked)]
    return [f"{name} was {shown[0]}, now {shown[1]}"]


def _is_finished(job: _Job) -> bool:
    if not job.shard.exists() or not (job.labels / "frames.npz").exists():
        return False
    return count_records(job.shard) == _read_arrays(job)["num_records"]


def _read_arrays(job: _Job) -> dict[str, np.ndarray]:
    with np.load(job.labels / "frames.npz", allow_pickle=False) as file:
        return dict(file)


def _owner() -> str:
    return f"{socket.gethostname()}.{os.getpid()}"


def _remove_leftovers(folder: Path) -> None:
    """Removes files of killed processes of this machine; other machines may still be writing."""
    for path in folder.glob(f"*.{glob.escape(socket.gethostname())}.*"):
        pid = int(path.suffix[1:])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{_owner()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _write_arrays(path: Path, **arrays: Any) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # the time stamps inside are constant: the same bytes every time
    _write_atomically(path, content.getvalue())


def _write_split_labels(out: Path, split: str, jobs: Sequence[_Job]) -> None:
    recordings = [_read_arrays(job) for job in jobs]
    scalars = ("first_frame", "num_records")
    _write_arrays(
        out / "labels" / f"{split}.npz",
        recordings=np.array([job.name for job in jobs]),
        num_frames=np.array([len(arrays["states"]) for arrays in recordings]),
        **{key: np.array([arrays[key] for arrays in recordings]) for key in scalars},
        **{
            key: np.concatenate([arrays[key] for arrays in recordings])
            for key in ("states", "boxes", "classes", "visible")
        },
    )


def _write_dataset_info(out: Path, procedure: Procedure, jobs: Sequence[_Job]) -> None:
    """Writes features.json, then dataset_info.json, which makes the folder complete."""
    info = tfds.core.DatasetInfo(
        builder=DatasetIdentity(
            name="clips", version=tfds.core.Version("1.0.0"), data_dir=str(out), module_name=""
        ),
        features=features(procedure.num_components),
        description=f"Clips of consecutive frames of recordings of procedure {procedure.name!r}.",
    )
    info.set_file_format("array_record")
    split_infos = []
    for split, group in itertools.groupby(jobs, lambda job: job.split):
        recordings = [_read_arrays(job) for job in group]
        template = tfds.core.ShardedFileTemplate(
            data_dir=out, dataset_name="clips", split=split, filetype_suffix="array_record"
        )
        split_infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[int(arrays["num_records"]) for arrays in recordings],
                num_bytes=int(sum(arrays["num_bytes"] for arrays in recordings)),
                filename_template=template,
            )
        )
    info.set_splits(tfds.core.splits.SplitDict(split_infos))
    staging = out / UNFINISHED / f"info.{_owner()}"
    staging.mkdir(parents=True, exist_ok=True)
    info.write_to_directory(staging)
    for file in ("features.json", "dataset_info.json"):
        os.replace(staging / file, out / file)


def _make_recording(
    make: Callable[[str, str], RecordingData], job: _Job, progress: parallel.Progress
) -> None:
    """Makes one recording: its label files, and last of all its shard under its name."""
    data = make(job.split, job.name)
    arrays = _checked_labels(data, job)
    progress.begin(len(arrays["states"]))
    temporary = job.out / UNFINISHED / f"{job.shard.name}.{_owner()}"
    temporary.parent.mkdir(exist_ok=True)
    try:
        arrays |= _write_shard(temporary, data, arrays, job, progress)
        _write_labels(job, arrays)
        os.replace(temporary, job.shard)
    finally:
        temporary.unlink(missing_ok=True)


def _checked_labels(data: RecordingData, job: _Job) -> dict[str, np.ndarray]:
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
    job: _Job,
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
    with path.open("rb+") as file:
        os.fsync(file.fileno())  # before it gets its name, so that a power cut cannot truncate it
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


def _write_labels(job: _Job, arrays: dict[str, np.ndarray]) -> None:
    """Writes the label CSVs and frames.npz of a recording."""
    job.labels.mkdir(parents=True, exist_ok=True)
    states = arrays["states"]
    changes = np.flatnonzero((states[1:] != states[:-1]).any(axis=1)) + 1
    rows = np.concatenate([[0], changes])
    frames = arrays["first_frame"] + rows
    labels.write_states(job.labels / "PSR_labels_raw.csv", frames, states[rows])
    for file, with_errors in (("PSR_labels.csv", False), ("PSR_labels_with_errors.csv", True)):
        steps = labels.states_to_steps(frames, states[rows], with_errors=with_errors)
        labels.write_steps(job.labels / file, steps, job.procedure)
    _write_arrays(job.labels / "frames.npz", **arrays)
