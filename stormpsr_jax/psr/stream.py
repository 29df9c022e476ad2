"""What a stream is, what it sees, and the events that it makes.

A stream makes events of what the networks say. It is a value of a subclass of `Stream`, and stands
in the list `streams.STREAMS`; outside this folder no code knows one by its name. `Settings` are
those of summed evidence (`accumulation.py`).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from stormpsr_jax.psr import calibration
from stormpsr_jax.psr.calibration import Calibration, Judged
from stormpsr_jax.psr.learned_beliefs import Belief, Weights
from stormpsr_jax.recordings.evaluation_set import KINDS, LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.scores import FrameScores

DECODERS = ("naive", "confidence", "expected")
LAST_FRAME = 10**12  # of a saved state; a thousand years at 30 frames a second


class Seen(NamedTuple):
    """What the networks say of one picture, rounded as in prediction files.

    Attributes:
        detections: the detector's (class, confidence) rows.
        windows: (K,) P(component changed inside the window that ends here), or None.
        scores: of the picture, or None.
    """

    detections: Sequence[tuple[int, float]] = ()
    windows: Sequence[float] | np.ndarray | None = None
    scores: FrameScores | None = None


class Event(NamedTuple):
    """A completed step.

    Attributes:
        frame: at which it was recognised.
        step_id: 3k (install component k) or 3k+2 (remove); of the learned fusion also 3k+1
            (installed wrong).
        confidence: in 0…1, the mean of the evidence ŷ_k that made up the sum, each frame's weighted
            with what the decay had left of it; of a calibrated decoder, the probability that the
            event is right.
        stream: the name of what found it, of `streams.STREAMS`.
        evidence: "sum" that exceeded the threshold, its parts "asd" and "temporal", the number of
            "frames" with evidence since the component's previous event, the first of them "since";
            of the learned fusion the beliefs "present", "right" and "wrong".
        name: of the step, such as "Install left frame".
        time_s: seconds from frame 0 on to `frame`.
        kind: "report", or of the learned fusion also one of three that complete no step. "seen":
            the step was seen, which is enough where no bar is asked for (`risk.py`).
            "unsure" asks for a clear view: the component (step id 3k) changed at frame
            evidence["since"], and neither that it is installed right nor that it is not is sure.
            "gone" (3k+2) ends that: the component was taken off.
    """

    frame: int
    step_id: int
    confidence: float
    stream: str
    evidence: dict[str, float]
    name: str
    time_s: float
    kind: str = "report"

    @property
    def state(self) -> str:
        """What became of the component: "right", "wrong", "absent", "seen" or "unsure"."""
        if self.kind in ("seen", "unsure"):
            return self.kind
        return ("right", "wrong", "absent")[self.step_id % 3]


def reported(events: Iterable[Event]) -> list[Event]:
    """Returns the events that are reports."""
    return [event for event in events if event.kind == "report"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a stream is decoded; the fields are the flags of ``evaluate``.

    Attributes:
        decoder: "naive" (B1), "confidence" (B2) or "expected" (B3: only expected steps complete).
        threshold: T; 6.0 on IndustReal and 1.0 on MECCANO in the paper. Unused by "naive".
        removal: T of the removals that the variant does not expect, as a hidden part looks like a
            removed one; with it "expected" also completes the variant's allowed steps. None, as in
            the paper, is neither. Not for "naive".
        decay: factor on a sum for each frame without evidence.
        weight: of the temporal stream in the fused one (Eq. 9).
        window: frames w between the first and the last frame of a clip.
        confidence: floor; a detection at or below it is no evidence. B1 applies it to the
            temporal stream's probabilities too.
        gate: a clip's component counts as changed above this probability. The paper leaves it open;
            at 0.5 a network trained with binary cross-entropy finds a change as likely as none.
        unseen_decay: what `decay` is on a frame that shows nothing: one without a detection above
            the floor or, of a stream that goes by windows alone, without a row. 1 keeps a sum
            there, as such a frame says nothing. None, as in the paper, is `decay`. Not for "naive".
    """

    decoder: str = "expected"
    threshold: float = 6.0
    decay: float = 0.75
    weight: float = 0.5
    window: int = 256
    confidence: float = 0.5
    removal: float | None = None
    gate: float = 0.5
    unseen_decay: float | None = None

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ValueError(f"--decoder={self.decoder} is not one of {', '.join(DECODERS)}")
        naive = "decoder 'naive' {}, and so has no --{}; --decoder=confidence|expected"
        for field in ("threshold", "removal"):
            value = getattr(self, field)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"--{field}={value} is not a finite number from 0 up")
        for field in ("decay", "weight", "confidence", "gate", "unseen_decay"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"--{field}={value} is not in 0…1")
        if self.decoder == "naive" and self.removal is not None:
            raise ValueError(naive.format("has no thresholds", "removal"))
        if self.decoder == "naive" and self.unseen_decay is not None:
            raise ValueError(naive.format("sums nothing up", "unseen_decay"))
        if not (self.window >= 0 and self.window == int(self.window)):
            raise ValueError(f"--window={self.window} is not a whole number of frames from 0 up")


