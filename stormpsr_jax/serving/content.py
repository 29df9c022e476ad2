"""The content of a model folder's `model.json`, and the checks that it has to pass.

docs/model.md describes every field. Every value is checked for its type and bounds, and whether
they fit together; the first mistake is named with its place.

Dimension letters: B batch, T frames of a clip, H W image, D features, K components, S states.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from stormpsr_jax.base.files import MAX_FPS, MIN_FPS, field, number, shorten
from stormpsr_jax.media.framing import ASPECTS, WHOLE, Framing
from stormpsr_jax.networks.stored import MAX_CLIP
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.streams import streams as all_streams
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.learned_weights import Weights
from stormpsr_jax.psr.streams.stream import AnySettings, Stream
from stormpsr_jax.serving import needs
from stormpsr_jax.serving.fields import check_keys, choice, integer, numbers
from stormpsr_jax.serving.product_gate import Fits

# By format, the field that says how the networks are kept: as weights, or as programs.
KEPT = {3: "weights", 4: "exported"}
ROLES = ("encoder", "temporal", "detector")
Function = Callable[[np.ndarray], Any]  # of rows (B, …) → arrays (B, …)
MAX_LIST = 10_000  # of components, states or steps: their check takes the square of that
MAX_FRAMES = 10**5  # of the window, whose rows live recognition holds
_KEYS = (
    "format",
    "package_version",
    "created",
    "procedure",
    "fps",
    "pictures",
    "embedding",
    "window",
    "max_detections",
    "batch",
    "networks",
    "streams",
    "fusion",
    "origin",
)


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What becomes of a picture before a network sees it.

    Attributes:
        size: (H, W) in pixels that the encoder sees, and the detector too without `detector_size`.
        mean, std: per channel, of pictures in 0…1.
        aspect, region: as in `framing.Framing`.
        detector_size: (H, W) that the detector sees, if it is another one.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    aspect: str = "stretch"
    region: tuple[float, float, float, float] = WHOLE
    detector_size: tuple[int, int] | None = None

    def size_of(self, role: str) -> tuple[int, int]:
        """(H, W) that the network of this role sees."""
        return self.detector_size or self.size if role == "detector" else self.size

    @property
    def framing(self) -> Framing:
        """The part of a picture that is used and how it fills `size`."""
        return self.framing_of("encoder")

    def framing_of(self, role: str) -> Framing:
        """The same for what the network of this role sees."""
        return Framing(self.size_of(role), self.aspect, self.region)


@dataclasses.dataclass(frozen=True)
class Window:
    """What the temporal network sees: every `stride`-th of the last `frames` + 1 rows.

    Attributes:
        frames, stride: in rows.
        frame_step: video frames from one row to the next; above 1 for ready-made embeddings alone.
    """

    frames: int
    stride: int
    frame_step: int = 1

    @property
    def num_frames(self) -> int:
        """T, the rows that are looked at."""
        return self.frames // self.stride + 1


@dataclasses.dataclass(frozen=True)
class StreamRecord:
    """How a stream is decoded, and how well that did.

    Attributes:
        settings: chosen on the validation split.
        validation, test: figures by name, such as pos, f1 and delay_s; None where undefined.
        calibration: of the events' confidences; None leaves them as they are.
    """

    settings: AnySettings
    validation: Mapping[str, float | None]
    test: Mapping[str, float | None]
    calibration: Calibration | None = None


class Networks(Protocol):
    """What computes: the networks of a model, in whatever form."""

    @property
    def widths(self) -> Mapping[str, int]:
        """By role, those there are: D of the encoder, K of the temporal one, S + 1 classes."""

    def functions(self, content: Content, batch: int) -> Mapping[str, Function]:
        """The networks as functions of arrays, made once for equal batches.

        Args:
            content: of the model that they are of.
            batch: rows computed at once.

        Returns:
            Of these what the networks can: "encode", pictures uint8 (B, H, W, 3) → embeddings (B,
            D); "temporal", embeddings (B, T, D) → probabilities (B, K) and logits; "detect",
            pictures → boxes (B, M, 4), classes (B, M), confidences (B, M) and, of the likeliest
            point, objectness (B,), states (B, S + 1) and parts (B, 2K) or None, as
            `detection.best_scores` has them.

        Raises:
            MemoryError: no memory for the batch.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """All that a model folder holds; docs/model.md says what each field is."""

    procedure: Procedure
    fps: float
    pictures: Pictures | None
    embedding: int | None
    window: Window
    max_detections: int
    batch: int
    networks: Networks
    streams: dict[str, StreamRecord]
    fusion: Weights | None
    origin: dict[str, Any]
    created: str
    package_version: str
    fits: Fits | None = None
    default: str | None = None

    def input_shape(self, role: str, batch: int) -> tuple[int, ...]:
        """Shape of a batch of what the network of this role is given."""
        if role == "temporal":
            width = self.embedding or self.networks.widths["encoder"]
            return (batch, self.window.num_frames, width)
        assert self.pictures is not None  # the other networks look at pictures
        return (batch, *self.pictures.size_of(role), 3)


