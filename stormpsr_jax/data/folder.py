"""What a data folder says of itself: settings.json and labels/<split>.npz.

A folder may come from somebody else: nothing in it is executed, and what does not fit together is
named before a stage begins.
"""

import dataclasses
import math
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np

from stormpsr_jax.base import files, memory
from stormpsr_jax.base.files import UNREADABLE, reason
from stormpsr_jax.media import framing
from stormpsr_jax.recordings.procedure import Procedure

VERSION = 1  # of what is in a data folder, which settings.json says
LOCATOR = "locator.safetensors"
MARKER = "dataset_info.json"  # written last of all: the folder is complete
MAX_SIDE = 2**14  # pixels of a side of a stored picture
MAX_CLIP = 2**14  # frames of a record
_AGAIN = "run the same data_prep command again"
# Whole numbers of each recording, and labels of each frame.
_WHOLE = ("first_frame", "num_frames", "num_records")
_OF_FRAMES = ("states", "boxes", "classes", "visible")
T = TypeVar("T", bound="Settings")


# --- Labels of frames -----------------------------------------------------------------------------


# Classes of frames without a box: somebody looked at them, and there is no whole object; or nobody
# did, so that nothing is known.
EMPTY, NOT_ANNOTATED = -1, -2


# Pixels across a product that were enough on our rendered toy (one seed): with 28 figures are those
# of 55, with 14 POS of what is seen falls from .87 to .73, and what is right takes twice the time.
ENOUGH = 28


def pixels_across(boxes: np.ndarray, size: tuple[int, int]) -> float:
    """The median of the longer sides, in pixels, of boxes in a picture of (H, W); NaN without any.

    `boxes` are (N, 4) cx, cy, w, h in 0…1 of the picture; NaN where there is none.
    """
    sides = (boxes[:, 2:] * size[::-1]).max(axis=1)
    return float(np.median(there)) if len(there := sides[np.isfinite(sides)]) else math.nan


@dataclasses.dataclass(frozen=True)
class LabelledFrames:
    """The labels of a recording's N frames, `first_frame` … `first_frame + N - 1`.

    Attributes:
        states: (N, K) int8 in {-1, 0, 1}.
        boxes: (N, 4) float32 cx, cy, w, h in 0…1; NaN where there is none.
        classes: (N,) int16; of a box 1…S assembly state, S + 1 error state, 0 uncatalogued (ignored
            by the detector); without one `EMPTY` or NOT_ANNOTATED.
        visible: (N,) float32, visible fraction of the object; NaN where unknown.
        poses: (N, 6) float32, how the product lies in a render: x and y of its middle, from there
            to the end of its x axis, and to that of its y axis, in 0…1 of the picture's width and
            height, y down. The axes end half its height beyond the sides of the complete product,
            so that all of it lies between them when it is seen at an angle. NaN where unknown, in
            recordings throughout; None becomes that.
    """

    name: str
    first_frame: int
    states: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    visible: np.ndarray
    poses: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.poses is None:
            unknown = np.broadcast_to(np.float32(np.nan), (len(self.states), 6))
            object.__setattr__(self, "poses", unknown)

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.states)


# --- settings.json --------------------------------------------------------------------------------


_Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]


class Locator(msgspec.Struct):
    """What found the product in the pictures, which is in LOCATOR: (H, W) of what it looks at."""

    size: tuple[_Side, _Side]
    sha256: str


class MadeWith(msgspec.Struct):
    """How the pictures of a folder were made; see `media.framing` and `serving.frames.Locating`."""

    aspect: str = "stretch"
    crop: tuple[float, float, float, float] = framing.WHOLE
    locator: Locator | None = None


class Settings(msgspec.Struct):
    """What settings.json says of any data folder: its version, splits, and frames per second."""

    version: int
    splits: dict[str, list[str]]
    fps: Annotated[float, msgspec.Meta(ge=files.MIN_FPS, le=files.MAX_FPS)]


class ClipSettings(Settings):
    """Of a folder of clip shards: (H, W), frames of a record, states when it was made."""

    image_size: tuple[_Side, _Side]
    clip_length: Annotated[int, msgspec.Meta(ge=1, le=MAX_CLIP)]
    states: list[str]
    settings: MadeWith


