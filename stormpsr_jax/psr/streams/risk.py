"""How high the bar for installations has to be, so that few incorrect ones are accepted.

Conformal risk control (Angelopoulos et al., arXiv 2208.02814). The loss of a recording is the share
of its incorrect installations that are reported as installed (`wrong_parts`), in 0…1; it falls as
the bar rises. Of n recordings with an incorrect installation, whose mean loss at bar λ is R̂(λ), the
bar is the lowest with

    (n · R̂(λ) + 1) / (n + 1) ≤ R.

Then the expected loss of a further recording is at most R, if the recordings are exchangeable: the
next one is drawn as those were. It is no bound for other people, light or products, nor for a part
that goes wrong in a new way; and it holds approximately alone where the same recordings have chosen
thresholds or when to stop training. Fewer than 1/R − 1 recordings (9 for R = .1, 19 for .05) cannot
show it; then the bar is that of other worlds (`DEFAULTS`), which nothing guarantees for this
product, or the lowest one above it that these recordings do not refute: of so many, so many with a
loss would be an accident (`REFUTED`) if R held.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring import metrics, wrong_parts
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.learned_beliefs import Weights
from stormpsr_jax.psr.streams.stream import Event, Stream, reported

RISK = 0.1  # that is asked for where nobody says another one


@dataclasses.dataclass(frozen=True)
class Control:
    """What recordings say of bars.

    Attributes:
        bars: (B,) ascending.
        losses: (B,) mean loss of the recordings at each, not rising.
        recordings: how many have an incorrect installation.
    """

    bars: tuple[float, ...]
    losses: tuple[float, ...]
    recordings: int

    def __post_init__(self) -> None:
        if not (len(self.bars) == len(self.losses) > 0 and self.recordings >= 0):
            raise ValueError("bars, losses and recordings do not fit one another")
        if not all(math.isfinite(bar) for bar in self.bars):
            raise ValueError("bars hold numbers that are not finite")
        if not all(0 <= loss <= 1 for loss in self.losses):
            raise ValueError("losses hold numbers that are not in 0…1")

    def bound(self, bar: float) -> float:
        """Returns the bound on the expected loss at a bar, which is one of `bars`."""
        loss = self.losses[self.bars.index(bar)]
        return (self.recordings * loss + 1) / (self.recordings + 1)

    def bar(self, risk: float) -> float | None:
        """Returns the lowest bar whose bound is at most `risk`; None: the recordings are too few.

        Where even the highest one's is more, that is the bar.
        """
        if not self.tells(risk):
            return None
        fit = [bar for bar in self.bars if self.bound(bar) <= risk + 1e-12]
        return min(fit, default=self.bars[-1])

    def tells(self, risk: float) -> bool:
        """Whether the recordings are enough for a risk."""
        return risk > 0 and self.recordings >= needed(risk)

    def not_refuted(self, risk: float, least: float) -> float:
        """Returns the lowest bar from `least` on that these recordings do not refute."""
        n = self.recordings
        for bar, loss in zip(self.bars, self.losses, strict=True):
            lost = math.ceil(n * loss - 1e-9)
            chance = sum(
                math.comb(n, i) * risk**i * (1 - risk) ** (n - i) for i in range(lost, n + 1)
            )
            if bar >= least and (lost == 0 or chance >= REFUTED):
                return bar
        return max(self.bars[-1], least)


# Where a product has too few recordings of its own: by kind of the weights, bars by the risk that
# they are taken for. Those of "scores" were chosen on 80 rendered recordings of two toys, and what
# they accept elsewhere stands in docs/results.md; those of "detections" on real ones, those of
# "clips" on 60 rendered recordings of three worlds that the weights were fitted on.
NEVER = 30.0  # that no evidence reaches, the last of `learned.BARS`
DEFAULTS = {
    "scores": {0.2: 1.0, 0.1: 2.5, 0.05: 4.0, 0.0: NEVER},
    "csv": {0.1: 4.5, 0.05: 7.0, 0.0: NEVER},
    "detections": {0.1: 3.75, 0.0: NEVER},
    "clips": {0.4: 3.0, 0.2: 3.5, 0.05: 3.75, 0.0: NEVER},
}
REFUTED = 0.05  # chance of as many losses or more


def default_bar(kind: str, risk: float) -> float:
    """Returns the default of weights of a kind, for a risk in 0…1."""
    known = DEFAULTS[kind]
    return known[max((one for one in known if one <= risk), default=0.0)]


def needed(risk: float) -> int:
    """Returns how many recordings with an incorrect installation a risk above 0 needs."""
    return math.ceil(1 / risk - 1 - 1e-9)


@dataclasses.dataclass(frozen=True)
class Decision:
    """How installations are decided.

    Attributes:
        settings: of the stream, with the bar.
        risk: that was asked for; 1 is without a bar.
        bound: on the expected share of incorrect installations accepted, which is the risk asked
            for; None if the bar is the default of other worlds, or there is none.
        recordings: with an incorrect installation, that there were to choose by.
        default: whether the bar is that of other worlds.
    """

    settings: Any
    risk: float
    bound: float | None = None
    recordings: int = 0
    default: bool = False

    def note(self, stream: str) -> str:
        """Returns a sentence for people."""
        if self.risk >= 1:
            return f"{stream}: --risk=1 sets no limit, so no part is reported as not sure."
        if self.bound is not None:
            return (
                f"{stream}: approximately {self.bound:.0%} of the incorrect installations of a "
                f"recording are accepted at most, on average: {self.recordings} recordings with "
                "one chose the bar. It holds for further ones that are like these."
            )
        if self.risk == 0:
            return (
                f"{stream}: no number of recordings can show a risk of 0: nothing is called right."
            )
        how = "is not raised"
        if self.default:
            how = "is one that rendered products chose, or a higher one if these refute it"
        return (
            f"{stream}: a risk of {self.risk:g} needs {needed(self.risk):,} recordings with an "
            f"incorrect installation, there are {self.recordings}: the bar for installations {how}."
        )


def decide(
    stream: Stream, settings: Any, risk: float, control: Control | None, weights: Weights | None
) -> Decision:
    """Returns how installations are decided at a risk.

    Args:
        settings: without a bar.
        risk: in 0…1; 1 is none.
        control: what validation recordings say; None without any.
        weights: of a fitted stream, whose kind has a default where the recordings are too few.

    Raises:
        ValueError: a risk that is not in 0…1.
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"risk {risk} is not in 0…1")
    if risk == 1:
        return Decision(stream.with_bar(settings, None), risk)
    if control is not None and tuple(control.bars) != stream.bars(settings):
        control = None  # of an earlier version, whose bars were of something else
    there = 0 if control is None else control.recordings
    if control is not None and (bar := control.bar(risk)) is not None:
        return Decision(stream.with_bar(settings, bar), risk, risk, there)
    if weights is None or not stream.fitted:
        return Decision(settings, risk, recordings=there)
    bar = default_bar(weights.kind, risk)
    if control is not None and there and risk > 0:
        bar = control.not_refuted(risk, bar)
    return Decision(stream.with_bar(settings, bar), risk, recordings=there, default=True)