def kept(data: Any, place: str) -> str:
    """Returns how the networks are kept, a value of KEPT.

    Raises:
        ValueError: another format, or a field that is unknown or missing.
    """
    form = integer(data, "format", place, 1, 2**31)
    if form not in KEPT:
        remedy = "update the package" if form > max(KEPT) else "make the model again"
        known = " and ".join(map(str, KEPT))
        raise ValueError(
            f"{place}: is of format {form}, this version of stormpsr_jax knows {known}; {remedy}"
        )
    # Models that were made before these existed have none.
    later = tuple(name for name in ("default", "fits") if name in data)
    check_keys(data, (*_KEYS, KEPT[form], *later), place)
    return KEPT[form]


def parse(data: Any, place: str, networks: Networks) -> Content:
    """Checks the content of model.json, all but what says how the networks are kept.

    Args:
        data: of which `kept` has checked the fields.
        place: the file, for messages.
        networks: of which nothing is computed here.

    Raises:
        ValueError: the first mistake, with its place.
    """
    procedure = _procedure(field(data, "procedure", dict, place), f"{place}: procedure")
    pictures = data["pictures"]
    if pictures is not None:
        pictures = _pictures(pictures, f"{place}: pictures")
    window = _window(data["window"], f"{place}: window")
    streams = {}
    for name, record in field(data, "streams", dict, place).items():
        if name not in all_streams.names():
            known = ", ".join(all_streams.names())
            raise ValueError(f"{place}: streams: {shorten(name)}: unknown key; known are {known}")
        streams[name] = _stream(all_streams.find(name), record, f"{place}: streams.{name}")
    default = data.get("default")
    if default is not None and default not in streams:
        raise ValueError(f"{place}: default: {shorten(default)} is not in streams")
    fusion = data["fusion"]
    if fusion is not None:
        fusion = Weights.from_json(fusion, f"{place}: fusion")
    embedding = data["embedding"]
    if embedding is not None:
        embedding = integer(data, "embedding", place, 1, 65_536)
    content = Content(
        procedure=procedure,
        fps=number(data["fps"], f"{place}: fps", MIN_FPS, MAX_FPS),
        pictures=pictures,
        embedding=embedding,
        window=window,
        max_detections=integer(data, "max_detections", place, 1, 100),
        batch=integer(data, "batch", place, 1, 65_536),
        networks=networks,
        streams=streams,
        fusion=fusion,
        origin=field(data, "origin", dict, place),
        created=field(data, "created", str, place),
        package_version=field(data, "package_version", str, place),
        fits=None if data.get("fits") is None else Fits.from_json(data["fits"], f"{place}: fits"),
        default=default,
    )
    _check_together(content, place)
    return content


def _check_together(content: Content, place: str) -> None:
    """Raises ValueError where parts of a model contradict each other."""
    procedure, widths = content.procedure, content.networks.widths
    roles = set(widths)
    if (content.pictures is None) == (content.embedding is None):
        raise ValueError(f"{place}: one of pictures and embedding has to be null")
    if content.pictures is None and roles != {"temporal"}:
        raise ValueError(f"{place}: networks: on embeddings 'temporal' alone is needed")
    if content.pictures is not None:
        if not roles or ("encoder" in roles) != ("temporal" in roles):
            raise ValueError(
                f"{place}: networks: on pictures 'detector' is needed, or 'encoder' and "
                "'temporal', or all three"
            )
        if content.window.frame_step != 1:
            raise ValueError(f"{place}: window: frame_step: embeddings alone can have one above 1")
    if "temporal" in roles:
        num_components = widths["temporal"]
        if num_components != procedure.num_components:
            raise ValueError(
                f"{place}: networks.temporal: num_components: {num_components}, the procedure has "
                f"{procedure.num_components}"
            )
    if "detector" in roles:
        num_classes = widths["detector"]
        if num_classes != procedure.error_class:
            raise ValueError(
                f"{place}: networks.detector: num_classes: {num_classes}, the procedure has "
                f"{procedure.num_states} states and the error state"
            )
    if content.fits is not None and content.fits.space is not None:
        width = content.embedding
        if "encoder" in roles:
            width = widths["encoder"]
        if len(content.fits.space.mean) != width:
            raise ValueError(
                f"{place}: fits: space: mean: has {len(content.fits.space.mean)} numbers, "
                f"embeddings have {width}"
            )
    if not content.streams:
        raise ValueError(f"{place}: streams: there is none")
    for name in content.streams:
        for role in needs.roles(name):
            if role not in roles:
                raise ValueError(f"{place}: streams.{name}: needs networks.{role}")
    fitted = [stream.name for stream in all_streams.STREAMS if stream.fitted]
    if any(name in content.streams for name in fitted) != (content.fusion is not None):
        raise ValueError(
            f"{place}: fusion: is there exactly if streams has {' or '.join(map(repr, fitted))}"
        )


