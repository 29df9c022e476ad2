"""Frame embeddings on disk, and a folder of ready-made ones as a source of recordings.

`data_prep.embeddings` writes such a folder, and its docstring describes the files. Row i of a
recording belongs to video frame `first_frame` + i · `stride`. Frame numbers stay those of the
video, as in labels and predictions; only the rows of an array are counted without gaps.
"""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np

from stormpsr_jax.base import files, npy
from stormpsr_jax.data import folder
from stormpsr_jax.data.source import Numbers, RowSource
from stormpsr_jax.psr.procedure import Procedure

# Written last of all: the folder is complete.
MARKER = "embeddings.json"
_KIND = folder.EmbeddingSettings, MARKER, "data_prep.embeddings command"
# Memory-mapped files kept open per process; each holds a file descriptor, usually 1,024 at most.
MAX_OPEN_FILES = 512


class EmbeddingFile:
    """The embeddings (N, D) of a recording in an .npy file; only rows asked for are read.

    It takes the place of an array where rows are picked: `file[rows]`, `len(file)`, `file.shape`.
    The file is mapped into memory when rows are asked for and unmapped when many others have been
    since, and it is sent to a loader process as a path: memory does not grow with the data.
    """

    def __init__(self, path: str | Path):
        """Reads the header alone.

        Raises:
            OSError, ValueError: the file cannot be opened, is not an .npy file of float32 rows, or
                is shorter than its header says. Objects are never unpickled.
        """
        self.path = str(path)
        files.check_regular(path, "remove it")
        with open(path, "rb") as file:
            self.shape, fortran, dtype = npy.read_npy_header(file)
            self._offset = file.tell()
            status = os.fstat(file.fileno())
        if dtype != np.float32 or len(self.shape) != 2 or fortran:
            raise ValueError(f"{dtype} of shape {self.shape}, not rows of float32")
        if status.st_size != self._offset + 4 * self.shape[0] * self.shape[1]:
            raise ValueError(f"{status.st_size} bytes, which {self.shape} does not fit: truncated")
        # Tells this file from another one that is put under its name later.
        self._identity = (status.st_ino, status.st_mtime_ns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return _mapped(self.path, self._identity, self.shape, self._offset)[rows]


@functools.lru_cache(MAX_OPEN_FILES)
def _mapped(
    path: str, identity: tuple[int, int], shape: tuple[int, int], offset: int
) -> np.ndarray:
    del identity
    return np.asarray(np.memmap(path, np.float32, "r", offset, shape))


@dataclasses.dataclass(frozen=True)
class EmbeddedRecording:
    """A recording of N rows: frames first_frame, first_frame + stride, … of a video.

    Attributes:
        first_frame: frame number of row 0.
        states: (N, K) int8 in {-1, 0, 1}, at the rows' frames.
    """

    name: str
    first_frame: int
    states: np.ndarray

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.states)

    @property
    def visible(self) -> np.ndarray:
        """(N,) NaN: without pictures it is unknown how much of the object is seen."""
        return np.broadcast_to(np.float32(np.nan), (self.num_frames,))


class FeatureSource(RowSource):
    """One split of a folder of ready-made embeddings; picklable, and safe for several threads.

    Attributes:
        frame_step: video frames from one row to the next.
        recordings: dict of EmbeddedRecording by name, sorted by name.
        embeddings: dict of EmbeddingFile (N, D) by name.
    """

    def __init__(self, directory: str | Path, split: str, procedure: Procedure):
        """Opens a split and checks that all of it is there; reads no embedding.

        Raises:
            ValueError: folder incomplete, no such split, embeddings of another procedure, a file
                missing or truncated. The message says what to do.
        """
        directory = Path(directory)
        settings = folder.opened(directory, split, procedure, *_KIND)
        self.procedure = procedure
        self.split = split
        self.fps = settings.fps
        self.frame_step, self.width = settings.stride, settings.width
        self.recordings = _read_labels(
            directory / "labels" / f"{split}.npz", procedure.num_components
        )
        self.embeddings = {}
        for name, recording in self.recordings.items():
            path = feature_path(directory, split, name)
            try:
                file = EmbeddingFile(path)
                if file.shape != (recording.num_frames, self.width):
                    raise ValueError(f"{file.shape}, not {(recording.num_frames, self.width)}")
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{path} cannot be used ({error}); delete it and run data_prep.embeddings "
                    f"again, which makes only recording {name!r} anew"
                ) from error
            self.embeddings[name] = file

    def frames(self, recording: str, frames: Numbers) -> np.ndarray:
        """Returns the embeddings (T, D) float32 of T frame numbers, in any order.

        Raises:
            ValueError: unknown recording, a frame outside it or one that has no embedding.
        """
        if recording not in self.recordings:
            raise ValueError(f"no recording {recording!r} in split {self.split!r}")
        r = self.recordings[recording]
        numbers = np.asarray(frames, np.int64)
        rows, between = np.divmod(numbers - r.first_frame, self.frame_step)
        absent = (rows < 0) | (rows >= r.num_frames) | (between != 0)
        if absent.any():
            last = r.first_frame + self.frame_step * (r.num_frames - 1)
            raise ValueError(
                f"{recording}: frame {numbers[absent][0]} has no embedding; it has those of every "
                f"{self.frame_step}-th frame from {r.first_frame} to {last}"
            )
        return self.embeddings[recording][rows]

    def path(self, recording: str) -> Path:
        """The file of a recording's embeddings."""
        return Path(self.embeddings[recording].path)

    def content_checksum(self, recording: str) -> str:
        """The SHA-256 of the file of a recording's embeddings."""
        return files.checksum(self.path(recording))

    def jpegs(self, recording: str, frames: Numbers) -> list[None]:
        """Returns None for each frame: there are no pictures."""
        del recording
        return [None] * len(frames)


def feature_path(directory: Path, split: str, name: str) -> Path:
    """The file of a recording's embeddings in a data folder."""
    return directory / "features" / split / f"{name}.npy"


def holds_embeddings(directory: Path) -> bool:
    """True if `data_prep.embeddings` made the folder, or began to."""
    path = directory / "settings.json"
    if not path.is_file():
        return False
    settings = files.read_json(path)
    return isinstance(settings, dict) and "width" in settings


def read_settings(directory: Path) -> folder.EmbeddingSettings:
    """Returns settings.json of a finished folder of embeddings.

    Raises:
        ValueError: its preparation was not finished, or the file is damaged.
    """
    return folder.read_settings(directory, *_KIND)


def _read_labels(path: Path, num_components: int) -> dict[str, EmbeddedRecording]:
    advice = "run the same data_prep.embeddings command again"
    arrays = folder.read_arrays(path, ("states",), num_components, advice)
    states = np.split(arrays["states"], np.cumsum(arrays["num_frames"])[:-1])
    return {
        name: EmbeddedRecording(name, int(first), rows)
        for name, first, rows in zip(
            arrays["recordings"], arrays["first_frame"], states, strict=True
        )
    }
