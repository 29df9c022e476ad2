"""Random access to the frames of a folder of clip shards.

`data_prep.writing.shards` writes such a folder, and its docstring describes the files. Here one
split of it becomes a source from which any frames of any recording can be asked for; only the
records that hold them are read, and only the JPEGs asked for are decoded.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from array_record.python import array_record_module
from google.protobuf.message import DecodeError

from stormpsr_jax.data import folder
from stormpsr_jax.media import framing
from stormpsr_jax.media.pictures import decode_smaller
from stormpsr_jax.recordings.procedure import Procedure, load_procedure

# Readers kept open per process; far below the usual limit of 1,024 open files.
MAX_OPEN_READERS = 256
STATISTICS_PICTURES = 2_000  # that statistics are taken of, at most
# No read-ahead and no thread of its own: what random access needs (array_record's own advice).
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_IMPORTING = threading.Lock()

Numbers = Sequence[int] | np.ndarray  # of frames or rows


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of shard `index` of the `count` shards (recordings) of a split."""
    return f"clips-{split}.array_record-{index:05d}-of-{count:05d}"


def count_records(path: Path) -> int:
    """Returns the number of records in a shard: 0 if the file is missing or truncated."""
    if not path.is_file():
        return 0
    try:
        reader = array_record_module.ArrayRecordReader(str(path), READER_OPTIONS)
        count = reader.num_records()
        reader.close()  # a truncated file raises here at the latest
    except RuntimeError:
        return 0
    return count


def list_splits(directory: str | Path) -> list[str]:
    """The names of a finished data folder's splits, sorted; ValueError if it is none."""
    return sorted(folder.read_settings(Path(directory)).splits)


def difference(source: ClipSource, large: ClipSource) -> str:
    """Says in what the same recordings in another size differ; '' if in nothing."""

    def facts(s: ClipSource) -> dict[str, Any]:
        return {
            "recordings": s.recordings.keys(),
            "frames": [(r.first_frame, r.num_frames) for r in s.recordings.values()],
            "frames a second": s.fps,
            "pictures (--aspect, --crop, --locate)": (s.aspect, s.region, s.locator),
        }

    theirs = facts(large)
    return next((what for what, own in facts(source).items() if own != theirs[what]), "")


