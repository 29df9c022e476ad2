"""What a stream is: it makes events of what the networks say.

It is a value of a subclass of `Stream`, and stands in the list `streams.STREAMS`; outside this
folder no code knows one by its name.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stormpsr_jax.psr.accumulation import DECODERS, Settings
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event, Observation, OnlineDecoder
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant


@dataclasses.dataclass(frozen=True, kw_only=True)
class Appearance:
    """How a stream is shown to people.

    Attributes:
        colour: of the palette of reports (`report.pages.PALETTE`).
        summary: what its events are made from, for a table.
        threshold: what its threshold is, if that is not a T of summed evidence.
        describe: of settings, a sentence on how events were decoded.
    """

    title: str
    short: str
    colour: str
    meaning: str
    summary: str
    threshold: str = ""
    describe: Callable[[Any], str]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Stream(abc.ABC):
    """A stream.

    Attributes:
        name: in files, flags and messages.
        needs: kinds of predictions, of `evaluation_set.FLAGS`.
        settings: class of its settings, a frozen dataclass that refuses wrong values.
        threshold: the field of the settings that --threshold sets; other flags set their own.
        decoders: of `accumulation.DECODERS` those that it has.
        fitted: whether it goes by `Weights`, which are fitted on labelled recordings; then its
            confidences are probabilities.
        appearance: how it is shown.
        within: how many standard errors of the best the chosen settings may be (`selection.py`).
    """

    name: str
    needs: tuple[str, ...]
    settings: type[Any]
    threshold: str = "threshold"
    decoders: tuple[str, ...] = DECODERS
    fitted: bool = False
    appearance: Appearance
    within: float = 0.25

    def defaults(self, weights: Weights | None) -> Any:
        """Returns the settings that nobody chose: of a fitted stream, what suits its weights."""
        return self.settings()

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
        one = self.decode_each(procedure, recording, [settings], weights, calibration=calibration)
        return one[0]

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
        all_events = []
        for settings in candidates:
            decoder = self.decoder(
                procedure, recording.variant, settings, calibration=calibration, weights=weights
            )
            all_events.append(
                [e for at, seen in pictures(recording) for e in decoder.observe(at, seen)]
            )
        return all_events

    @abc.abstractmethod
    def grid(self, base: Settings, chosen: Mapping[str, Any]) -> list[Any]:
        """Returns the settings that the stream is chosen from; only what matters to it varies.

        Args:
            base: all that does not vary.
            chosen: the settings of the streams that stand before it in the list, by name.
        """

    def refinements(self, settings: Any) -> list[Any]:
        """Returns settings to choose from in a second round, those of the first among them."""
        return []

    @abc.abstractmethod
    def fixed_settings(
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
        """Returns the settings with a bar for installations; None leaves it out.

        ValueError if they are of the naive decoder, which has no threshold to raise.
        """
        if bar is None:
            return settings
        if settings.decoder == "naive":
            raise ValueError("decoder 'naive' has no thresholds, and so none for a risk")
        return dataclasses.replace(settings, threshold=bar)


def pictures(recording: LabelledPredictions) -> Iterator[tuple[int, Observation]]:
    """Iterates over the frames of a recording that have predictions, and what these say."""
    seen: dict[int, dict[str, Any]] = {}
    if recording.detections is not None:
        for frame, rows in recording.detections.per_frame():
            seen.setdefault(frame, {})["detections"] = rows
    if (windows := recording.temporal) is not None:
        for frame, row in zip(windows.frames.tolist(), windows.confidences, strict=True):
            seen.setdefault(frame, {})["windows"] = row
    if recording.scores is not None:
        for frame, scores in recording.scores.per_frame():
            seen.setdefault(frame, {})["scores"] = scores
    for frame in sorted(seen):
        yield frame, Observation(**seen[frame])
