"""The list of streams. Another one is a file beside this one, and a line here.

`asd` and `temporal` go by one network each; `storm` is both, fused by Eq. 9 of STORM-PSR.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stormpsr_jax.psr import batch_decoding
from stormpsr_jax.psr.accumulation import Decoder, Settings
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.learned_stream import LEARNED
from stormpsr_jax.psr.stream import Look, Stream
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant

THRESHOLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
# Removals are rarer than installations, so a threshold below that of these is not looked at.
REMOVALS = (1.5, 3.0, 6.0, 12.0, 24.0)
CONFIDENCES = (0.3, 0.5, 0.7, 0.8, 0.9)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SumStream(Stream):
    """A stream of the papers, which sums up evidence (`accumulation.py`).

    Attributes:
        varied: by field of the settings, what it is chosen from besides the thresholds; the naive
            decoder, which has no thresholds, has its floor chosen instead.
        taken: by field of the settings, the stream whose chosen value it takes. So the fused stream
            searches no floor and gate of its own, which would be ten times as many settings to be
            lucky with.
        keeps: whether, where nothing can be chosen, its sums do not decay on frames that show
            nothing. Of detections alone that costs hardly anything in the worlds tried
            (benchmarks/results/noise.md); with windows it has more false acceptances.
    """

    settings: type[Settings] = Settings
    varied: Mapping[str, Sequence[float]]
    taken: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keeps: bool = False

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

    def grid(self, base: Settings, chosen: Mapping[str, Any]) -> list[Settings]:
        """Returns the settings that the stream is chosen from, all without removals."""
        varied: dict[str, Sequence[Any]] = {**self.varied, "threshold": THRESHOLDS}
        if base.decoder == "naive":
            varied = {"confidence": CONFIDENCES}
        taken = {field: getattr(chosen[name], field) for field, name in self.taken.items()}
        return [
            dataclasses.replace(base, **taken, **dict(zip(varied, values, strict=True)))
            for values in itertools.product(*varied.values())
        ]

    def refinements(self, settings: Settings) -> list[Settings]:
        """Returns the settings with every threshold, and every one of removals that is not lower.

        None for the naive decoder, which has none.
        """
        if settings.decoder == "naive":
            return []
        return [
            dataclasses.replace(settings, threshold=threshold, removal=removal)
            for threshold in THRESHOLDS
            for removal in (None, *(r for r in REMOVALS if r >= threshold))
        ]

    def fixed_settings(
        self, procedure: Procedure, base: Settings, threshold: float = 0.0, paper: bool = True
    ) -> list[Settings]:
        """Returns the settings with the paper's thresholds, or with one of the released scripts.

        These have 8 where the paper has 6. The defaults of `Settings` are the paper's.
        """
        if self.keeps and not paper and base.decoder != "naive" and base.unseen_decay is None:
            base = dataclasses.replace(base, unseen_decay=1.0)
        # Of another procedure the higher, unless that is out of reach: with rows on every fourth
        # frame alone, no sum exceeds 1.8 at the paper's decay.
        of_paper = {"industreal": (6.0,), "meccano": (1.0,)}.get(procedure.name, (6.0, 1.0))
        thresholds = (threshold,) if threshold else of_paper
        return [dataclasses.replace(base, threshold=t, removal=None) for t in thresholds]


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
    varied={"confidence": CONFIDENCES},
    keeps=True,
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
    varied={"gate": (0.5, 0.8)},
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
    varied={"weight": (0.15, 0.3, 0.5, 0.7)},
    taken={"confidence": ASD.name, "gate": TEMPORAL.name},
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
