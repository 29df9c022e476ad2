"""The list of streams. Another one is a file beside this one, and a line here."""

from collections.abc import Mapping

from stormpsr_jax.psr.accumulated import ASD, STORM, TEMPORAL
from stormpsr_jax.psr.learned import LEARNED
from stormpsr_jax.psr.stream import Stream, named
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions

# The last one that a model has is its default.
STREAMS: tuple[Stream, ...] = (ASD, TEMPORAL, STORM, LEARNED)
# The method of the paper, and what it is compared with.
METHOD, BASELINE = STORM, ASD


def names() -> list[str]:
    """Returns the names of all streams, in order."""
    return [stream.name for stream in STREAMS]


def find(name: str) -> Stream:
    """Returns the stream of this name; ValueError if there is none."""
    return named(name, STREAMS)


def available(recordings: Mapping[str, LabelledPredictions], decoder: str) -> list[Stream]:
    """Returns the streams that can be decoded: all recordings have what they need."""
    return [
        stream
        for stream in STREAMS
        if decoder in stream.decoders
        and all(r.of_kind(kind) is not None for r in recordings.values() for kind in stream.needs)
    ]
