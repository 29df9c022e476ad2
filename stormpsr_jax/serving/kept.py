"""A whole recording: what the networks say of it is kept, judged, and then decoded.

Whether it shows the model's product is known only after a minute of it, and for a stretch that does
not show it only at its end. So all outputs of the networks wait for that, and no event of another
product is told.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from stormpsr_jax.psr.files.scores import FrameScores
from stormpsr_jax.psr.streams.learned_beliefs import Belief
from stormpsr_jax.psr.streams.stream import Event, OnlineDecoder
from stormpsr_jax.serving.product_gate_watch import Watch
from stormpsr_jax.serving.recogniser import (
    Detected,
    Recognised,
    Recogniser,
    Rows,
    decode_row,
    stack,
)

MAX_IN_MEMORY = 2**28  # bytes; more goes into a file without a name


@dataclasses.dataclass
class Chunk:
    """B rows in order.

    Attributes:
        numbers: of their frames.
        fits: whether each fits the model; None of a model, or a file, where that cannot be told.
            Those that do not fit are not decoded.
        events: that complete at them.
        beliefs: of each component after each of them, in 0…1; None of a stream without, and before
            the first one.
    """

    numbers: range
    recognised: Recognised
    fits: list[bool | None]
    events: list[Event]
    beliefs: list[Belief | None]


class Kept:
    """What the networks say of one recording. Use it as a context."""

    def __init__(self, watch: Watch):
        """`watch`: of the model, at its start."""
        self._watch = watch
        self._file = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY)
        # Which arrays there are, in the order of `_arrays`, and the verdict at each row.
        self._chunks: list[tuple[list[bool], list[bool | None]]] = []

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def look(self, recogniser: Recogniser, rows: Iterator[Rows], batch: int) -> Iterator[int]:
        """Takes the rows of the recording, `batch` at a time; yields how many were taken."""
        while part := list(itertools.islice(rows, batch)):
            seen = recogniser(stack(part))
            told = [self._watch.update(view) for view in self._watch.of(seen)]
            arrays = _arrays(seen)
            for array in arrays:
                if array is not None:
                    np.lib.format.write_array(self._file, np.asarray(array), allow_pickle=False)
            self._chunks.append(([array is not None for array in arrays], told))
            yield len(part)

    @property
    def fits(self) -> bool | None:
        """Whether the recording shows the model's product; None where that is not known."""
        return self._watch.finish()

    def decoded(self, decoder: OnlineDecoder, first_frame: int) -> Iterator[Chunk]:
        """Yields all rows, with the events of those that fit.

        Rows before the first verdict go by that. `decoder` is of the recording, at its start.
        """
        told = (one for _, fits in self._chunks for one in fits if one is not None)
        first = next(told, self.fits)
        self._file.seek(0)
        start = first_frame
        for there, verdicts in self._chunks:
            seen = self._read(there)
            fits = [first if one is None else one for one in verdicts]
            numbers = range(start, start + len(fits))
            chunk = Chunk(numbers, seen, fits, [], [])
            for i, number in enumerate(numbers):
                if fits[i] is not False:
                    chunk.events += decode_row(decoder, number, seen, i)
                belief = decoder.belief
                chunk.beliefs.append(None if belief is None else belief.probabilities())
            yield chunk
            start = numbers.stop

    def _read(self, there: list[bool]) -> Recognised:
        read: list[Any] = [
            np.lib.format.read_array(self._file, allow_pickle=False) if one else None
            for one in there
        ]
        detected = Detected(*read[1:4]) if there[1] else None
        # Of clips without a detector the objectness, their first array, is absent.
        return Recognised(read[0], detected, FrameScores(*read[4:]) if any(there[4:]) else None)


def _arrays(seen: Recognised) -> list[np.ndarray | None]:
    """What is decoded, written and shown."""
    detected, scores = seen.detected or (None,) * 3, seen.scores or (None,) * 4
    return [seen.probabilities, *detected, *scores]
