"""Recognition frame by frame or chunk by chunk: each frame is encoded once, the window slides."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stormpsr_jax.base import memory
from stormpsr_jax.psr.events import Event, Observation, OnlineDecoder
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.recordings import scores
from stormpsr_jax.recordings.predictions import DETECTION_DECIMALS, TEMPORAL_DECIMALS, as_written


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
    """The same pictures in the sizes of two networks, or one picture in both.

    Attributes:
        encoder: uint8 (B, H, W, 3) or (H, W, 3); None if there is no such network.
        detector: the same, of another size.
    """

    encoder: np.ndarray | None
    detector: np.ndarray | None

    def __len__(self) -> int:
        return next(len(view) for view in (self.encoder, self.detector) if view is not None)


Rows = np.ndarray | Views


def stack(rows: Sequence[Rows]) -> Rows:
    """Puts B rows together, each an array or a picture in two sizes."""
    if arrays := [row for row in rows if isinstance(row, np.ndarray)]:
        return np.stack(arrays)
    views = [row for row in rows if isinstance(row, Views)]
    encoder = [view.encoder for view in views if view.encoder is not None]
    detector = [view.detector for view in views if view.detector is not None]
    return Views(np.stack(encoder) if encoder else None, np.stack(detector) if detector else None)


def _view(rows: Rows, role: str) -> np.ndarray:
    """What the network of this role sees of them, "encoder" or "detector"."""
    view = getattr(rows, role) if isinstance(rows, Views) else rows
    if view is None:
        raise ValueError(f"pictures for the {role} are missing")
    return view


class Detected(NamedTuple):
    """What the detector says about B frames, in M rows each.

    Attributes:
        boxes: (B, M, 4) cx, cy, w, h in 0…1.
        classes: (B, M) 1…S + 1; 0 where there is no further detection.
        confidences: (B, M).
    """

    boxes: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray


@dataclasses.dataclass
class Recognised:
    """What both streams say about B consecutive frames; a stream that is absent leaves None.

    Attributes:
        probabilities: (B, K), that each component changed inside the window that ends at the frame.
        detected: in these frames.
        scores: of B frames, as prediction files have them; None without a temporal network, and
            without a detector where that says nothing of states.
    """

    probabilities: np.ndarray | None
    detected: Detected | None
    scores: scores.FrameScores | None = None

    def top(self, i: int) -> tuple[int, float, np.ndarray] | None:
        """(class, confidence, box) of the most confident detection in frame i, or None."""
        if self.detected is None:
            return None
        boxes, classes, confidences = (column[i] for column in self.detected)
        if not (classes > 0).any():
            return None
        row = int(np.where(classes > 0, confidences, -1).argmax())
        return int(classes[row]), float(confidences[row]), boxes[row]


class Recogniser:
    """Both streams over one video. Memory is that of one window, whatever the video's length.

    Attributes:
        window: the embeddings (frames, D) of the frames before the next one; None at the start. Set
            to what it was once, recognition goes on from there.
    """

    def __init__(
        self,
        *,
        encode: Callable[[np.ndarray], np.ndarray] | None,
        temporal: Callable[[np.ndarray], tuple] | None,
        detect: Callable[[np.ndarray], tuple] | None,
        frames: int,
        stride: int,
    ):
        """Takes functions of `content.Networks`; without `encode` frames come as embeddings.

        A window spans `frames`, of which every stride-th is looked at.
        """
        self._encode, self._temporal, self._detect = encode, temporal, detect
        self._frames = frames
        self._offsets = np.arange(0, frames + 1, stride)
        self.window: np.ndarray | None = None

    def __call__(self, images: Rows) -> Recognised:
        """Takes the next frames, uint8 (B, H, W, 3); embeddings (B, D) without `encode`.

        Where the two networks look at pictures of different sizes, `Views` of them.

        Raises:
            ValueError: B is 0.
        """
        if not len(images):
            raise ValueError("a chunk of a video has at least one frame")
        probabilities = logits = None
        tells = self._detect is not None  # of states
        if self._temporal:
            new = _view(images, "encoder")
            new = self._encode(new) if self._encode else new
            if self.window is None:  # a window that begins before the video repeats its first frame
                memory.check_fits(self._frames * new[0].nbytes, "the window of embeddings")
                self.window = np.repeat(new[:1], self._frames, axis=0)
            embedded = np.concatenate([self.window, new])
            self.window = embedded[len(new) :]
            windows = np.arange(len(new))[:, None] + self._offsets
            probabilities, logits = self._temporal(embedded[windows])
            tells |= logits is not None and logits.shape[1] > probabilities.shape[1]
        detected = found = None
        of_pictures = None, None, None
        if self._detect:
            *columns, of_pictures = self._detect(_view(images, "detector"))
            detected = Detected(*columns)
        if self._temporal and tells:
            found = scores.as_written(scores.FrameScores(*of_pictures, logits))
        return Recognised(probabilities, detected, found)

    @property
    def detects(self) -> bool:
        """Whether it looks for the object."""
        return self._detect is not None

    def miss(self, count: int) -> None:
        """Passes over frames that are missing; in the window each repeats the one before it."""
        if self.window is not None and count > 0:
            kept = self.window[count:]
            held = np.repeat(self.window[-1:], self._frames - len(kept), axis=0)
            self.window = np.concatenate([kept, held])


def decode_row(
    decoder: OnlineDecoder, frame: int, recognised: Recognised, i: int, stands: int = 1
) -> list[Event]:
    """The events that complete in row i of consecutive ones.

    Confidences and scores are rounded as in prediction files, so that the same events come out as
    when those are written, read and decoded (stages `predict` and `evaluate`).
    A row `stands` for several frames where the camera is slower than the model.
    """
    detections, windows, found = [], None, None
    if recognised.detected is not None:
        _, classes, confidences = (column[i] for column in recognised.detected)
        there = classes > 0  # the other rows are unused
        rounded = as_written(confidences[there].tolist(), DETECTION_DECIMALS)
        detections = list(zip(classes[there].tolist(), rounded, strict=True))
    if recognised.probabilities is not None:
        windows = as_written(recognised.probabilities[i].tolist(), TEMPORAL_DECIMALS)
    if recognised.scores is not None:
        found = scores.row(recognised.scores, i)
    return decoder.observe(frame, Observation(detections, windows, found), stands)


@dataclasses.dataclass
class Chunk:
    """B rows in order.

    Attributes:
        numbers: of their frames.
        events: that complete at them.
        beliefs: of each component after each of them, in 0…1; None of a stream without, and before
            the first one.
    """

    numbers: range
    recognised: Recognised
    events: list[Event]
    beliefs: list[Belief | None]


def decoded(
    recogniser: Recogniser,
    decoder: OnlineDecoder,
    rows: Iterator[Rows],
    batch: int,
    first_frame: int,
) -> Iterator[Chunk]:
    """Yields all rows of a recording, `batch` at a time; both make a start with it."""
    start = first_frame
    while part := list(itertools.islice(rows, batch)):
        seen = recogniser(stack(part))
        numbers = range(start, start + len(part))
        chunk = Chunk(numbers, seen, [], [])
        for i, number in enumerate(numbers):
            chunk.events += decode_row(decoder, number, seen, i)
            belief = decoder.belief
            chunk.beliefs.append(None if belief is None else belief.probabilities())
        yield chunk
        start = numbers.stop