class ClipSource:
    """One split of a data folder. Picklable: each process opens its own readers when it needs them.

    Safe to use from several threads.

    Attributes:
        stored_size: (H, W) of the JPEG files.
        image_size: (H, W) that frames are decoded at: the same, unless `at` says otherwise.
        aspect, region: what became of the original pictures; see `framing.Framing`.
        locator: what found the product in them, if they are what is around it.
        recordings: dict of LabelledFrames by name, sorted by name. Row i of one is its i-th
            picture, counted from 0; the number of its frame is the one in labels and predictions.
        readers: threads that read ahead where rows are asked for in order.
    """

    readers: int = 1
    recordings: dict[str, Any]

    def __init__(self, directory: str | Path, split: str, procedure: Procedure):
        """Opens a split, such as 'train', of a folder of data_prep; decodes no frame.

        ValueError says what to do: folder incomplete, no such split, labels made for another
        procedure than the caller's, a shard missing or truncated.
        """
        self.directory = Path(directory)
        settings = folder.read_settings(self.directory)
        if split not in settings.splits:
            known = ", ".join(sorted(settings.splits))
            how = "put recordings into it (data_prep.own: --splits, or folders train, val and test)"
            raise ValueError(f"{directory}: no split {split!r}; it has {known}: {how}")
        theirs = load_procedure(self.directory / "procedure.json")
        if differences := folder.procedure_differences(procedure, theirs):
            raise ValueError(
                f"{directory}: its labels, made for procedure {theirs.name!r}, do not fit the "
                f"procedure {procedure.name!r} asked for: they have {differences}; use the "
                "folder's procedure.json (config.procedure='') or prepare the data again into "
                "another folder"
            )
        # The classes of boxes were numbered when the folder was made.
        if settings.states != theirs.to_json()["states"]:
            raise ValueError(
                f"{directory}: the states in its procedure.json are not those that it was made "
                "with; undo the change, or make the folder again from a procedure file with the "
                "states wanted"
            )
        self.procedure = procedure
        self.split = split
        self.fps = settings.fps
        self.stored_size = self.image_size = settings.image_size
        made = settings.settings
        self.aspect, self.region, self.locator = made.aspect, made.crop, made.locator
        try:
            framing.Framing(self.image_size, self.aspect, self.region)
        except ValueError as error:
            raise ValueError(
                f"{directory}/settings.json: settings: {error}; run the same data_prep command "
                "again"
            ) from error
        self._clip_length = settings.clip_length
        self.recordings, num_records = folder.read_labels(
            self.directory / "labels" / f"{split}.npz", procedure.num_components
        )
        self._shards = {
            name: self.directory / shard_name(split, i, len(self.recordings))
            for i, name in enumerate(self.recordings)
        }
        for name, path in self._shards.items():
            if (found := count_records(path)) != num_records[name]:
                problem = f"has {found} records instead of {num_records[name]}: it is truncated"
                raise ValueError(
                    f"{path}: {problem if path.exists() else 'this shard is missing'}; delete it "
                    f"and run the data preparation again, which makes only recording {name!r} anew"
                )
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[str, array_record_module.ArrayRecordReader] = {}
        # (recording, record index, its JPEGs): makes sequential reads cheap.
        self._last: tuple[str, int, Sequence[bytes]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for of_this_process in ("_lock", "_readers", "_last"):
            del state[of_this_process]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def at(self, size: int, field: str) -> ClipSource:
        """Returns the same recordings with pictures of size x size pixels; 0: as they are stored.

        Of the JPEG files less is decoded then. ValueError if these are smaller, or no squares.
        """
        if not size or (size, size) == self.stored_size:
            return self
        height, width = self.stored_size
        if height != width or height < size:
            raise ValueError(
                f"{self.directory}: its pictures are {height}x{width} pixels (HxW), which "
                f"--config.{field}={size} cannot be made of; make the folder again with "
                f"--size={size} or more, or set {field} to {min(height, width)} or less"
            )
        other = copy.copy(self)
        other.image_size = (size, size)
        return other

    def joined(self, other: ClipSource) -> ClipSource:
        """Returns these recordings and those of another folder as one split.

        ValueError of pictures of another size, frames of another rate, or recordings of one name.
        """
        where = f"{other.directory}: does not go with {self.directory}"
        for noun, theirs, ours in (
            ("pixels (HxW), --size", other.stored_size, self.stored_size),
            ("frames a second, --fps", other.fps, self.fps),
            ("frames a record", other._clip_length, self._clip_length),
        ):
            if theirs != ours:
                raise ValueError(f"{where}: {theirs} {noun}, not {ours}; make one of them again")
        if both := sorted(self.recordings.keys() & other.recordings.keys()):
            raise ValueError(f"{where}: both have recordings {', '.join(both[:5])}; rename these")
        whole = copy.copy(self)
        whole.recordings = dict(sorted([*self.recordings.items(), *other.recordings.items()]))
        whole._shards = self._shards | other._shards
        return whole

    def frames(self, recording: str, frames: Numbers) -> np.ndarray:
        """Decodes T frames of a recording to (T, H, W, 3) uint8, RGB.

        `frames` are numbers in any order, repeats allowed (decoded once). ValueError of an unknown
        recording, a frame outside it, or a JPEG that cannot be decoded.
        """
        numbers, inverse = np.unique(np.asarray(frames, np.int64), return_inverse=True)
        images = np.empty((len(numbers), *self.image_size, 3), np.uint8)
        for number, image, jpeg in zip(
            numbers, images, self._read(recording, numbers), strict=True
        ):
            try:
                size = simplejpeg.decode_jpeg_header(jpeg)[:2]
                if size != self.stored_size:  # before decoding: a small file can be a huge picture
                    raise ValueError(f"it has {size} pixels (H, W), not {self.stored_size}")
                if size == self.image_size:
                    simplejpeg.decode_jpeg(jpeg, buffer=image)
                else:
                    decode_smaller(jpeg, image)
            except ValueError as error:
                raise self._damaged(
                    recording, f"frame {number} of {recording!r} is not a readable JPEG ({error})"
                ) from error
        if np.array_equal(inverse, np.arange(len(numbers))):
            return images
        return images[inverse]

    def numbers(self, recording: str) -> np.ndarray:
        """Returns the frame numbers (N,) of a recording's rows."""
        r = self.recordings[recording]
        return r.first_frame + np.arange(r.num_frames)

    def rows(self, recording: str, rows: Numbers) -> np.ndarray:
        """Returns the pictures (T, …) of T rows; errors as in `frames`."""
        first = self.recordings[recording].first_frame
        return self.frames(recording, first + np.asarray(rows, np.int64))

    def chunks(self, recording: str, batch: int, every: int = 1) -> Generator[np.ndarray]:
        """Yields at most `batch` pictures at a time, in order, of every so-manieth row."""
        rows = np.arange(0, self.recordings[recording].num_frames, every)
        parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        return in_order(functools.partial(self.rows, recording), parts, self.readers)

    def jpegs(self, recording: str, frames: Numbers) -> list[bytes]:
        """Returns the JPEG bytes of T frames; arguments and errors as in `frames`."""
        numbers, inverse = np.unique(np.asarray(frames, np.int64), return_inverse=True)
        read = self._read(recording, numbers)
        return [read[i] for i in inverse]

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, by channel, of the split's pictures in 0…1.

        Of at most STATISTICS_PICTURES pictures, evenly spaced over all recordings.
        """
        counts = [r.num_frames for r in self.recordings.values()]
        ends = np.cumsum(counts)
        at = np.arange(0, ends[-1], -(-int(ends[-1]) // STATISTICS_PICTURES))
        sums, squares = np.zeros(3), np.zeros(3)
        for name, first, end in zip(self.recordings, ends - counts, ends, strict=True):
            for row in at[(at >= first) & (at < end)] - first:
                picture = self.rows(name, [row])[0].reshape(-1, 3) / 255
                sums += picture.mean(axis=0)
                squares += np.square(picture).mean(axis=0)
        mean = sums / len(at)
        variance = np.maximum(squares / len(at) - mean**2, 255.0**-2)  # of plain ones, one level
        return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())

    def path(self, recording: str) -> Path:
        """The file that has a recording's pictures."""
        return self._shards[recording]

    def content_checksum(self, recording: str) -> str:
        """The SHA-256 of a recording's JPEG files, whatever labels are stored beside them."""
        digest, numbers = hashlib.sha256(), self.numbers(recording)
        for start in range(0, len(numbers), self._clip_length):
            for jpeg in self.jpegs(recording, numbers[start : start + self._clip_length]):
                digest.update(len(jpeg).to_bytes(8, "little") + jpeg)
        return digest.hexdigest()

    def _read(self, recording: str, numbers: np.ndarray) -> list[bytes]:
        """Returns the JPEGs of ascending, distinct frame numbers; each record is read once."""
        if recording not in self.recordings:
            raise ValueError(f"no recording {recording!r} in split {self.split!r}")
        if not len(numbers):
            return []
        first = self.recordings[recording].first_frame
        last = first + self.recordings[recording].num_frames - 1
        if numbers[0] < first or numbers[-1] > last:
            outside = numbers[0] if numbers[0] < first else numbers[-1]
            raise ValueError(
                f"{recording}: frame {outside} is outside the recording, {first}…{last}"
            )
        records, within = np.divmod(numbers - first, self._clip_length)
        clips = self._records(recording, np.unique(records).tolist())
        return [clips[r][i] for r, i in zip(records.tolist(), within.tolist(), strict=True)]

    def _records(self, recording: str, records: list[int]) -> dict[int, Sequence[bytes]]:
        clips: dict[int, Sequence[bytes]] = {}
        last = self._last
        if last is not None and last[0] == recording and last[1] in records:
            clips[last[1]] = last[2]
        if missing := [record for record in records if record not in clips]:
            try:
                reader = self._reader(recording)
                for record in missing:  # one by one: several in a call take 2.5 times the CPU time
                    (data,) = reader.read([record])
                    clips[record] = self._jpegs_of(recording, record, data)
            # What ArrayRecord raises for a checksum that is wrong, and protobuf for the rest.
            except (RuntimeError, IndexError, ValueError, DecodeError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                raise self._damaged(recording, f"damaged, cannot be read ({reason})") from error
            self._last = (recording, missing[-1], clips[missing[-1]])
        return clips

    def _jpegs_of(self, recording: str, record: int, data: bytes) -> Sequence[bytes]:
        # Here: it brings 223 modules, and a run that has nothing to do reads no clip. One thread at
        # a time: two can wait for each other for ever, in the locks of lazy imports.
        with _IMPORTING:
            from tensorflow_datasets.proto import tf_example_pb2

        feature = tf_example_pb2.Example.FromString(data).features.feature
        first, jpegs = record * self._clip_length, feature["jpeg"].bytes_list.value
        r = self.recordings[recording]
        names, numbers = feature["recording"].bytes_list, feature["first_frame"].int64_list
        found = [*names.value, *numbers.value, len(jpegs)]
        length = min(self._clip_length, r.num_frames - first)
        if found != [recording.encode(), r.first_frame + first, length]:
            raise ValueError(f"record {record} is of another recording or of other frames")
        return jpegs

    def _damaged(self, recording: str, what: str) -> ValueError:
        return ValueError(
            f"{self._shards[recording]}: {what}; delete it and run the data preparation again, "
            f"which makes only recording {recording!r} anew"
        )

    def _reader(self, recording: str) -> array_record_module.ArrayRecordReader:
        with self._lock:
            reader = self._readers.pop(recording, None)
            if reader is None:
                reader = array_record_module.ArrayRecordReader(
                    str(self._shards[recording]), READER_OPTIONS, file_reader_buffer_size=32768
                )
            self._readers[recording] = reader  # at the end: most recently used
            if len(self._readers) > MAX_OPEN_READERS:
                # Dropped, not closed: another thread may be reading from it.
                del self._readers[next(iter(self._readers))]
        return reader


def in_order(
    read: Callable[[Any], np.ndarray], parts: Sequence[Any], threads: int
) -> Generator[np.ndarray]:
    """Yields what is read of each part, in order, while threads read the next parts.

    Threads are enough, and start at once: to decode a JPEG takes nearly all the time of reading a
    picture, and other threads run meanwhile.
    """
    import grain  # here, as small installations do without it

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    read_parts = grain.MapDataset.range(len(parts)).map(lambda index: read(parts[index]))
    iterator = iter(read_parts.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()
