"""What a stream is: one value that says all that others have to know of it.

A stream makes events of what the networks say. It is a value of a subclass of `Stream`, and stands
in the list `streams.STREAMS`; outside this folder no code knows one by its name.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from stormpsr_jax.psr.files.recordings import KINDS, LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.streams import calibration
from stormpsr_jax.psr.streams.calibration import Calibration, Judged
from stormpsr_jax.psr.streams.learned_beliefs import Belief
from stormpsr_jax.psr.streams.learned_weights import Weights
from stormpsr_jax.psr.streams.rules import DECODERS, Event, Seen, Settings


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

    def observe(self, frame: int, seen: Seen, frame_step: int = 1) -> list[Event]:
        """Returns the steps that complete at a picture, by frame and step id.

        Args:
            frame: its number, larger than that of the frame before.
            frame_step: frames that it stands for: its own, and those up to the next picture.

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
        needs: kinds of predictions, of `recordings.KINDS`.
        settings: class of its settings, a frozen dataclass that refuses wrong values.
        flags: by flag of `evaluate`, the field of the settings that it sets.
        threshold: what its threshold is, if that is not a T of summed evidence.
        columns: by field of the settings, the heading in reports.
        decoders: of `rules.DECODERS` those that it has.
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
        return self.decode_each(procedure, recording, [settings], weights, calibration=calibration)[
            0
        ]

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
