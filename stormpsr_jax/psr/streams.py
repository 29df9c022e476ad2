"""The list of streams. Another one is a file beside this one, and a line here.

`asd` and `temporal` go by one network each; `storm` is both, fused by Eq. 9 of STORM-PSR.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from stormpsr_jax.psr import batch_decoding
from stormpsr_jax.psr.accumulation import Decoder, Settings
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.candidates import CONFIDENCES, GATES, WEIGHTS, SumCandidates
from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.learned_stream import LEARNED
from stormpsr_jax.psr.stream import Look, Stream
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SumStream(Stream):
    """A stream of the papers, which sums up evidence (`accumulation.py`)."""

    settings: type[Settings] = Settings

    def decoder(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: Settings,
        *,
        calibration: Calibration | None = None,
        weights: Weights | None = None,
    ) -> Decoder:
        """Returns `accumulation.Decoder`."""
        return Decoder(procedure, variant, self.name, settings, calibration)

    def decode_each(
        self,
        procedure: Procedure,
        recording: LabelledPredictions,
        candidates: Sequence[Settings],
        weights: Weights | None = None,
        *,
        calibration: Calibration | None = None,
    ) -> list[list[Event]]:
        """Decodes with each of several settings, at once those in a row with other thresholds."""
        how = candidates, recording.detections, recording.temporal, calibration
        return batch_decoding.decode_each(procedure, recording.variant, self.name, *how)


def _describe(settings: Settings) -> str:
    unseen = settings.unseen_decay
    return (
        f"Decoder {settings.decoder}, threshold {settings.threshold}, decay {settings.decay}, "
        + ("" if unseen is None else f"on frames that show nothing {unseen}, ")
        + f"weight {settings.weight}, floor {settings.confidence}."
    )


def _columns(**further: str) -> Callable[[str], Mapping[str, str]]:
    """The columns T and further ones; B1 has no threshold, and a floor in any stream."""
    naive, others = {"confidence": "Floor"}, {"threshold": "Threshold T", **further}
    return lambda decoder: naive if decoder == "naive" else others


ASD = SumStream(
    name="asd",
    needs=("detections",),
    candidates=SumCandidates({"confidence": CONFIDENCES}, keeps=True),
    look=Look(
        title="ASD only",
        short="ASD",
        colour="blue",
        meaning="Assembly state detection in single frames.",
        summary="detections of the assembly state in single pictures",
        columns=_columns(confidence="Floor"),
        describe=_describe,
    ),
)
TEMPORAL = SumStream(
    name="temporal",
    needs=("windows",),
    candidates=SumCandidates({"gate": GATES}),
    look=Look(
        title="Temporal only",
        short="Temporal",
        colour="orange",
        meaning="The spatio-temporal stream: which components changed within a window of frames.",
        summary="changes of components in a window of pictures",
        columns=_columns(),
        describe=_describe,
    ),
)
STORM = SumStream(
    name="storm",
    needs=("detections", "windows"),
    decoders=("confidence", "expected"),
    candidates=SumCandidates(
        {"weight": WEIGHTS}, taken={"confidence": ASD.name, "gate": TEMPORAL.name}
    ),
    look=Look(
        title="STORM-PSR",
        short="STORM",
        colour="green",
        meaning="Both streams, fused per step before their evidence is accumulated.",
        summary="both, fused by Eq. 9 of the paper",
        columns=_columns(confidence="Floor", weight="Weight"),
        describe=_describe,
    ),
)
# The last one that a model has is its default.
STREAMS: tuple[Stream, ...] = (ASD, TEMPORAL, STORM, LEARNED)
# The method of the paper, and what it is compared with.
METHOD, BASELINE = STORM, ASD


def names() -> list[str]:
    """Returns the names of all streams, in order."""
    return [stream.name for stream in STREAMS]


def find(name: str) -> Stream:
    """Returns the stream of this name; ValueError if there is none."""
    for stream in STREAMS:
        if stream.name == name:
            return stream
    raise ValueError(f"stream {name!r} is not one of {', '.join(names())}")


def available(recordings: Mapping[str, LabelledPredictions], decoder: str) -> list[Stream]:
    """Returns the streams that can be decoded: all recordings have what they need."""
    return [
        stream
        for stream in STREAMS
        if decoder in stream.decoders
        and all(r.of_kind(kind) is not None for r in recordings.values() for kind in stream.needs)
    ]
