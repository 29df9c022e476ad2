"""The list of streams. Another one is a file beside this one, and a line here."""

from collections.abc import Mapping

from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.streams.accumulated import ASD, STORM, TEMPORAL
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.psr.streams.stream import Stream, named

# The last one that a model has is its default.
STREAMS: tuple[Stream, ...] = (ASD, TEMPORAL, STORM, LEARNED)
# The method of the paper, and what it is compared with.
METHOD, BASELINE = STORM, ASD
CLEARLY = 0.05  # of F1: from there on it is said that validation prefers another stream


def names() -> list[str]:
    """Returns the names of all streams, in order."""
    return [stream.name for stream in STREAMS]


def find(name: str) -> Stream:
    """Returns the stream of this name; ValueError if there is none."""
    return named(name, STREAMS)


def recognises_by(default: str | None, f1: Mapping[str, float | None], val: int | None) -> str:
    """Says by which stream a model recognises, and which one validation clearly prefers.

    Args:
        default: if that is not the last one of the model.
        f1: on validation, of each stream of the model, in order; of what was seen.
        val: how many recordings validate; None: not known.
    """
    name = default or list(f1)[-1]
    text = name
    if name == METHOD.name and LEARNED.name in f1:
        text += ", as its networks were not trained to tell right from incorrect"
    known = {stream: figure or 0.0 for stream, figure in f1.items()}
    best = max(known, key=known.__getitem__)
    if known[best] - known[name] > CLEARLY:
        number = "the" if val is None else str(val)
        where = f"{number} validation recording{'' if val == 1 else 's'}"
        figures = f"{best} has F1 {known[best]:.2f}, {name} {known[name]:.2f}"
        text += f"; on {where} {figures}: --stream={best}"
    return text


def available(recordings: Mapping[str, LabelledPredictions], decoder: str) -> list[Stream]:
    """Returns the streams that can be decoded: all recordings have what they need."""
    return [
        stream
        for stream in STREAMS
        if decoder in stream.decoders
        and all(r.of_kind(kind) is not None for r in recordings.values() for kind in stream.needs)
    ]
