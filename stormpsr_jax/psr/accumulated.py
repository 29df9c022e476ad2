"""The streams of the papers, which sum up evidence (`accumulation.py`), and their online decoder.

`asd` and `temporal` go by one network each; `storm` is both, fused by Eq. 9 of STORM-PSR.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr import accumulation
from stormpsr_jax.psr.accumulation import Accumulator
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.stream import Event, Seen, Settings, Stream, check_same, named
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant

THRESHOLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
# Removals are rarer than installations, so a threshold below that of these is not looked at.
REMOVALS = (1.5, 3.0, 6.0, 12.0, 24.0)
CONFIDENCES = (0.3, 0.5, 0.7, 0.8, 0.9)
GATES = (0.5, 0.8)
WEIGHTS = (0.15, 0.3, 0.5, 0.7)


class Decoder:
    """Online decoder of one recording: one frame in, events out.

    Frames come in ascending order; a frame that is left out counts as one without evidence. The
    memory does not grow. `decode` gives the same events for a whole recording.

    Args:
        stream: "asd", "temporal" or "storm".
        calibration: of the events' confidences; it changes nothing else.

    Raises:
        ValueError: an unknown stream, or "storm" with the naive decoder, which has no fusion.
    """

    belief = None  # sums are no beliefs

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        stream: str,
        settings: Settings,
        calibration: Calibration | None = None,
    ) -> None:
        self.procedure, self.variant = procedure, variant
        self.stream, self.settings = stream, settings
        self._calibration = calibration
        self._weight = named(stream, STREAMS).weight_of(settings)
        self._gate = accumulation.gate(settings)
        self._sums = self._fresh()
        self._state = list(variant.initial_state)
        self._frame = -1
        self._num_seen = 0  # frames that showed something

    def _fresh(self) -> Accumulator:
        return Accumulator(
            *(self.procedure, self.variant, [self.settings], self._weight),
            *(self.stream, self._calibration),
        )

    @property
    def assembly(self) -> tuple[int, ...]:
        """The current state vector (K,)."""
        return tuple(self._state)

    def confirm(self, component: int, right: bool = True) -> None:
        """Raises ValueError: sums report a step or do not, and ask nobody."""
        raise ValueError(f"stream {self.stream} is sure of all components")

    @property
    def floor(self) -> float:
        """A detection at or below this confidence is no evidence."""
        return self.settings.confidence

    def update(
        self,
        frame: int,
        detections: Iterable[tuple[int, float]] = (),
        temporal: Sequence[float] | np.ndarray | None = None,
    ) -> list[Event]:
        """Takes one frame and returns the steps that complete at it, by step id.

        Args:
            frame: its number, larger than that of the frame before.
            detections: the detector's (class, confidence) rows, in file order. Not looked at by
                stream "temporal".
            temporal: (K,) P(component changed inside the window), or None where there is none. Not
                looked at by stream "asd".

        Raises:
            ValueError: a frame out of order, a class or a length that the procedure does not have,
                a confidence or probability outside 0…1. The frame is not taken then.
        """
        if frame <= self._frame:
            raise ValueError(f"frame {frame} does not come after frame {self._frame}")
        seen, shown, confidence = temporal is not None, 0, 0.0
        if self._weight < 1:
            top, confidence = accumulation.top_detection(
                frame, detections, self.procedure.error_class
            )
            seen = confidence > self.settings.confidence and top > 0
            if seen:
                shown = top
        changes: Sequence[tuple[int, float]] = ()
        if temporal is not None and self._weight > 0:
            changes = self._changes(frame, temporal)
        self._frame = frame
        before = self._num_seen
        self._num_seen += seen
        if not shown and not changes:
            return []
        counts = before, self._num_seen
        events = []
        for event, _ in self._sums.add(frame, counts, shown, confidence, changes):
            self._state[event.step_id // 3] ^= 1
            events.append(event)
        return events

    def _changes(self, frame: int, temporal: Sequence[float] | np.ndarray) -> list:
        """The components that changed, each with its probability."""
        if len(temporal) != len(self._state):
            raise ValueError(
                f"{len(temporal)} probabilities at frame {frame}, procedure "
                f"{self.procedure.name!r} has {len(self._state)} components"
            )
        values = temporal.tolist() if isinstance(temporal, np.ndarray) else temporal
        gate, changes = self._gate, []
        try:
            for k, probability in enumerate(values):
                if not 0 <= probability <= gate:
                    if not gate < probability <= 1:
                        what = f"the probability {probability} of component {k} is not in 0…1"
                        raise ValueError(f"frame {frame}: {what}")
                    changes.append((k, probability))
        except TypeError as error:
            raise ValueError(f"frame {frame}: {temporal!r} are not probabilities") from error
        return changes

    def observe(self, frame: int, seen: Seen, passed: int = 1) -> list[Event]:
        """Takes a picture; at frames between pictures sums decay, as the papers have it."""
        return self.update(frame, seen.detections, seen.windows)

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        # A component that may not flip has no sum, and nothing is kept of it.
        kept = [
            [getattr(own[0], name) for name in _KEPT] if own else [0] * len(_KEPT)
            for own in self._sums.sums
        ]
        return {
            "procedure": self.procedure.name,
            "variant": self.variant.name,
            "stream": self.stream,
            "settings": dataclasses.asdict(self.settings),
            "frame": self._frame,
            "num_seen": self._num_seen,
            "components": [[bit, *own] for bit, own in zip(self._state, kept, strict=True)],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError, and all stays, if it is another decoder's."""
        check_same(state, self.state(), "procedure", "variant", "stream", "settings")
        if (num := len(state["components"])) != len(self._state):
            raise ValueError(f"the saved state has {num} components")
        self._frame, self._num_seen = state["frame"], state["num_seen"]
        self._sums = self._fresh()
        for k, (bit, *values) in enumerate(state["components"]):
            self._state[k] = bit
            self._sums.sums[k].clear()
            if (one := self._sums.open(k, bit, [0])) is not None:
                for name, value in zip(_KEPT, values, strict=True):
                    setattr(one, name, value)


