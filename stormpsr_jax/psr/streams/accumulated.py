"""The streams of the papers: evidence is summed up until it exceeds a threshold (`decoding.py`).

`asd` and `temporal` go by one network each; `storm` is both, fused by Eq. 9 of STORM-PSR.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.streams import batch
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.decoding import Decoder
from stormpsr_jax.psr.streams.learned_weights import Weights
from stormpsr_jax.psr.streams.rules import Event, Settings, share_of_windows
from stormpsr_jax.psr.streams.stream import Stream

THRESHOLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
# Removals are rarer than installations, so a threshold below that of these is not looked at.
REMOVALS = (1.5, 3.0, 6.0, 12.0, 24.0)
CONFIDENCES = (0.3, 0.5, 0.7, 0.8, 0.9)
GATES = (0.5, 0.8)
WEIGHTS = (0.15, 0.3, 0.5, 0.7)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Accumulated(Stream):
    """A stream that sums up evidence.

    Attributes:
        varied: by field of the settings, what it is chosen from besides the thresholds; the naive
            decoder, which has no thresholds, has its floor chosen instead.
        taken: by field of the settings, the stream whose chosen value it takes. So the fused stream
            searches no floor and gate of its own, which would be ten times as many settings to be
            lucky with.
        idle: columns of reports that mean nothing to it.
        keeps: whether, where nothing can be chosen, its sums do not decay on frames that show
            nothing. Of detections alone that costs hardly anything in the worlds tried
            (benchmarks/results/noise.md); with windows it has more false acceptances.
    """

    settings: type[Any] = Settings
    flags: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {field.name: field.name for field in dataclasses.fields(Settings)}
    )
    columns: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {
            "threshold": "Threshold T",
            "confidence": "Floor",
            "weight": "Weight",
        }
    )
    varied: Mapping[str, Sequence[float]]
    taken: Mapping[str, str] = dataclasses.field(default_factory=dict)
    idle: Collection[str] = ()
    keeps: bool = False

    def with_threshold(self, settings: Settings, threshold: float) -> Settings:
        """Returns the settings with another T; ValueError if they are of the naive decoder."""
        if settings.decoder == "naive":
            raise ValueError("--threshold: the model is decoded by 'naive', which has none")
        return dataclasses.replace(settings, threshold=threshold)

    def check(self, settings: Settings) -> None:
        """Raises ValueError where the decoder has no such stream."""
        share_of_windows(self.name, settings)

    def describe(self, settings: Settings) -> str:
        """Returns a sentence for people on how events were decoded."""
        unseen = settings.unseen_decay
        return (
            f"Decoder {settings.decoder}, threshold {settings.threshold}, decay {settings.decay}, "
            + ("" if unseen is None else f"on frames that show nothing {unseen}, ")
            + f"weight {settings.weight}, floor {settings.confidence}."
        )

    def unused(self, decoder: str) -> Collection[str]:
        """Returns the columns without meaning; B1 has no threshold, and a floor in any stream."""
        return ("weight", "threshold") if decoder == "naive" else self.idle

    def grid(self, base: Settings, chosen: Mapping[str, Any]) -> list[Settings]:
        """Returns the settings that the stream is chosen from, all without removals."""
        naive = base.decoder == "naive"
        varied: dict[str, Sequence[Any]] = {**self.varied, "threshold": THRESHOLDS}
        if naive:
            varied = {"confidence": CONFIDENCES}
        taken = {field: getattr(chosen[name], field) for field, name in self.taken.items()}
        return [
            dataclasses.replace(base, **taken, **dict(zip(varied, values, strict=True)))
            for values in itertools.product(*varied.values())
        ]

    def refined(self, settings: Settings) -> list[Settings]:
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

    def fixed(
        self, procedure: Procedure, base: Settings, threshold: float = 0.0, paper: bool = True
    ) -> list[Settings]:
        """Returns the settings with the paper's thresholds; the first that finds a step counts.

        With a `threshold` other than 0 it is that one: the released scripts have 8 where the paper
        has 6. The rest is that of `base`; the defaults of `Settings` are the paper's. Without
        `paper`, `keeps` counts too.
        """
        if self.keeps and not paper and base.decoder != "naive" and base.unseen_decay is None:
            base = dataclasses.replace(base, unseen_decay=1.0)
        # Of another procedure the higher, unless that is out of reach: with rows on every fourth
        # frame alone, no sum exceeds 1.8 at the paper's decay.
        of_paper = {"industreal": (6.0,), "meccano": (1.0,)}.get(procedure.name, (6.0, 1.0))
        thresholds = (threshold,) if threshold else of_paper
        return [dataclasses.replace(base, threshold=t, removal=None) for t in thresholds]

    def decoder(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: Settings,
        *,
        calibration: Calibration | None = None,
        weights: Weights | None = None,
    ) -> Decoder:
        """Returns `decoding.Decoder`."""
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
        """Decodes with each of several settings; in a row, those that differ in thresholds at once.

        Raises:
            ValueError: as `decoding.Decoder`.
        """
        found: list[list[Event]] = []
        for settings, group in itertools.groupby(candidates, key=_without_thresholds):
            members = list(group)
            found += batch.sweep(
                procedure,
                recording.variant,
                self.name,
                settings,
                [member.threshold for member in members],
                recording.detections,
                recording.temporal,
                removals=[member.removal for member in members],
                calibration=calibration,
            )
        return found


def _without_thresholds(settings: Settings) -> Settings:
    return dataclasses.replace(settings, threshold=0.0, removal=None)


ASD = Accumulated(
    name="asd",
    title="ASD only",
    short="ASD",
    colour="blue",
    meaning="Assembly state detection in single frames.",
    summary="detections of the assembly state in single pictures",
    needs=("detections",),
    varied={"confidence": CONFIDENCES},
    idle=("weight",),
    keeps=True,
)
TEMPORAL = Accumulated(
    name="temporal",
    title="Temporal only",
    short="Temporal",
    colour="orange",
    meaning="The spatio-temporal stream: which components changed within a window of frames.",
    summary="changes of components in a window of pictures",
    needs=("windows",),
    varied={"gate": GATES},
    idle=("weight", "confidence"),
)
STORM = Accumulated(
    name="storm",
    title="STORM-PSR",
    short="STORM",
    colour="green",
    meaning="Both streams, fused per step before their evidence is accumulated.",
    summary="both, fused by Eq. 9 of the paper",
    needs=("detections", "windows"),
    decoders=("confidence", "expected"),
    varied={"weight": WEIGHTS},
    taken={"confidence": ASD.name, "gate": TEMPORAL.name},
)
