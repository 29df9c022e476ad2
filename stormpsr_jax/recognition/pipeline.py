"""A recording through the networks, chunk by chunk, with decoding ahead of them in a thread."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image

from data_prep.reading.pictures import Pictures, read_upright
from stormpsr_jax.model import Model
from stormpsr_jax.psr import learned
from stormpsr_jax.psr.decoding import Event
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.recognition.ahead import ahead
from stormpsr_jax.stream import AnyDecoder, Recognised, decode_row

THUMBNAIL = 320  # pixels of the longer side, at most
# Of pictures that are kept until they are in a video, and of those in a report.
_QUALITY, _THUMBNAIL_QUALITY = 95, 85
_DEPTH = 2  # chunks, so that memory stays that of a few


@dataclasses.dataclass
class Chunk:
    """B consecutive frames.

    Attributes:
        numbers: of the frames.
        jpegs: their pictures, each as a JPEG file: whole, or at most THUMBNAIL pixels large.
        recognised: what the networks say about them.
        events: that complete at them.
        beliefs: of each component after each of them, in 0…1; of stream "learned" alone.
    """

    numbers: range
    jpegs: list[bytes]
    recognised: Recognised
    events: list[Event]
    beliefs: list[Belief] | None


def run(
    model: Model, pictures: Pictures, decoder: AnyDecoder, batch: int, whole: bool
) -> Iterator[Chunk]:
    """Yields the chunks of a recording, in order.

    Pictures are decoded in one thread and recognised in another, each at most a few chunks ahead.

    Args:
        model: on pictures.
        pictures: of the recording.
        decoder: of the recording, at its start.
        batch: B, frames computed at once.
        whole: keep the pictures in their size, else only as thumbnails.

    Raises:
        ValueError: a picture cannot be read.
        MemoryError: no memory for the batch.
    """
    return ahead(_recognised(model, pictures, decoder, batch, whole), 1)


def _recognised(
    model: Model, pictures: Pictures, decoder: AnyDecoder, batch: int, whole: bool
) -> Iterator[Chunk]:
    recogniser = model.recogniser(batch, decoder.stream)
    first = pictures.first_frame
    for rows, jpegs in ahead(_prepared(model, pictures, batch, whole), _DEPTH):
        numbers = range(first, first + len(rows))
        recognised = recogniser(rows)
        events: list[Event] = []
        beliefs: list[Belief] | None = [] if decoder.stream == learned.STREAM else None
        for i, number in enumerate(numbers):
            events += decode_row(decoder, number, recognised, i)
            if beliefs is not None:
                beliefs.append(decoder.belief.probabilities())
        yield Chunk(numbers, jpegs, recognised, events, beliefs)
        first += len(rows)


def _prepared(
    model: Model, pictures: Pictures, batch: int, whole: bool
) -> Iterator[tuple[np.ndarray, list[bytes]]]:
    keep = to_jpeg if whole else thumbnail
    each = ((model.preprocess(p), keep(p)) for p in read_upright(pictures))
    while part := list(itertools.islice(each, batch)):
        rows, jpegs = zip(*part, strict=True)
        yield np.stack(rows), list(jpegs)


def to_jpeg(picture: np.ndarray) -> bytes:
    """Returns a picture uint8 (H, W, 3) as a JPEG file that looks the same."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(picture), _QUALITY, "RGB", "444")


def thumbnail(picture: np.ndarray, longest: int = THUMBNAIL) -> bytes:
    """Returns a picture uint8 (H, W, 3) as a JPEG file of at most `longest` pixels a side."""
    factor = math.ceil(max(picture.shape[:2]) / longest)
    if factor > 1:
        picture = np.asarray(Image.fromarray(picture).reduce(factor))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(picture), _THUMBNAIL_QUALITY)