def decode_bars(
    procedure: Procedure,
    recording: LabelledPredictions,
    stream: Stream,
    settings: Any,
    weights: Weights | None,
    calibration: Calibration | None = None,
) -> tuple[list[list[Event]], np.ndarray | None]:
    """Decodes a recording at each bar of a stream.

    Returns:
        The events at each bar, and the losses (B,), not rising; None without an incorrect
        installation.
    """
    bars = stream.bars(settings)
    candidates = [stream.with_bar(settings, bar) for bar in bars]
    found = stream.decode_each(procedure, recording, candidates, weights, calibration=calibration)
    losses = []
    for events in found:
        steps = [event[:2] for event in reported(events)]
        one = wrong_parts.score_recording(recording.frames, recording.states, steps, procedure.fps)
        if one is None or not one["shown"]:
            return found, None
        losses.append(one["accepted"] / one["shown"])
    # A decoder may accept at a bar what it does not at a lower one, by another order of reports.
    return found, np.maximum.accumulate(np.array(losses)[::-1])[::-1]


def control_of(bars: Sequence[float], losses: Sequence[np.ndarray | None]) -> Control:
    """Returns what recordings say, of which each has losses (B,) or None."""
    known = [one for one in losses if one is not None]
    mean = np.mean(known, axis=0) if known else np.ones(len(bars))
    return Control(tuple(bars), tuple(mean.tolist()), len(known))


def measure(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    stream: Stream,
    settings: Any,
    weights: Mapping[str, Weights] | None,
) -> Control:
    """Returns what recordings say of a stream's bars; `weights`, by recording, have not seen it."""
    losses = [
        decode_bars(procedure, r, stream, settings, None if weights is None else weights[name])[1]
        for name, r in recordings.items()
    ]
    return control_of(stream.bars(settings), losses)


# --- Incorrect installations accepted against correct ones left not sure --------------------------


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
            self.events[name], self.losses[name] = decode_bars(self.procedure, r, *how)

    def decide(self, asked: float) -> Decision:
        """Returns how all recordings together decide."""
        control = control_of(self.bars, list(self.losses.values()))
        enough = needed(asked) if 0 < asked < 1 else None
        if control.recordings == enough:  # each is decoded as the others decide
            control = dataclasses.replace(control, recordings=control.recordings - 1)
        return decide(self.stream, self.settings, asked, control, self.weights)

    def left_out(self, name: str, decision: Decision) -> list[Event] | None:
        """Returns a recording's events at the bar that all others choose; None if it has none."""
        if decision.bound is not None or decision.default:  # they chose it, or may refute it
            others = [losses for other, losses in self.losses.items() if other != name]
            control = control_of(self.bars, others)
            decision = decide(self.stream, self.settings, decision.risk, control, self.weights)
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
