"""The one driver of frames: what was seen in each picture, the events and the beliefs.

Each picture is encoded once, and the window slides. A live source has gaps; a file is one without.

Dimension letters: B batch, T frames of a clip, H W image, D features, K components, S states, M
detections of a picture.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import operator
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base import memory
from stormpsr_jax.media.framing import WHOLE, Framing
from stormpsr_jax.psr.events import Event, Observation, OnlineDecoder
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.recordings import scores
from stormpsr_jax.recordings.predictions import (
    DETECTION_DECIMALS,
    TEMPORAL_DECIMALS,
    Detections,
    TemporalPredictions,
    as_written,
)
from stormpsr_jax.serving.content import Function, Window

RATE_OF = 5  # gaps between pictures that tell a camera's rate
Top = tuple[int, float, np.ndarray]  # class, confidence, box (4,) cx, cy, w, h in 0…1


class Views(NamedTuple):
    """A picture, or B of them, as two networks see it; None for a network that is not asked."""

    encoder: np.ndarray | None  # uint8 (H, W, 3), or an embedding (D,) where there is no encoder
    detector: np.ndarray | None  # uint8 (H, W, 3), maybe of another size
    # x0, y0, x1, y1 in 0…1, the part that both see; None where it is the same of all pictures.
    region: np.ndarray | None = None


Chunk = tuple[Sequence[int], Views]  # the numbers of B frames, ascending, and their pictures


def stack(rows: Iterable[Views]) -> Views:
    """Puts B pictures together."""
    columns = zip(*rows, strict=True)
    return Views(*(None if column[0] is None else np.stack(column) for column in columns))


def chunks(rows: Iterator[Views], batch: int, first_frame: int = 0) -> Iterator[Chunk]:
    """Yields all pictures of a recording without gaps, `batch` at a time."""
    while part := list(itertools.islice(rows, batch)):
        yield range(first_frame, first_frame + len(part)), stack(part)
        first_frame += len(part)


class Detected(NamedTuple):
    """What the detector says about a picture, in M rows."""

    boxes: np.ndarray  # (M, 4) cx, cy, w, h in 0…1
    classes: np.ndarray  # (M,) 1…S + 1; 0 where there is no further detection
    confidences: np.ndarray  # (M,)


class Frame(NamedTuple):
    """A frame that has a picture. What belongs to an absent network or decoder is None."""

    number: int
    detected: Detected | None = None
    # (K,) probabilities that each component changed inside the window that ends here.
    changed: np.ndarray | None = None
    # As prediction files have them; None also without a detector, where nothing is said of states.
    scores: scores.FrameScores | None = None
    events: Sequence[Event] = ()  # that complete here, by step id; none without a decoder
    belief: Belief | None = None  # of each component, in 0…1
    region: np.ndarray | None = None  # of `Views`

    @property
    def top(self) -> Top | None:
        """The most confident detection, or None."""
        if self.detected is None or not (self.detected.classes > 0).any():
            return None
        boxes, classes, confidences = self.detected
        row = int(np.where(classes > 0, confidences, -1).argmax())
        return int(classes[row]), float(confidences[row]), boxes[row]

    def clear(self, floor: float) -> Top | None:
        """The most confident detection above a confidence; weaker ones are no evidence."""
        return self.top if self.top is not None and self.top[1] > floor else None

    def framed(self, framing: Framing) -> Framing:
        """How its picture became what networks saw, given how a model's pictures do."""
        if self.region is None:
            return framing
        x0, y0, x1, y1 = self.region.tolist()
        return dataclasses.replace(framing, region=(x0, y0, x1, y1))

    def observation(self) -> Observation:
        """What a decoder sees.

        Confidences and scores are rounded as in prediction files, so that the same events come out
        as when those are written, read and decoded (stages `predict` and `evaluate`).
        """
        detections, windows = [], None
        if self.detected is not None:
            _, classes, confidences = self.detected
            there = classes > 0  # the other rows are unused
            rounded = as_written(confidences[there].tolist(), DETECTION_DECIMALS)
            detections = list(zip(classes[there].tolist(), rounded, strict=True))
        if self.changed is not None:
            windows = as_written(self.changed.tolist(), TEMPORAL_DECIMALS)
        return Observation(detections, windows, self.scores)


