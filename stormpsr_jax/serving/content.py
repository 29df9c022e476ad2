"""The content of a model folder's `model.json`, and the checks that it has to pass.

docs/recognise.md lists the fields, and the classes here say what each holds.

Dimension letters: B batch, T frames of a clip, H W image, D features, K components, S states.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
import numpy as np

from stormpsr_jax.base import files, memory
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.files import MAX_FPS, MIN_FPS, field, fit, shorten
from stormpsr_jax.media.framing import WHOLE, Framing
from stormpsr_jax.networks.stored import MAX_CLIP
from stormpsr_jax.psr import advice
from stormpsr_jax.psr import streams as all_streams
from stormpsr_jax.psr.calibration import Calibration, Level
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.risk import Control
from stormpsr_jax.psr.stream import Stream
from stormpsr_jax.recordings.procedure import Procedure

# By format, the field that says how the networks are kept: as weights, or as programs.
FORMATS = {3: "weights", 4: "exported"}
# By kind of predictions (`evaluation_set.FLAGS`), the network that it cannot do without, and the
# functions that say it, of those there are. The temporal one looks at what the encoder makes.
_NEEDS = {
    "detections": ("detector", ("detect",)),
    "windows": ("temporal", ("encode", "temporal")),
    "scores": ("temporal", ("detect", "encode", "temporal")),
}
_JPEG = b"\xff\xd8\xff"
# By role of a network, the function that is made of it (`Networks.functions`).
ROLES = {"locator": "locate", "encoder": "encode", "temporal": "temporal", "detector": "detect"}
Function = Callable[[np.ndarray], Any]  # of rows (B, …) → arrays (B, …)
_T = TypeVar("_T")

_Side = Annotated[int, msgspec.Meta(ge=8, le=4096)]
_Colour = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
_Deviation = Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
# Live recognition holds the rows of a window.
_Rows = Annotated[int, msgspec.Meta(ge=0, le=10**5)]
_Step = Annotated[int, msgspec.Meta(ge=1, le=10**5)]
_File = Annotated[bytes, msgspec.Meta(max_length=2**16)]  # in base64
_Logit = Annotated[float, msgspec.Meta(ge=-100, le=100)]
_Figure = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What becomes of a picture before a network sees it; sizes are (H, W) in pixels."""

    size: tuple[_Side, _Side]  # that the encoder sees, and the detector without `detector_size`
    mean: tuple[_Colour, _Colour, _Colour]  # per channel, of pictures in 0…1
    std: tuple[_Deviation, _Deviation, _Deviation]
    aspect: str = "stretch"  # as in `framing.Framing`
    region: tuple[_Share, _Share, _Share, _Share] = WHOLE
    detector_size: tuple[_Side, _Side] | None = None
    # Of a model with a locator: the others see the part of a picture where it finds the product
    # (`frames.Locating`) in place of `region`.
    locator_size: tuple[_Side, _Side] | None = None

    def size_of(self, role: str) -> tuple[int, int]:
        """(H, W) that the network of this role sees."""
        if role == "locator":
            return self.locator_size or self.size
        return self.detector_size or self.size if role == "detector" else self.size

    def framing_of(self, role: str) -> Framing:
        """The part of a picture that is used, and how it fills what the network of a role sees."""
        return Framing(self.size_of(role), self.aspect, self.region)


@dataclasses.dataclass(frozen=True)
class Window:
    """What the temporal network sees: every `stride`-th of the last `frames` + 1 rows."""

    frames: _Rows
    stride: _Step

    @property
    def num_frames(self) -> int:
        """T, the rows that are looked at."""
        return self.frames // self.stride + 1


@dataclasses.dataclass(frozen=True)
class StreamRecord:
    """How a stream is decoded, and how well that did."""

    settings: Any  # chosen on the validation split
    validation: Mapping[str, float | None]  # by name, such as f1 and delay_s; None where undefined
    test: Mapping[str, float | None]
    calibration: Calibration | None = None  # of the confidences; None leaves them as they are
    # By which the settings' bar for installations was decided; None of streams without.
    risk: float | None = None
    control: Control | None = None  # what the validation split says of other bars