def check_same(saved: Mapping[str, Any], own: Mapping[str, Any], *keys: str) -> None:
    """Raises ValueError if a saved state is of other things than what is to go on from it."""
    for key in keys:
        if saved[key] != own[key]:
            raise ValueError(f"the saved state is of {key} {saved[key]!r}, here it is {own[key]!r}")


class OnlineDecoder(Protocol):
    """Decodes one recording, picture by picture; the memory does not grow.

    Attributes:
        procedure, variant, settings: what it decodes, and how.
    """

    stream: str
    procedure: Procedure
    variant: Variant
    settings: Any

    @property
    def belief(self) -> Belief | None:
        """At the last picture; None of a stream without beliefs, and before the first one."""

    @property
    def assembly(self) -> tuple[int, ...]:
        """The state (K,) that was reported last; -1 for an incorrect installation."""

    @property
    def floor(self) -> float:
        """A detection at or below this confidence is no clear view."""

    def observe(self, frame: int, seen: Seen, passed: int = 1) -> list[Event]:
        """Returns the steps that complete at a picture, by frame and step id.

        Args:
            frame: its number, larger than that of the frame before.
            passed: frames since the picture before, as far as a camera's rate explains them:
                beliefs count the time that a picture stands for.

        Raises:
            ValueError: a frame out of order, or what does not fit the procedure.
        """

    def confirm(self, component: int, right: bool = True) -> None:
        """Takes it from a person that a component is installed right, or that it is not."""

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON.

        "frame" is the last one that was taken, -1 before the first.
        """

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError if it is another decoder's, or damaged."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Stream(abc.ABC):
    """A stream.

    Attributes:
        name: in files, flags and messages.
        colour: of the palette of reports (`report.pages.PALETTE`).
        summary: what its events are made from, for a table.
        needs: kinds of predictions, of `evaluation_set.KINDS`.
        settings: class of its settings, a frozen dataclass that refuses wrong values.
        flags: by flag of `evaluate`, the field of the settings that it sets.
        threshold: what its threshold is, if that is not a T of summed evidence.
        columns: by field of the settings, the heading in reports.
        decoders: of `stream.DECODERS` those that it has.
        fitted: whether it goes by `Weights`, which are fitted on labelled recordings.
        within: how many standard errors of the best its settings may be, when they are chosen.
    """

    name: str
    title: str
    short: str
    colour: str
    meaning: str
    summary: str
    needs: tuple[str, ...]
    settings: type[Any]
    flags: Mapping[str, str]
    columns: Mapping[str, str]
    threshold: str = ""
    decoders: tuple[str, ...] = DECODERS
    fitted: bool = False
    within: float = 0.25

    @property
    def sums(self) -> bool:
        """Whether its thresholds are T of summed evidence, so that one T may be meant for all."""
        return self.settings is Settings

    # --- Settings ---------------------------------------------------------------------------------

    def defaults(self, weights: Weights | None) -> Any:
        """Returns the settings that nobody chose: of a fitted stream, what suits its weights."""
        return self.settings()

    def with_threshold(self, settings: Any, threshold: float) -> Any:
        """Returns the settings with another threshold; ValueError if they have none."""
        return dataclasses.replace(settings, **{self.flags["threshold"]: threshold})

    def check(self, settings: Any) -> None:
        """Raises ValueError where the stream cannot be decoded with settings that are all right."""
        del settings

    @abc.abstractmethod
    def describe(self, settings: Any) -> str:
        """Returns a sentence for people on how events were decoded."""

    def unused(self, decoder: str) -> Collection[str]:
        """Returns the columns that mean nothing to this stream with a decoder."""
        return ()

    # --- Choosing ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def grid(self, base: Settings, chosen: Mapping[str, Any]) -> list[Any]:
        """Returns the settings that the stream is chosen from; only what matters to it varies.

        Args:
            base: all that does not vary.
            chosen: the settings of the streams that stand before it in the list, by name.
        """

    def refined(self, settings: Any) -> list[Any]:
        """Returns settings to choose from in a second round, those of the first among them."""
        return []

    @abc.abstractmethod
    def fixed(
        self, procedure: Procedure, base: Settings, threshold: float = 0.0, paper: bool = True
    ) -> list[Any]:
        """Returns settings that nobody chose; the first that finds a step counts.

        Args:
            base: has what is not fixed.
            threshold: if not 0 it is that one, of a stream whose threshold is a T of summed
                evidence.
            paper: those of the paper; otherwise those that hold best where nothing can be chosen.
        """

    def bars(self, settings: Any) -> tuple[float, ...]:
        """Returns bars for installations, ascending: the higher, the fewer are accepted.

        By itself they are multiples of the threshold T of summed evidence.
        """
        return tuple(max(settings.threshold, 0.5) * factor for factor in (1, 1.5, 2, 3, 5, 8, 20))

    def with_bar(self, settings: Any, bar: float | None) -> Any:
        """Returns the settings with a bar for installations; None leaves it out."""
        return settings if bar is None else self.with_threshold(settings, bar)

    def calibrate(self, judged: Sequence[Sequence[Judged]]) -> Calibration | None:
        """Learns what confidences mean from the judged events of each recording."""
        return calibration.fit(one for of_recording in judged for one in of_recording)

    # --- Decoding ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def decoder(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: Any,
        *,
        calibration: Calibration | None = None,
        weights: Weights | None = None,
    ) -> OnlineDecoder:
        """Returns an online decoder at the start of a recording.

        Args:
            calibration: of the events' confidences; it changes nothing else.
            weights: of a fitted stream.

        Raises:
            ValueError: settings that do not suit the stream.
        """

    def decode(
        self,
        procedure: Procedure,
        recording: LabelledPredictions,
        settings: Any,
        weights: Weights | None = None,
        *,
        calibration: Calibration | None = None,
    ) -> list[Event]:
        """Decodes a whole recording: the events that the online decoder gives frame by frame."""
        how = [settings], weights
        return self.decode_each(procedure, recording, *how, calibration=calibration)[0]

    def decode_each(
        self,
        procedure: Procedure,
        recording: LabelledPredictions,
        candidates: Sequence[Any],
        weights: Weights | None = None,
        *,
        calibration: Calibration | None = None,
    ) -> list[list[Event]]:
        """Decodes a whole recording with each of several settings.

        By itself it runs the online decoder; a stream that knows a faster way says so here.
        """
        found = []
        for settings in candidates:
            decoder = self.decoder(
                procedure, recording.variant, settings, calibration=calibration, weights=weights
            )
            found.append([e for at, seen in pictures(recording) for e in decoder.observe(at, seen)])
        return found

    def beliefs(
        self,
        procedure: Procedure,
        recording: LabelledPredictions,
        settings: Any,
        weights: Weights | None,
    ) -> Belief | None:
        """Returns what it believes at each frame with scores; None if it has no beliefs."""
        return None

    # --- Messages ---------------------------------------------------------------------------------

    def absence(self, given: Collection[str], decoder: str) -> str | None:
        """Says why it is absent from what was decoded; None if it is there.

        Args:
            given: flags of `evaluate` that give predictions.
            decoder: that was asked for.
        """
        flags = [f"--{KINDS[kind].flag}" for kind in self.needs]
        if not {KINDS[kind].flag for kind in self.needs} <= set(given):
            one = len(flags) == 1
            return f"{flags[0]} is not given" if one else f"it needs {' and '.join(flags)}"
        return None if decoder in self.decoders else f"the {decoder} decoder has no fused one"


AnyStream = TypeVar("AnyStream", bound=Stream)


def named(name: str, streams: Sequence[AnyStream]) -> AnyStream:
    """Returns the stream of this name; ValueError if there is none."""
    for stream in streams:
        if stream.name == name:
            return stream
    raise ValueError(f"stream {name!r} is not one of {', '.join(s.name for s in streams)}")


def pictures(recording: LabelledPredictions) -> Iterator[tuple[int, Seen]]:
    """Iterates over the frames of a recording that have predictions, and what these say."""
    found: dict[int, dict[str, Any]] = {}
    if recording.detections is not None:
        for frame, rows in recording.detections.per_frame():
            found.setdefault(frame, {})["detections"] = rows
    if (windows := recording.temporal) is not None:
        for frame, row in zip(windows.frames.tolist(), windows.confidences, strict=True):
            found.setdefault(frame, {})["windows"] = row
    if recording.scores is not None:
        for frame, scores in recording.scores.per_frame():
            found.setdefault(frame, {})["scores"] = scores
    for frame in sorted(found):
        yield frame, Seen(**found[frame])
