"""Incorrect installations accepted against correct ones left not sure, over the bar (`risk`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring import metrics, wrong_parts
from stormpsr_jax.psr.streams import risk
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.learned_weights import Weights
from stormpsr_jax.psr.streams.rules import Event, reported
from stormpsr_jax.psr.streams.stream import Stream


@dataclasses.dataclass
class Bars:
    """Recordings decoded at every bar of a stream.

    Attributes:
        weights: of a fitted stream; no matter to others.
        calibration: of the events' confidences.
        bars: (B,) ascending.
        events: by recording, the events at each bar.
        losses: by recording, (B,) of `risk`; None without an incorrect installation.
    """

    procedure: Procedure
    recordings: Mapping[str, LabelledPredictions]
    stream: Stream
    settings: Any
    weights: Weights | None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        self.bars = self.stream.bars(self.settings)
        self.events: dict[str, list[list[Event]]] = {}
        self.losses: dict[str, np.ndarray | None] = {}
        how = self.stream, self.settings, self.weights, self.calibration
        for name, r in self.recordings.items():
            self.events[name], self.losses[name] = risk.decode_bars(self.procedure, r, *how)

    def decide(self, asked: float) -> risk.Decision:
        """Returns how all recordings together decide."""
        control = risk.control_of(self.bars, list(self.losses.values()))
        enough = risk.needed(asked) if 0 < asked < 1 else None
        if control.recordings == enough:  # each is decoded as the others decide
            control = dataclasses.replace(control, recordings=control.recordings - 1)
        return risk.decide(self.stream, self.settings, asked, control, self.weights)

    def left_out(self, name: str, decision: risk.Decision) -> list[Event] | None:
        """Returns a recording's events at the bar that all others choose; None if it has none."""
        if decision.bound is not None or decision.default:  # they chose it, or may refute it
            others = [losses for other, losses in self.losses.items() if other != name]
            control = risk.control_of(self.bars, others)
            decision = risk.decide(self.stream, self.settings, decision.risk, control, self.weights)
        for bar, events in zip(self.bars, self.events[name], strict=True):
            if self.stream.with_bar(self.settings, bar) == decision.settings:
                return events
        return None

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row per bar: what it accepts, leaves not sure and finds.

        The first, whose bar is None, is of what was seen, where the stream says that.
        "accepted_low" and "accepted_high" are the interval of the share (`wrong_parts.interval`);
        "until_sure_s" is the mean time from the first event that is not sure to the report as
        installed, of parts that were not sure first.
        """
        found = []
        seen = [(None, 0)] if self.stream.fitted else []
        for bar, b in [*seen, *((bar, b) for b, bar in enumerate(self.bars))]:
            scores, wrong, waits = {}, [], []
            for name, r in self.recordings.items():
                events = self.events[name][b]
                if bar is None:
                    events = [e._replace(kind="report") for e in events if e.kind == "seen"]
                sure = [event[:2] for event in reported(events)]
                unsure = [event[:2] for event in events if event.kind == "unsure"]
                scores[name] = metrics.score_recording(
                    r.truth, metrics.scored(sure, r.with_errors), self.procedure.fps
                )
                wrong.append(
                    wrong_parts.score_recording(
                        r.frames, r.states, sure, self.procedure.fps, unsure
                    )
                )
                waits += _waits(events)
            whole, parts = metrics.summarise(scores), wrong_parts.summarise(wrong)
            low = high = None
            if parts is not None and parts["shown"]:
                low, high = wrong_parts.interval(parts["accepted"], parts["shown"])
            keys = ("shown", "accepted", "unsure", "right_installations", "right_unsure")
            found.append(
                {
                    "bar": bar,
                    **{key: None if parts is None else parts[key] for key in keys},
                    "accepted_low": low,
                    "accepted_high": high,
                    **{key: whole[key] for key in ("pos", "f1", "delay_s")},
                    "until_sure_s": float(np.mean(waits)) / self.procedure.fps if waits else None,
                }
            )
        return found


def _waits(events: Sequence[Event]) -> list[int]:
    """The frames from events that are not sure to the report as installed that settles them."""
    asked: dict[int, int] = {}
    found = []
    for event in events:
        k = event.step_id // 3
        if event.kind == "unsure":
            asked[k] = event.frame
        elif event.kind == "report" and (since := asked.pop(k, None)) is not None:
            if event.step_id % 3 == 0:
                found.append(event.frame - since)
    return found