class Networks(Protocol):
    """What computes: the networks of a model, in whatever form."""

    @property
    def widths(self) -> Mapping[str, int]:
        """By role, those there are: D of the encoder, K of the temporal one, S + 1 classes."""

    def functions(self, content: Content, batch: int) -> Mapping[str, Function]:
        """The networks as functions of arrays, made once for equal batches.

        Returns:
            Of these what the networks can: "encode", pictures uint8 (B, H, W, 3) → embeddings (B,
            D); "temporal", embeddings (B, T, D) → probabilities (B, K) and logits; "detect",
            pictures → boxes (B, M, 4), classes (B, M), confidences (B, M) and, of the likeliest
            point, objectness (B,), states (B, S + 1) and parts (B, 2K) or None, as
            `detection.best_scores` has them; "locate", pictures one by one → boxes (B, 4) and
            confidences (B,).

        Raises:
            MemoryError: no memory for the batch.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """All that a model folder holds; None is what is not known, or not there."""

    procedure: Procedure
    fps: float  # frames per second of the videos
    pictures: Pictures
    window: Window
    max_detections: int  # M of a picture
    networks: Networks
    streams: Mapping[str, StreamRecord]
    # For people: the run's config, checksums of the data, whether they are rendered, and by stage
    # the recordings that the trainings saw.
    origin: Mapping[str, Any]
    batch: int = 64  # rows computed at once unless asked otherwise
    fusion: Weights | None = None  # of stream `learned`
    created: str = ""  # UTC, as ISO 8601; with the version, set where it is written
    package_version: str = ""
    # Of pictures of a validation recording, in which its product was seen at least
    # (`frames.ProductShare`).
    product_share: float | None = None
    right_level: Level | None = None  # (K,) logits of correct parts in validation (`psr.level`)
    default: str | None = None  # the stream that recognises unless asked otherwise; None: the last
    part_pictures: Sequence[bytes | None] | None = None

    def input_shape(self, role: str, batch: int) -> tuple[int, ...]:
        """Shape of a batch of what the network of this role is given."""
        if role == "temporal":
            return (batch, self.window.num_frames, self.networks.widths["encoder"])
        return (batch, *self.pictures.size_of(role), 3)


class _Data(msgspec.Struct):
    rendered: bool = False
    recordings: dict[str, int] = {}  # by split
    untested: bool = False  # on an incorrect installation
    never_wrong: list[str] = []  # components of which training saw none


class Origin(msgspec.Struct):
    """What `Content.origin` says for the model card."""

    made_from: Any = None
    data: _Data = msgspec.field(default_factory=_Data)


def origin_of(origin: Any) -> Origin:
    """Reads where a model comes from, of which whoever wrote it may have said anything."""
    try:
        return msgspec.convert(origin, Origin)
    except msgspec.ValidationError:
        return Origin()


def recognises_by(data: Mapping[str, Any]) -> str:
    """Says by which stream a model recognises, of the content of its model.json."""
    figures = {s: data["streams"][s] for s in all_streams.names() if s in data["streams"]}
    val = origin_of(data["origin"]).data.recordings.get("val")
    return advice.recognises_by(data.get("default"), figures, val)


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of model.json; those that are `Any` are read further on."""

    format: int
    package_version: str
    created: str
    procedure: dict[str, Any]
    fps: Annotated[float, msgspec.Meta(ge=MIN_FPS, le=MAX_FPS)]
    pictures: dict[str, Any]
    window: dict[str, Any]
    max_detections: Annotated[int, msgspec.Meta(ge=1, le=100)]
    batch: _Count
    networks: Any
    streams: dict[str, Any]
    fusion: Any
    origin: dict[str, Any]
    default: str | None
    product_share: Annotated[float, msgspec.Meta(gt=0, le=1)] | None
    right_level: tuple[_Logit | None, ...] | None
    part_pictures: tuple[_File | None, ...] | None = None
    # One of these, by format.
    weights: Any = None
    exported: Any = None


class _Stream(msgspec.Struct, forbid_unknown_fields=True):
    settings: dict[str, Any]
    validation: dict[str, _Figure | None]
    test: dict[str, _Figure | None]
    calibration: dict[str, Any] | None
    risk: Annotated[float, msgspec.Meta(ge=0, le=1)] | None
    control: dict[str, Any] | None