_KEPT = ("total", "temporal", "support", "frames", "since", "last", "blocked_until", "num_seen")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Accumulated(Stream):
    """A stream that sums up evidence.

    Attributes:
        weight: of the windows (Eq. 9); None is that of the settings.
        varied: by field of the settings, what it is chosen from besides the thresholds; the naive
            decoder, which has no thresholds, has its floor chosen instead.
        taken: by field of the settings, the stream whose chosen value it takes. So the fused stream
            searches no floor and gate of its own, which would be ten times as many settings to be
            lucky with.
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
    weight: float | None = None
    varied: Mapping[str, Sequence[float]]
    taken: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keeps: bool = False

    def with_threshold(self, settings: Settings, threshold: float) -> Settings:
        """Returns the settings with another T; ValueError if they are of the naive decoder."""
        if settings.decoder == "naive":
            raise ValueError("--threshold: the model is decoded by 'naive', which has none")
        return dataclasses.replace(settings, threshold=threshold)

    def check(self, settings: Settings) -> None:
        """Raises ValueError where the decoder has no such stream."""
        if settings.decoder not in self.decoders:
            raise ValueError(
                f"decoder {settings.decoder!r} has no fused stream; --decoder=confidence|expected"
            )

    def weight_of(self, settings: Settings) -> float:
        """Returns the weight of the windows; ValueError where the decoder has no such stream."""
        self.check(settings)
        return settings.weight if self.weight is None else self.weight

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
        if decoder == "naive":
            return ("weight", "threshold")
        own = {"weight": self.weight is None, "confidence": "detections" in self.needs}
        return [column for column, means in own.items() if not means]

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
        """Returns `Decoder`."""
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
        return accumulation.decode_each(
            *(procedure, recording.variant, candidates, recording.detections, recording.temporal),
            weight_of=self.weight_of,
            stream=self.name,
            calibration=calibration,
        )


ASD = Accumulated(
    name="asd",
    title="ASD only",
    short="ASD",
    colour="blue",
    meaning="Assembly state detection in single frames.",
    summary="detections of the assembly state in single pictures",
    needs=("detections",),
    weight=0.0,
    varied={"confidence": CONFIDENCES},
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
    weight=1.0,
    varied={"gate": GATES},
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
STREAMS = (ASD, TEMPORAL, STORM)


def decode(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    settings: Settings,
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
) -> list[Event]:
    """Decodes a whole recording: the events that `Decoder.update` gives frame by frame.

    Predictions that are not given are no evidence. Raises ValueError as `Decoder`.
    """
    none = np.zeros((0, procedure.num_components), np.int8)
    recording = LabelledPredictions("", variant, [], none, detections, temporal)
    return named(stream, STREAMS).decode(procedure, recording, settings)