class Frames:
    """Both streams and the decoder over one recording. Memory is that of one window.

    A frame without a picture is one without evidence: what was summed up decays, and in the window
    it repeats the frame before it. With `window`, `last` and `gaps` as they were once, and the
    decoder restored, recognition goes on from there.

    Attributes:
        decoder: makes the events; None makes none.
        window: the embeddings (frames, D) of the frames before the next one; None at the start.
        last: the number of the last frame; None at the start.
        gaps: frames from each of the last pictures to the next.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        window: Window,
        decoder: OnlineDecoder | None = None,
    ):
        """Takes what `content.Networks.functions` has, or some of it.

        With "temporal" and without "encode" pictures come as embeddings.
        """
        self._functions, self.decoder = functions, decoder
        self._frames = window.frames
        self._offsets = np.arange(0, window.frames + 1, window.stride)
        self.window: np.ndarray | None = None
        self.last: int | None = None
        self.gaps: collections.deque[int] = collections.deque(maxlen=RATE_OF)

    @property
    def detects(self) -> bool:
        """Whether it looks for the object."""
        return "detect" in self._functions

    def over(self, parts: Iterable[Chunk]) -> Iterator[list[Frame]]:
        """Yields the frames of each chunk of the recording, all later than those before.

        Chunks have one frame at least. Some are taken ahead, as networks compute several at once.
        """
        parts, outputs = iter(parts), {}
        for view, name in enumerate(("encode", "detect")):
            if function := self._functions.get(name):
                parts, copy = itertools.tee(parts)
                seen = map(operator.itemgetter(view), map(operator.itemgetter(1), copy))
                # Of several at once where the function can.
                over = getattr(function, "over", None)
                outputs[name] = over(seen) if over else map(function, seen)
        for numbers, views in parts:
            said = {name: next(output) for name, output in outputs.items()}
            new = said.get("encode", views.encoder)
            yield self._chunk(numbers, new, said.get("detect"), views.region)

    def _chunk(
        self, numbers: Sequence[int], new: Any, detected: Any, regions: np.ndarray | None
    ) -> list[Frame]:
        """The frames of embeddings (B, D) and of what the detector says of B pictures."""
        before = numbers[0] - 1 if self.last is None else self.last
        passed = np.diff([before, *numbers])
        probabilities = written = None
        columns, (objectness, states, parts) = (), (None, None, None)
        if detected is not None:
            *columns, (objectness, states, parts) = detected
        if temporal := self._functions.get("temporal"):
            probabilities, logits = temporal(self._windows(new, passed))
            three = logits is not None and logits.shape[1] > probabilities.shape[1]
            if detected is not None or three:  # it is told of states
                written = scores.as_written(scores.FrameScores(objectness, states, parts, logits))
        frames = []
        for i, (number, gap) in enumerate(zip(numbers, passed.tolist(), strict=True)):
            frame = Frame(
                number,
                Detected(*(column[i] for column in columns)) if columns else None,
                None if probabilities is None else probabilities[i],
                None if written is None else scores.row(written, i),
                region=None if regions is None else regions[i],
            )
            if self.last is not None:
                self.gaps.append(gap)
            self.last = number
            frames.append(frame if self.decoder is None else self._decoded(frame, gap))
        return frames

    def _decoded(self, frame: Frame, gap: int) -> Frame:
        assert self.decoder is not None
        # A picture of a slow camera stands for those up to it; one after a dropout does not.
        stands = min(gap, statistics.median_low(self.gaps or [1]))
        events = self.decoder.observe(frame.number, frame.observation(), stands)
        belief = self.decoder.belief
        return frame._replace(events=events, belief=belief and belief.probabilities())

    def _windows(self, new: np.ndarray, passed: np.ndarray) -> np.ndarray:
        """The clips (B, T, D) that end at B frames, each so many frames after the one before."""
        if self.window is None:  # a window that begins before the video repeats its first frame
            memory.check_fits(self._frames * new[0].nbytes, "the window of embeddings")
            self.window = np.repeat(new[:1], self._frames, axis=0)
        embedded = np.concatenate([self.window, new])
        ends = np.arange(self._frames, len(embedded))
        missing = np.minimum(passed - 1, self._frames)
        if missing.any():
            times = np.ones(len(embedded), int)
            times[ends - 1] += missing
            embedded, ends = np.repeat(embedded, times, axis=0), ends + missing.cumsum()
        self.window = embedded[len(embedded) - self._frames :]
        return embedded[ends[:, None] - self._frames + self._offsets]


# --- Frames as predictions ------------------------------------------------------------------------


def detections(frames: Sequence[Frame]) -> Detections | None:
    """What the detector says of frames, of which there is one; None without a detector."""
    found = [frame.detected for frame in frames if frame.detected is not None]
    if not found:
        return None
    boxes, classes, confidences = map(np.stack, zip(*found, strict=True))
    i, row = np.nonzero(classes > 0)
    numbers = np.array([frame.number for frame in frames])
    return Detections(numbers[i], classes[i, row], confidences[i, row], boxes[i, row])


def changes(
    frames: Sequence[Frame], labels: np.ndarray | None = None
) -> TemporalPredictions | None:
    """What the temporal network says of frames, of which there is one; None without.

    `labels` (N, K) are the truth; None where nobody knows it.
    """
    found = [frame.changed for frame in frames if frame.changed is not None]
    if not found:
        return None
    changed = np.stack(found)
    predicted = (changed > 0.5).astype(int)
    labels = np.zeros_like(predicted) if labels is None else labels
    numbers = np.array([frame.number for frame in frames])
    return TemporalPredictions(numbers, labels, predicted, changed)


SURE = 0.7  # confidence of the top detection above which a picture shows the product
FAR_LESS = 0.25  # of the model's share
LEAST = 0.02  # share of a model below which a source with none of it tells nothing
ENOUGH = 10.0  # seconds of a recording from which on it is judged
# Seconds: a station is judged from when it has run so long, by pictures of so long.
START, MEMORY = 60.0, 300.0


def lowest_share(recordings: Iterable[tuple[Detections, int]]) -> float | None:
    """The share of a model, from the detections in validation recordings and their lengths.

    None if there is no recording, or one hardly shows the product.
    """
    shares = []
    for found, count in recordings:
        sure = (found.classes > 0) & (found.confidences > SURE)
        shares.append(len(np.unique(found.frames[sure])) / count)
    lowest = min(shares, default=0.0)
    return round(lowest, 4) if lowest >= LEAST else None


class ProductShare:
    """Counts the pictures of a source that show the product; the memory does not grow."""

    def __init__(self, of_model: float | None, rate: float, station: bool = False):
        """Begins; `rate`: pictures a second; `station`: the source may go on for ever."""
        self.of_model = of_model  # the lowest share of a validation recording, where it is known
        # Pictures that show the product, and all; of a station those of long ago count less.
        self.counts = (0.0, 0.0)
        self._enough = rate * (START if station else ENOUGH)
        self._keeps = math.exp(-1 / (rate * MEMORY)) if station else 1.0

    def update(self, frame: Frame) -> None:
        """Takes the next picture; of a stream without a detector nothing is known."""
        if frame.detected is not None:
            shown, (seen, count) = frame.top is not None and frame.top[1] > SURE, self.counts
            self.counts = seen * self._keeps + shown, count * self._keeps + 1

    @property
    def share(self) -> float | None:
        """The share of pictures that show the product; None where there are too few of them."""
        seen, count = self.counts
        return seen / count if count >= max(1, self._enough) else None

    @property
    def fits(self) -> bool | None:
        """Whether the source shows the model's product; None where that cannot be told."""
        if self.of_model is None or self.share is None:
            return None
        return self.share >= FAR_LESS * self.of_model

    def __str__(self) -> str:
        """Both shares, for people; "" where one is not known."""
        if self.of_model is None or self.share is None:
            return ""
        return (
            f"the detector is sure of the product in {self.share:.1%} of the pictures, in "
            f"validation it was in {self.of_model:.1%} or more"
        )