def roles_of(data: Any, place: str) -> Mapping[str, Any]:
    """Returns what `networks` says, by role; ValueError if it has others than ROLES."""
    described = field(data, "networks", dict, place)
    for role in described:
        if role not in ROLES:
            known = ", ".join(ROLES)
            raise ValueError(f"{place}: networks: {shorten(role)}: unknown key; known are {known}")
    return described


def _procedure(data: Mapping[str, Any], place: str) -> Procedure:
    rest = list(data.values())
    while rest:
        value = rest.pop()
        if isinstance(value, Mapping | list):
            if len(value) > MAX_LIST:
                raise ValueError(f"{place}: a list or object in it has over {MAX_LIST:,} entries")
            rest += value.values() if isinstance(value, Mapping) else value
    return Procedure.from_json(data, place)


def _pictures(data: Any, place: str) -> Pictures:
    check_keys(data, tuple(f.name for f in dataclasses.fields(Pictures)), place)
    pictures = Pictures(
        size=_size(data, "size", place),
        mean=numbers(data, "mean", 3, place, -1e6, 1e6),
        std=numbers(data, "std", 3, place, 1e-6, 1e6),
        aspect=choice(data, "aspect", ASPECTS, place),
        region=numbers(data, "region", 4, place, 0, 1),
        detector_size=data["detector_size"] and _size(data, "detector_size", place),
    )
    x0, y0, x1, y1 = pictures.region
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"{place}: region: {shorten(data['region'])} is empty: x0, y0, x1, y1")
    return pictures


def _size(data: Any, key: str, place: str) -> tuple[int, int]:
    size = field(data, key, list, place)
    if len(size) != 2 or not all(type(n) is int and 8 <= n <= 4096 for n in size):
        raise ValueError(f"{place}: {key}: {shorten(size)} is not [height, width] in 8…4096")
    return tuple(size)


def _window(data: Any, place: str) -> Window:
    names = tuple(f.name for f in dataclasses.fields(Window))
    check_keys(data, names, place)
    low = {"frames": 0, "stride": 1, "frame_step": 1}
    window = Window(**{name: integer(data, name, place, low[name], MAX_FRAMES) for name in names})
    if window.frames % window.stride:
        raise ValueError(f"{place}: frames: {window.frames} is no multiple of {window.stride}")
    if window.num_frames > MAX_CLIP:
        raise ValueError(f"{place}: a clip has over {MAX_CLIP:,} rows")
    return window


def _stream(stream: Stream, data: Any, place: str) -> StreamRecord:
    check_keys(data, tuple(f.name for f in dataclasses.fields(StreamRecord)), place)
    settings = _settings(stream, field(data, "settings", dict, place), f"{place}: settings")
    figures = {}
    for split in ("validation", "test"):
        figures[split] = dict(field(data, split, dict, place))
        for key, value in figures[split].items():
            if value is not None:
                number(value, f"{place}: {split}: {shorten(key)}", -1e15, 1e15)
    calibration = data["calibration"]
    if calibration is not None:
        calibration = _calibration(calibration, f"{place}: calibration")
    return StreamRecord(settings, **figures, calibration=calibration)


def _settings(stream: Stream, data: Mapping[str, Any], place: str) -> AnySettings:
    types = typing.get_type_hints(stream.settings)
    defaults = dataclasses.asdict(stream.settings())
    data = {key: None for key, value in defaults.items() if value is None} | dict(data)
    check_keys(data, tuple(types), place)
    values: dict[str, Any] = {}
    for key, kind in types.items():
        limits = stream.limits[key]
        if kind is str:
            values[key] = choice(data, key, limits, place)
        elif kind is int:
            values[key] = integer(data, key, place, *limits)
        elif data[key] is None and type(None) in typing.get_args(kind):
            values[key] = None
        else:
            values[key] = number(data[key], f"{place}: {key}", *limits)
    try:
        settings = stream.settings(**values)
        stream.check(settings)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return settings


def _calibration(data: Any, place: str, of_wrong: bool = False) -> Calibration:
    names = tuple(f.name for f in dataclasses.fields(Calibration))
    check_keys(data, names, place)
    values = {
        key: number(data[key], f"{place}: {key}", -1e15, 1e15) for key in names if key != "wrong"
    }
    wrong = data["wrong"]
    if wrong is not None:
        if of_wrong:
            raise ValueError(f"{place}: wrong: is not null")
        wrong = _calibration(wrong, f"{place}: wrong", of_wrong=True)
    try:
        return Calibration(**values, wrong=wrong)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
