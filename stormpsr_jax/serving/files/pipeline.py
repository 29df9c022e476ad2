"""A recording through the networks, chunk by chunk, with decoding ahead of them in a thread."""

from __future__ import annotations

import collections
import dataclasses
import math
import tempfile
from collections.abc import Generator, Iterator

import numpy as np
import simplejpeg
from PIL import Image

from stormpsr_jax.media.ahead import ahead
from stormpsr_jax.media.pictures import Pictures, read_upright
from stormpsr_jax.psr.streams.learned_beliefs import Belief
from stormpsr_jax.psr.streams.rules import Event
from stormpsr_jax.psr.streams.stream import OnlineDecoder
from stormpsr_jax.serving.model import Model
from stormpsr_jax.serving.product_gate_watch import Watch
from stormpsr_jax.serving.recogniser import Recognised, Rows, decode_row, stack

THUMBNAIL = 320  # pixels of the longer side, at most
# Of pictures that are kept until they are in a video, and of those in a report.
_QUALITY, _THUMBNAIL_QUALITY = 95, 85
# Pixels of a picture that goes into a video. Of larger ones (4K becomes 1920 x 1080) an encoder
# holds some GiB, and a screen shows no more.
MAX_SHOWN = 2**22
_DEPTH = 2  # chunks, so that memory stays that of a few
_MAX_KEPT = 2**26  # bytes of the pictures of a chunk, which then has fewer
# Bytes of those that wait in memory until it is known whether they fit; further ones are in files.
_MAX_HELD = 2**28


@dataclasses.dataclass
class Chunk:
    """B consecutive frames.

    Attributes:
        numbers: of the frames.
        jpegs: their pictures, each as a JPEG file: whole, up to MAX_SHOWN pixels, or THUMBNAIL
            pixels a side at most.
        recognised: what the networks say about them.
        events: that complete at them.
        beliefs: of each component after each of them, in 0…1; None of a stream without, and before
            the first one.
        fits: whether each of them fits the model; None where that is not known.
        decoded: whether each of them was decoded. Those of another product were not.
    """

    numbers: range
    jpegs: list[bytes]
    recognised: Recognised
    events: list[Event]
    beliefs: list[Belief | None]
    fits: list[bool | None]
    decoded: list[bool]


def run(
    model: Model,
    pictures: Pictures,
    decoder: OnlineDecoder,
    watch: Watch,
    batch: int,
    whole: bool,
) -> Generator[Chunk]:
    """Yields the chunks of a recording, in order, as soon as it is known whether they fit.

    Pictures are decoded in one thread and recognised in another, each at most a few chunks ahead.

    Args:
        model: on pictures.
        pictures: of the recording.
        decoder: of the recording, at its start.
        watch: of the model, at its start.
        batch: B, frames computed at once.
        whole: keep the pictures for a video, else only as thumbnails.

    Raises:
        ValueError: a picture cannot be read.
        MemoryError: no memory for the batch.
    """
    return ahead(_recognised(model, pictures, decoder, watch, batch, whole), 1)


def _recognised(
    model: Model,
    pictures: Pictures,
    decoder: OnlineDecoder,
    watch: Watch,
    batch: int,
    whole: bool,
) -> Generator[Chunk]:
    held: collections.deque[_Waiting] = collections.deque()
    last = pictures.first_frame - 1
    try:
        for chunk in _seen(model, pictures, decoder.stream, watch, batch, whole):
            last = chunk.numbers[-1]
            held.append(_Waiting(chunk, sum(one.num_bytes for one in held) > _MAX_HELD))
            if not watch.holding:
                # The first verdict counts: within a chunk of a slow source there may be others.
                # Of a model that cannot tell nothing has waited.
                pairs = zip(chunk.numbers, chunk.fits, strict=True)
                told = ((number, fits) for number, fits in pairs if fits is not None)
                known, fits = next(told, (chunk.numbers[0], watch.fits))
                yield from _decoded(held, decoder, fits, known - watch.patience)
            elif last - held[0].numbers[-1] >= watch.patience:
                # Too old: it was no clear view of anything but an initial state.
                yield held.popleft().take()
        watch.finish()
        yield from _decoded(held, decoder, watch.fits, last - watch.patience + 1)
    finally:
        for one in held:
            one.close()