def networks_field(data: Any, place: str) -> str:
    """Returns how the networks are kept, a value of FORMATS; ValueError if it is another format."""
    form = field(data, "format", int, place)
    if form not in FORMATS:
        remedy = "update the package" if form > max(FORMATS) else "make the model again"
        known = " and ".join(map(str, FORMATS))
        raise ValueError(
            f"{place}: is of format {form}, this version of stormpsr_jax knows {known}; {remedy}"
        )
    return FORMATS[form]


def functions_of(stream: str) -> set[str]:
    """Returns the functions (`Networks.functions`) that a stream takes, of those there are."""
    return {name for kind in all_streams.find(stream).needs for name in _NEEDS[kind][1]}


def parse(data: Any, place: str, networks: Networks) -> Content:
    """Checks the content of model.json, all but what says how the networks are kept.

    Raises:
        ValueError: the first mistake, with its place.
    """
    read = fit(data, _Model, place)
    for other in FORMATS.values():
        if other in data and other != FORMATS[read.format]:
            raise ValueError(f"{place}: {other}: is no field of format {read.format}")
    streams = {}
    for name, record in read.streams.items():
        if name not in all_streams.names():
            known = ", ".join(all_streams.names())
            raise ValueError(f"{place}: streams: {shorten(name)}: unknown key; known are {known}")
        streams[name] = _stream(all_streams.find(name), record, f"{place}: streams.{name}")
    if read.default is not None and read.default not in streams:
        raise ValueError(f"{place}: default: {shorten(read.default)} is not in streams")
    fusion = read.fusion
    values = msgspec.structs.asdict(read)
    for key in ("format", *FORMATS.values()):
        del values[key]
    values |= {
        "procedure": Procedure.from_json(read.procedure, f"{place}: procedure"),
        "pictures": _read(Pictures, read.pictures, f"{place}: pictures"),
        "window": _read(Window, read.window, f"{place}: window"),
        "networks": networks,
        "streams": streams,
        "fusion": None if fusion is None else Weights.from_json(fusion, f"{place}: fusion"),
    }
    content = Content(**values)
    for what in _contradictions(content):
        raise ValueError(f"{place}: {what}")
    return content


def _read(kind: type[_T], data: Mapping[str, Any], place: str) -> _T:
    """A dataclass from an object of all its fields, and no others."""
    fields = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in fields:
        if key not in data:
            raise ValueError(f"{place}: {key}: is missing")
    for key in data:
        if key not in fields:
            raise ValueError(f"{place}: {shorten(key)}: unknown key; known are {', '.join(fields)}")
    return fit(data, kind, place)


def _contradictions(content: Content) -> Iterator[str]:
    procedure, widths, window = content.procedure, content.networks.widths, content.window
    roles = set(widths)
    classes, components = procedure.error_class, procedure.num_components
    if window.frames % window.stride:
        yield f"window: frames: {window.frames} is no multiple of {window.stride}"
    if window.num_frames > MAX_CLIP:
        yield f"window: a clip has over {MAX_CLIP:,} rows"
    if ("locator" in roles) != (content.pictures.locator_size is not None):
        yield "pictures: locator_size: is there exactly if networks has 'locator'"
    if not roles - {"locator"} or ("encoder" in roles) != ("temporal" in roles):
        yield "networks: 'detector' is needed, or 'encoder' and 'temporal', or all three"
    if (width := widths.get("temporal", components)) != components:
        yield f"networks.temporal: num_components: {width}, the procedure has {components}"
    if (width := widths.get("detector", classes)) != classes:
        what = f"the procedure has {classes - 1} states and the error state"
        yield f"networks.detector: num_classes: {width}, {what}"
    if widths.get("locator", 0):
        yield f"networks.locator: num_classes: {widths['locator']}, it tells no states"
    if content.product_share is not None and "detector" not in roles:
        yield "product_share: there is no detector, which measures it"
    if (levels := content.right_level) is not None:
        if "detector" not in roles or len(levels) != components:
            yield f"right_level: is of a detector, and has {components} numbers"
    for name, record in content.streams.items():
        if (camera := getattr(record.settings, "camera", None)) and len(camera) != components:
            yield f"streams.{name}: settings: camera: {len(camera)} numbers, not {components}"
    if content.part_pictures is not None:
        if len(content.part_pictures) != components:
            yield f"part_pictures: are not {components}, one for each component"
        for k, picture in enumerate(content.part_pictures):
            if picture is not None and not picture.startswith(_JPEG):
                yield f"part_pictures[{k}]: is no JPEG file"
    if not content.streams:
        yield "streams: there is none"
    for name in content.streams:
        for role in {_NEEDS[kind][0] for kind in all_streams.find(name).needs} - roles:
            yield f"streams.{name}: needs networks.{role}"
    fitted = [stream.name for stream in all_streams.STREAMS if stream.fitted]
    if any(name in content.streams for name in fitted) != (content.fusion is not None):
        yield f"fusion: is there exactly if streams has {' or '.join(map(repr, fitted))}"
    if content.fusion is not None and len(content.fusion.trust) not in (0, components):
        yield f"fusion: trust: {len(content.fusion.trust)} numbers, not {components}"
    if content.fusion is not None and (content.fusion.kind == "clips") == ("detector" in roles):
        yield "fusion: kind: is 'clips' exactly if there is no detector"
    try:
        for role in roles & {"encoder", "detector"}:
            content.pictures.framing_of(role)
    except ValueError as error:
        yield f"pictures: {error}"


