"""The list of streams, and those of the papers. Another one is a file beside this, and a line here.

`asd` and `temporal` go by one network each; `storm` is both, fused by Eq. 9 of STORM-PSR.
"""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.accumulation import Settings, Sum, gate, sum_up, thresholds, weight_of
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event, Observation, check_same, top_detection
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.learned_stream import LEARNED
from stormpsr_jax.psr.stream import Appearance, Stream
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant

THRESHOLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
# Removals are rarer than installations, so a threshold below that of these is not looked at.
REMOVALS = (1.5, 3.0, 6.0, 12.0, 24.0)
CONFIDENCES = (0.3, 0.5, 0.7, 0.8, 0.9)


# --- Frame by frame -------------------------------------------------------------------------------


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
        self._weight, self._gate = weight_of(stream, settings), gate(settings)
        self._thresholds = thresholds(variant, settings)
        self._catalogue = procedure.states.tolist()
        self._state = list(variant.initial_state)
        self._sums = [Sum()] * len(self._state)
        self._frame = -1
        self._num_seen = 0  # frames that showed something

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
        shows, expected, sure = temporal is not None, self._state, 0.0
        if self._weight < 1:
            top, confidence = top_detection(frame, detections, self.procedure.error_class)
            shows = confidence > self.settings.confidence and top > 0
            # The error state says nothing about a component.
            if shows and top <= len(self._catalogue):
                expected, sure = self._catalogue[top - 1], (1 - self._weight) * confidence
        changes: dict[int, float] = {}
        if temporal is not None and self._weight > 0:
            changes = self._changes(frame, temporal)
        self._frame, before = frame, self._num_seen
        self._num_seen += shows
        events: list[Event] = []
        if not sure and not changes:
            return events
        for k, bit in enumerate(self._state):
            threshold = self._thresholds[k][bit]
            if threshold is None:
                continue
            y_s = sure if expected[k] != bit else 0.0
            y_t = self._weight * changes.get(k, 0.0)
            total = self._sums[k].add(self.settings, frame, y_s, y_t, before, self._num_seen)
            if total.total > threshold:
                step = 3 * k + 2 * bit
                events.append(total.event(step, self.stream, self.procedure, self._calibration))
                total = Sum(blocked_until=frame + self.settings.window)
            self._sums[k] = total
        for event in events:
            self._state[event.step_id // 3] ^= 1
        return events

    def _changes(self, frame: int, temporal: Sequence[float] | np.ndarray) -> dict[int, float]:
        if len(temporal) != len(self._state):
            raise ValueError(
                f"{len(temporal)} probabilities at frame {frame}, procedure "
                f"{self.procedure.name!r} has {len(self._state)} components"
            )
        values = temporal.tolist() if isinstance(temporal, np.ndarray) else temporal
        gate, changes = self._gate, dict[int, float]()
        try:
            for k, probability in enumerate(values):
                if not 0 <= probability <= gate:
                    if not gate < probability <= 1:
                        what = f"the probability {probability} of component {k} is not in 0…1"
                        raise ValueError(f"frame {frame}: {what}")
                    changes[k] = probability
        except TypeError as error:
            raise ValueError(f"frame {frame}: {temporal!r} are not probabilities") from error
        return changes

    def observe(self, frame: int, seen: Observation, passed: int = 1) -> list[Event]:
        """Takes a picture; at frames between pictures sums decay, as the papers have it."""
        return self.update(frame, seen.detections, seen.windows)

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        rows = zip(self._state, self._thresholds, self._sums, strict=True)
        return {
            "procedure": self.procedure.name,
            "variant": self.variant.name,
            "stream": self.stream,
            "settings": dataclasses.asdict(self.settings),
            "frame": self._frame,
            "num_seen": self._num_seen,
            # A component that may not flip has no sum, and nothing is kept of it.
            "components": [
                [bit, *(one if limits[bit] is not None else [0] * len(one))]
                for bit, limits, one in rows
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError, and all stays, if it is another decoder's."""
        check_same(state, self.state(), "procedure", "variant", "stream", "settings")
        rows = state["components"]
        if len(rows) != len(self._state):
            raise ValueError(f"the saved state has {len(rows)} components")
        names = Sum._fields
        self._sums = [Sum(**dict(zip(names, values, strict=True))) for _, *values in rows]
        self._state = [bit for bit, *_ in rows]
        self._frame, self._num_seen = state["frame"], state["num_seen"]


# --- Streams --------------------------------------------------------------------------------------


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
        """Decodes with each of several settings, at once those in a row with other thresholds.

        Predictions that are not there are no evidence.

        Raises:
            ValueError: a class or a number of components that the procedure does not have; as
                `Decoder`.
        """

        def alike(settings: Settings) -> Settings:
            return dataclasses.replace(settings, threshold=0.0, removal=None)

        @functools.cache
        def event(total: Sum, step_id: int) -> Event:  # many settings find the same
            return total.event(step_id, self.name, procedure, calibration)

        num, none = procedure.num_components, np.zeros(0, np.int64)
        detected = none, np.zeros((0, num), np.int8), np.zeros(0)
        changed = none, np.zeros((0, num))
        detections, temporal = recording.detections, recording.temporal
        if detections is not None and "detections" in self.needs:
            for c in np.unique(detections.classes).tolist():
                if not 0 <= c <= procedure.error_class:
                    known = f"0…{procedure.error_class} (procedure {procedure.name!r})"
                    raise ValueError(f"class {c} is not in {known}")
            tops = detections.tops()
            rows = tops[detections.classes[tops] > 0]
            of_classes = np.concatenate([procedure.states, np.full((1, num), -1, np.int8)])
            states = of_classes[detections.classes[rows] - 1]
            detected = detections.frames[rows], states, detections.confidences[rows]
        if temporal is not None and "windows" in self.needs:
            changed = temporal.frames, temporal.confidences
            if changed[1].shape[1:] != (num,):
                raise ValueError(
                    f"probabilities of shape {changed[1].shape}, procedure {procedure.name!r} has "
                    f"{num} components"
                )
        initial, decoded = recording.variant.initial_state, list[list[Event]]()
        for settings, group in itertools.groupby(candidates, key=alike):
            limits = [thresholds(recording.variant, candidate) for candidate in group]
            weight = weight_of(self.name, settings)
            for steps in sum_up(initial, detected, changed, weight, settings, limits):
                events = [event(total, step_id) for total, step_id in steps]
                decoded.append(sorted(events, key=operator.attrgetter("frame", "step_id")))
        return decoded

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


ASD = SumStream(
    name="asd",
    needs=("detections",),
    varied={"confidence": CONFIDENCES},
    keeps=True,
    appearance=Appearance(
        title="ASD only",
        short="ASD",
        colour="blue",
        meaning="Assembly state detection in single frames.",
        summary="detections of the assembly state in single pictures",
        describe=_describe,
    ),
)
TEMPORAL = SumStream(
    name="temporal",
    needs=("windows",),
    varied={"gate": (0.5, 0.8)},
    appearance=Appearance(
        title="Temporal only",
        short="Temporal",
        colour="orange",
        meaning="The spatio-temporal stream: which components changed within a window of frames.",
        summary="changes of components in a window of pictures",
        describe=_describe,
    ),
)
STORM = SumStream(
    name="storm",
    needs=("detections", "windows"),
    decoders=("confidence", "expected"),
    varied={"weight": (0.15, 0.3, 0.5, 0.7)},
    taken={"confidence": ASD.name, "gate": TEMPORAL.name},
    appearance=Appearance(
        title="STORM-PSR",
        short="STORM",
        colour="green",
        meaning="Both streams, fused per step before their evidence is accumulated.",
        summary="both, fused by Eq. 9 of the paper",
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


def decode(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    settings: Settings,
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
) -> list[Event]:
    """Decodes a whole recording: the events that `Decoder.update` gives frame by frame.

    Args:
        stream: "asd" (detections alone), "temporal" (windows alone) or "storm" (Eq. 9 fuses both).
        detections, temporal: of the recording; those that are not given are no evidence.

    Returns:
        Events by frame and step id, which are the first two fields of each, as scores take them.

    Raises:
        ValueError: an unknown stream, "storm" with decoder "naive", or a class or a number of
            components that the procedure does not have.
    """
    states = np.zeros((0, procedure.num_components), np.int8)
    recording = LabelledPredictions("", variant, [], states, detections, temporal)
    return find(stream).decode(procedure, recording, settings)
