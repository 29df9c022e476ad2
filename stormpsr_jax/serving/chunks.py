"""A recording from prepared pictures to events, some rows at a time."""

import dataclasses
import itertools
from collections.abc import Iterator

from stormpsr_jax.psr.events import Event, OnlineDecoder
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.serving.recogniser import Recognised, Recogniser, Rows, decode_row, stack


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