def roles_of(data: Any, place: str) -> Mapping[str, Any]:
    """Returns what `networks` says, by role; ValueError if it has others than ROLES."""
    described = field(data, "networks", dict, place)
    for role in described:
        if role not in ROLES:
            known = ", ".join(ROLES)
            raise ValueError(f"{place}: networks: {shorten(role)}: unknown key; known are {known}")
    return described


def _stream(stream: Stream, data: Any, place: str) -> StreamRecord:
    read, inside = fit(data, _Stream, place), f"{place}: settings"
    settings: Any = _read(stream.settings, read.settings, inside)
    if (decoder := getattr(settings, "decoder", None)) and decoder not in stream.decoders:
        raise ValueError(f"{inside}: decoder {decoder!r} has no stream {stream.name}")
    calibration = None
    if read.calibration is not None:
        # "wrong" of earlier folders is of reports as incorrect, which no calibrated stream makes.
        fields = {key: value for key, value in read.calibration.items() if key != "wrong"}
        calibration = _read(Calibration, fields, f"{place}: calibration")
    control = None
    if read.control is not None:
        control = _read(Control, read.control, f"{place}: control")
    return StreamRecord(settings, read.validation, read.test, calibration, read.risk, control)


MODEL = "model.json"


class FileEntry(msgspec.Struct, forbid_unknown_fields=True):
    """What model.json says of a file: the SHA-256 of its content, and its size in bytes."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=0, le=2**48)]


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of its fields, in place of one that it may have."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True)
    return rest | {"checksum": hashlib.sha256(text.encode()).hexdigest()}


def check_checksum(state: Mapping[str, Any]) -> None:
    """Raises ValueError if a saved state is not as `with_checksum` has left it."""
    if state.get("checksum") != with_checksum(state)["checksum"]:
        raise ValueError("the saved state is damaged (its checksum is of another one)")


def check_regular(path: Path) -> None:
    """Raises ValueError unless this is a file itself, not a link to one, a pipe or a device."""
    if not os.path.lexists(path):
        raise ValueError(
            f"{path}: is missing; give the folder of a model, which a run leaves in WORKDIR/model"
        )
    files.check_regular(path, "copy the model's own file there", links=False)


def read_file(path: Path, declared: Mapping[str, Any], times: int = 1) -> bytes:
    """Returns the content of a file that model.json names, which takes `times` its size in memory.

    ValueError: it is not that file, or cannot be read.
    """
    check_regular(path)
    again = "copy the folder again, or run the same command again"
    size = path.stat().st_size
    if size != declared["size"]:
        raise ValueError(
            f"{path}: has {size:,} bytes, {MODEL} says {declared['size']:,}: it is damaged, or the "
            f"two come from different runs; {again}"
        )
    try:
        memory.check_fits(times * size, str(path))
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise ValueError(one_line(f"{path}: cannot be read ({error})")) from error
    if hashlib.sha256(data).hexdigest() != declared["sha256"]:
        raise ValueError(
            f"{path}: is not the file whose checksum {MODEL} names: it is damaged, or the two "
            f"come from different runs; {again}"
        )
    return data