class _Waiting:
    """A chunk that waits; its pictures are in a file without a name where others fill memory."""

    def __init__(self, chunk: Chunk, in_file: bool):
        self._chunk, self._file = chunk, tempfile.TemporaryFile() if in_file else None
        self._sizes = [len(jpeg) for jpeg in chunk.jpegs]
        if self._file is not None:
            self._file.writelines(chunk.jpegs)
            chunk.jpegs = []

    @property
    def numbers(self) -> range:
        return self._chunk.numbers

    @property
    def num_bytes(self) -> int:
        """Of its pictures, in memory."""
        return 0 if self._file is not None else sum(self._sizes)

    def take(self) -> Chunk:
        """The chunk as it was."""
        if self._file is not None:
            self._file.seek(0)
            self._chunk.jpegs = [self._file.read(size) for size in self._sizes]
            self.close()
        return self._chunk

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _seen(
    model: Model, pictures: Pictures, stream: str, watch: Watch, batch: int, whole: bool
) -> Generator[Chunk]:
    """The chunks before they are decoded."""
    recogniser = model.recogniser(batch, stream)
    first = pictures.first_frame
    for rows, jpegs in ahead(_prepared(model, pictures, stream, batch, whole), _DEPTH):
        numbers = range(first, first + len(jpegs))
        recognised = recogniser(rows)
        fits = [watch.update(value) for value in watch.of(recognised)]
        nothing: list[None] = [None] * len(jpegs)
        yield Chunk(numbers, jpegs, recognised, [], [*nothing], fits, [False] * len(jpegs))
        first += len(jpegs)


def _decoded(
    held: collections.deque[_Waiting], decoder: OnlineDecoder, fits: bool | None, first: int
) -> Iterator[Chunk]:
    """Decodes what is held; `fits` is of those of which it was not known before.

    Of these, frames before the `first` are too old, as `fits_watch.Held` has it.
    """
    while held:
        chunk = held.popleft().take()
        for i, number in enumerate(chunk.numbers):
            too_old = chunk.fits[i] is None and number < first
            chunk.fits[i] = fits if chunk.fits[i] is None else chunk.fits[i]
            chunk.decoded[i] = chunk.fits[i] is not False and not too_old
            if chunk.decoded[i]:
                chunk.events += decode_row(decoder, number, chunk.recognised, i)
            if decoder.belief is not None:
                chunk.beliefs[i] = decoder.belief.probabilities()
        yield chunk


def _prepared(
    model: Model, pictures: Pictures, stream: str, batch: int, whole: bool
) -> Generator[tuple[Rows, list[bytes]]]:
    keep = to_jpeg if whole else thumbnail
    each = ((model.prepare(p, stream), keep(p)) for p in read_upright(pictures))
    rows: list[Rows] = []
    jpegs: list[bytes] = []
    for row, jpeg in each:
        rows.append(row)
        jpegs.append(jpeg)
        if len(rows) == batch or sum(map(len, jpegs)) > _MAX_KEPT:
            yield stack(rows), jpegs
            rows, jpegs = [], []
    if rows:
        yield stack(rows), jpegs


def to_jpeg(picture: np.ndarray) -> bytes:
    """Returns a picture uint8 (H, W, 3) as a JPEG file that looks the same.

    One of more than MAX_SHOWN pixels is reduced to a half, a third and so on.
    """
    factor = math.ceil(math.sqrt(picture.shape[0] * picture.shape[1] / MAX_SHOWN))
    return simplejpeg.encode_jpeg(_reduced(picture, factor), _QUALITY, "RGB", "444")


def thumbnail(picture: np.ndarray, longest: int = THUMBNAIL) -> bytes:
    """Returns a picture uint8 (H, W, 3) as a JPEG file of at most `longest` pixels a side."""
    factor = math.ceil(max(picture.shape[:2]) / longest)
    return simplejpeg.encode_jpeg(_reduced(picture, factor), _THUMBNAIL_QUALITY)


def _reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    if factor > 1:
        picture = np.asarray(Image.fromarray(picture).reduce(factor))
    return np.ascontiguousarray(picture)