MARGIN = 1.3  # sides of the part that is looked at, in those of the product; by rendered videos
FLOOR = 0.3  # confidence above which the product is there
# Share of the way, in place and in size, from where it was to where it is found with confidence 1.
MOVE, GROW = 0.6, 0.15


class Locating:
    """Follows the product through the pictures of one source."""

    def __init__(self, locate: Function, size: tuple[int, int]):
        """Begins; `locate` takes pictures of this size (H, W)."""
        self._locate, self._framing = locate, Framing(size, "pad")
        self._at: np.ndarray | None = None  # centre in pixels, and the logarithm of its side
        # The part of the last picture to look at, and whether the product was found in it.
        self.region, self.there = WHOLE, False

    def look(self, picture: np.ndarray) -> None:
        """Takes the next picture (H, W, 3)."""
        height, width = picture.shape[:2]
        boxes, confidences = self._locate(self._framing.prepare(picture)[None])
        confidence = float(confidences[0])
        self.there = confidence > FLOOR
        if not self.there:
            return
        x0, y0, x1, y1 = self._framing.place(height, width).source_box(boxes[0])
        side = max((x1 - x0) * width, (y1 - y0) * height, 1.0)
        found = np.array([(x0 + x1) * width / 2, (y0 + y1) * height / 2, math.log(side)])
        at = found if self._at is None else self._at
        self._at = at + confidence * np.array([MOVE, MOVE, GROW]) * (found - at)
        cx, cy, side = float(self._at[0]), float(self._at[1]), MARGIN * math.exp(self._at[2])
        w, h = min(side, width), min(side, height)
        x, y = (min(max(c - s / 2, 0), of - s) for c, s, of in ((cx, w, width), (cy, h, height)))
        self.region = x / width, y / height, min((x + w) / width, 1), min((y + h) / height, 1)

    def framed(self, framing: Framing) -> Framing:
        """How the last picture becomes another one, given how it would without a region."""
        return dataclasses.replace(framing, region=self.region)

    def cut(self, picture: np.ndarray, framing: Framing) -> np.ndarray:
        """What networks see of the last picture: black where there is no product to look at.

        What they would say of hands or of other things in its place would be no evidence.
        """
        if not self.there:
            return np.zeros((*framing.size, 3), np.uint8)
        return self.framed(framing).prepare(picture)