def read_settings(directory: Path) -> ClipSettings:
    """settings.json of a folder; ValueError if there is none, it is unfinished, or damaged."""
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such folder; make it with a data_prep command")
    if not (directory / MARKER).is_file():
        raise ValueError(
            f"{directory}: no {MARKER}, so its data preparation was not finished; run the same "
            "data_prep command again, finished recordings are kept"
        )
    path = directory / "settings.json"
    try:
        return load_settings(path, ClipSettings)
    except ValueError as error:
        advice = "make the folder again, elsewhere, with the same data_prep command"
        raise ValueError(f"{error}; {advice}") from error


def procedure_differences(ours: Procedure, theirs: Procedure) -> str:
    """Says in what two procedures label frames differently; '' if they do not.

    Variants and frame rate are left out: they matter for decoding, not for what is in a folder.
    """
    one, other = ours.to_json(), theirs.to_json()
    differences = []
    for part in ("name", "components", "states"):
        if one[part] != other[part]:
            texts = (textwrap.shorten(str(of[part]), 120) for of in (other, one))
            differences.append(f"{part} {' instead of '.join(texts)}")
    return "; ".join(differences)


def load_settings(path: Path, kind: type[T]) -> T:
    """Returns what settings.json says; ValueError if it is damaged, or of another version."""
    settings = files.fit(files.read_json(path), kind, str(path))
    if settings.version != VERSION:
        raise ValueError(
            f"{path}: version: {settings.version} is not {VERSION}, the one of data folders that "
            "is read"
        )
    for split, names in settings.splits.items():
        files.check_name(split, str(path))
        for name in names:
            files.check_name(name, f"{path}: splits: {split}")
    return settings


# --- Arrays ---------------------------------------------------------------------------------------


def read_labels(
    path: Path, num_components: int
) -> tuple[dict[str, LabelledFrames], dict[str, int]]:
    """Returns the recordings of a split, in shard order, and their numbers of records.

    They are in an .npz file that data_prep wrote; nothing is unpickled. ValueError: it is missing
    or damaged, or its arrays do not fit each other; names it.
    """
    if not path.exists():
        raise ValueError(f"{path}: missing; {_AGAIN}")
    files.check_regular(path, f"remove it and {_AGAIN}")
    try:
        with zipfile.ZipFile(path) as archive:  # compressed, little can be much
            memory.check_fits(sum(info.file_size for info in archive.infolist()), str(path))
        with np.load(path, allow_pickle=False, max_header_size=files.MAX_HEADER) as file:
            arrays = dict(file)
    except UNREADABLE as error:
        raise ValueError(f"{path}: damaged ({reason(error)}); delete it and {_AGAIN}") from error
    if missing := [key for key in ("recordings", *_WHOLE, *_OF_FRAMES) if key not in arrays]:
        raise ValueError(f"{path}: has no {', '.join(missing)}; delete it and {_AGAIN}")
    try:
        _check_arrays(arrays, num_components)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it and {_AGAIN}") from error
    names = [files.check_name(name, str(path)) for name in arrays["recordings"].tolist()]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two recordings have the same name; delete it and {_AGAIN}")
    columns = [*_OF_FRAMES, *(["poses"] if "poses" in arrays else [])]  # which renders alone have
    cuts = np.cumsum(arrays["num_frames"])[:-1]
    per_frame = zip(*(np.split(arrays[key], cuts) for key in columns), strict=True)
    recordings = {
        name: LabelledFrames(name, int(first), *labels)
        for name, first, labels in zip(names, arrays["first_frame"], per_frame, strict=True)
    }
    return recordings, dict(zip(names, arrays["num_records"].tolist(), strict=True))


def _check_arrays(arrays: Mapping[str, np.ndarray], num_components: int) -> None:
    num, total = len(arrays["recordings"]), int(arrays["num_frames"].sum())
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_WHOLE, (num,))
    shapes |= {"states": (total, num_components), "boxes": (total, 4), "poses": (total, 6)}
    shapes |= {"classes": (total,), "visible": (total,)}
    for key, shape in shapes.items():
        if key in arrays and arrays[key].shape != shape:
            raise ValueError(f"{key} are {arrays[key].dtype} {arrays[key].shape}, expected {shape}")
