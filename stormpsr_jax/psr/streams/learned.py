"""Stream "learned": from the beliefs of the learned fusion to steps.

`learned_beliefs.py` has its equations, `learned_events.py` says when a belief becomes an event.

A frame that is left out leaves all beliefs as they are; what has waited for others (`hold`) is
reported in time all the same. The memory does not grow.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from stormpsr_jax.base.files import whole
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.files.scores import FrameScores, Scores
from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.streams import calibration as calibrating
from stormpsr_jax.psr.streams import rules
from stormpsr_jax.psr.streams.calibration import Calibration, Judged
from stormpsr_jax.psr.streams.learned_beliefs import Belief, Filter
from stormpsr_jax.psr.streams.learned_events import MAX_HOLD, NAME, Reporter, Settings
from stormpsr_jax.psr.streams.learned_weights import NUM_INPUTS, Weights
from stormpsr_jax.psr.streams.rules import LAST_FRAME, Event, Seen
from stormpsr_jax.psr.streams.stream import Stream

_T = TypeVar("_T")

# Logits that installations are chosen from. A threshold of all removals is unstable on a dozen
# recordings, and wrong parts are rarer still. A dozen recordings often show none that lower
# thresholds than these accept, as the next dozen does.
INSTALL = (3.0, 3.5)
# And those of removals that are not expected. People who rework take parts off, which a high logit
# finds; where hands hide the product for long, hidden parts look as if they had been taken off.
UNEXPECTED = (None, -6.0)
MIN_RECORDINGS = 4  # to tell whether calibrated confidences are better


class Decoder:
    """Online decoder of one recording: the scores of a frame in, events out.

    Frames come in ascending order. Like `decoding.Decoder` it has `assembly`, `state` and
    `restore`.

    Args:
        procedure: components and catalogued states.
        variant: initial state and possible steps.
        settings: thresholds and projection.
        weights: of the recurrent unit.
        fps: frames per second; None for the procedure's.
        calibration: of the events' confidences; it changes nothing else.
    """

    stream = NAME

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: Settings,
        weights: Weights,
        fps: float | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        fps = procedure.checked_fps(fps)
        self.procedure, self.variant = procedure, variant
        self.settings, self.weights = settings, weights
        self._filter = Filter(procedure, variant, weights, settings.rho, fps)
        self._reporter = Reporter(procedure, variant, settings, fps, calibration)
        self._frame = -1
        self.belief: Belief | None = None  # at the last frame with scores

    @property
    def assembly(self) -> tuple[int, ...]:
        """The state that was reported last (K,), -1 for a part that sits wrong."""
        return tuple(self._reporter.reported.tolist())

    @property
    def floor(self) -> float:
        """All detections are evidence here; of less than this confidence no alert is made."""
        return 0.5

    def update(self, frame: int, scores: FrameScores | None = None) -> list[Event]:
        """Takes one frame and returns the steps that complete at it, by step id.

        Args:
            frame: its number, larger than that of the frame before.
            scores: of the frame; None leaves all beliefs as they are.

        Raises:
            ValueError: a frame out of order, or scores that do not fit the procedure. The frame is
                not taken then.
        """
        if frame <= self._frame:
            raise ValueError(f"frame {frame} does not come after frame {self._frame}")
        if scores is None:
            self._frame = frame
            return self._reporter.expire(frame)
        for name, values in scores._asdict().items():
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"frame {frame}: {name} hold numbers that are not finite")
        self.belief = self._filter.update(frame, scores)
        self._frame = frame
        return self._reporter.update(frame, self.belief)

    def finish(self) -> list[Event]:
        """Returns what waits for others (`hold`), as if nothing more was seen until it is due."""
        return self._reporter.expire()

    def observe(self, frame: int, seen: Seen, frame_step: int = 1) -> list[Event]:
        """Takes a picture; beliefs stay as they are between pictures."""
        del frame_step
        return self.update(frame, seen.scores)

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        pending = self._reporter.pending
        return {
            "procedure": self.procedure.name,
            "variant": self.variant.name,
            "stream": NAME,
            "settings": dataclasses.asdict(self.settings, dict_factory=rules.plain),
            "weights": self.weights.checksum,
            "frame": self._frame,
            "reported": self._reporter.reported.tolist(),
            "held": self._reporter.held,
            "pending": [] if pending is None else [x.tolist() for x in pending],
            "hidden": self._filter.hidden.tolist(),
            "recent": [[frame, x.tolist()] for frame, x in self._filter.recent],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state.

        Raises:
            ValueError: it was saved by a decoder of another procedure, stream, settings or weights,
                or is damaged. Everything stays as it is then.
        """
        own = self.state()
        for key in ("procedure", "variant", "stream", "settings", "weights"):
            if state[key] != own[key]:
                raise ValueError(
                    f"the saved state is of {key} {state[key]!r}, this decoder has {own[key]!r}"
                )
        now = whole(state["frame"], "decoder: frame", -1, LAST_FRAME)
        reported = np.array(
            [whole(one, "decoder: reported", -1, 1) for one in state["reported"]], int
        )
        held, pending = state.get("held"), np.array(state.get("pending", ()), float)
        if held is not None:  # what has waited for longer was reported
            first = max(0, now - self._reporter.hold + 1)
            held = whole(held, "decoder: held", first, max(now, first))
        hidden = np.array(state["hidden"], float)
        recent = [
            (whole(frame, "decoder: recent", 0, max(now, 0)), np.array(x, float))
            for frame, x in state["recent"]
        ]
        shape = (len(reported), NUM_INPUTS)
        if (
            reported.shape != self._reporter.reported.shape
            or pending.shape not in ((0,), (3, len(reported)))
            or not np.isfinite(pending).all()
            or hidden.shape != self._filter.hidden.shape
            or any(x.shape != shape for _, x in recent)
        ):
            raise ValueError("the saved state does not fit this decoder's components and units")
        self._frame = now
        self._reporter.reported = reported
        # Without what it reports, as states were once saved, a report waits anew.
        waits = held is not None and pending.size > 0
        self._reporter.held = held if waits else None
        self._reporter.pending = Belief(*pending) if waits else None
        self._filter.hidden = hidden
        self._filter.recent = collections.deque(recent)
        self.belief = None


# --- Whole recordings -----------------------------------------------------------------------------


def beliefs(
    procedure: Procedure,
    variant: Variant,
    scores: Scores,
    weights: Weights,
    rho: float | None,
    fps: float | None = None,
) -> Belief:
    """Returns the beliefs (N, K) of a whole recording, as the online decoder has them."""
    one = Filter(procedure, variant, weights, rho, procedure.checked_fps(fps))
    rows = [one.update(frame, row) for frame, row in scores.per_frame()]
    if not rows:
        return Belief(*np.zeros((3, 0, procedure.num_components)))
    return Belief(*map(np.stack, zip(*rows, strict=True)))


def report(
    procedure: Procedure,
    variant: Variant,
    frames: np.ndarray,
    belief: Belief,
    settings: Settings,
    fps: float | None = None,
    calibration: Calibration | None = None,
) -> list[Event]:
    """Returns the events of a recording's beliefs (N, K), which hold whatever the thresholds."""
    reporter = Reporter(procedure, variant, settings, procedure.checked_fps(fps), calibration)
    events: list[Event] = []
    for n, frame in enumerate(frames.tolist()):
        events += reporter.update(frame, Belief(*(logits[n] for logits in belief)))
    return events + reporter.expire()


def decode(
    procedure: Procedure,
    variant: Variant,
    scores: Scores,
    settings: Settings,
    weights: Weights,
    fps: float | None = None,
    calibration: Calibration | None = None,
) -> list[Event]:
    """Decodes a whole recording: the events that `Decoder.update` gives frame by frame."""
    belief = beliefs(procedure, variant, scores, weights, settings.rho, fps)
    return report(procedure, variant, scores.frames, belief, settings, fps, calibration)


# --- The stream -----------------------------------------------------------------------------------


# Of weights for detections alone, which are fitted to drawn ones (`tools/drawn_detections.py`).
# Chosen on real detections, by people: docs/noise.md#the-learned-fusion-on-detections-alone.
_OF_KIND = {
    "detections": Settings(install=2.5, rho=None, unexpected=-6.0, hold=30.0),
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Learned(Stream):
    """The learned fusion as a stream; its settings are `Settings`."""

    def defaults(self, weights: Weights | None) -> Settings:
        """Returns the settings that suit the weights' kind."""
        return Settings() if weights is None else _OF_KIND.get(weights.kind, Settings())

    def describe(self, settings: Settings) -> str:
        """Returns a sentence for people on how events were decoded."""
        unexpected, hold = settings.unexpected, settings.hold
        return (
            f"The learned fusion: installed above a logit of {settings.install}, wrong above "
            f"{settings.wrong}, removed below {settings.remove}"
            + ("" if unexpected is None else f" (unexpectedly below {unexpected})")
            + (f", reported within {hold} s of one another." if hold else ".")
        )

    def grid(self, base: rules.Settings, chosen: Mapping[str, Any]) -> list[Settings]:
        """Returns the default settings with a few thresholds of installations and removals."""
        del base, chosen
        return [
            dataclasses.replace(Settings(), install=install, unexpected=unexpected)
            for unexpected, install in itertools.product(UNEXPECTED, INSTALL)
        ]

    def fixed(
        self,
        procedure: Procedure,
        base: rules.Settings,
        threshold: float = 0.0,
        paper: bool = True,
    ) -> list[Settings]:
        """Returns the default settings."""
        del procedure, base, threshold, paper
        return [Settings()]

    def cautious(self, settings: Settings, caution: float) -> Settings:
        """Returns the settings with so much more of a logit to be reported as installed."""
        return dataclasses.replace(settings, install=settings.install + caution)

    def calibrate(self, judged: Sequence[Sequence[Judged]]) -> Calibration:
        """Learns what confidences mean only where that clearly helps: they are probabilities."""
        if len(judged) < MIN_RECORDINGS:
            return calibrating.STATED
        return calibrating.fit_if_better(judged)

    def decoder(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: Settings,
        *,
        fps: float | None = None,
        calibration: Calibration | None = None,
        weights: Weights | None = None,
    ) -> Decoder:
        """Returns `Decoder`; ValueError without weights, or with `hold`.

        That is for the files of a detector, which are decoded as a whole. Networks see every frame.
        """
        if settings.hold is not None:
            raise ValueError(
                "hold is for files of detections (evaluate --fusion=default); leave it out here"
            )
        return Decoder(procedure, variant, settings, _given(weights, "weights"), fps, calibration)

    def decode_each(
        self,
        procedure: Procedure,
        recording: LabelledPredictions,
        candidates: Sequence[Settings],
        weights: Weights | None = None,
        *,
        fps: float | None = None,
        calibration: Calibration | None = None,
    ) -> list[list[Event]]:
        """Decodes with each of several settings; beliefs are worked out once for all thresholds."""
        place, scores = (procedure, recording.variant), _given(recording.scores, "scores")
        known = {
            rho: beliefs(*place, scores, _given(weights, "weights"), rho, fps)
            for rho in dict.fromkeys(settings.rho for settings in candidates)
        }
        return [
            report(*place, scores.frames, known[settings.rho], settings, fps, calibration)
            for settings in candidates
        ]

    def beliefs(
        self,
        procedure: Procedure,
        recording: LabelledPredictions,
        settings: Settings,
        weights: Weights | None,
        fps: float | None = None,
    ) -> Belief:
        """Returns the beliefs (N, K) at the frames with scores."""
        scores, weights = _given(recording.scores, "scores"), _given(weights, "weights")
        return beliefs(procedure, recording.variant, scores, weights, settings.rho, fps)


def _given(value: _T | None, name: str) -> _T:
    """What the learned fusion cannot do without; ValueError if it is missing."""
    if value is None:
        raise ValueError(f"the learned fusion needs {name}")
    return value


LEARNED = Learned(
    name=NAME,
    title="Learned fusion",
    short="Learned",
    colour="purple",
    meaning="All that the networks say, weighed over time by a small recurrent network that was "
    "fitted on labelled recordings. Its thresholds are logits of its beliefs.",
    summary="both, by a fusion fitted on validation recordings (not in the paper)",
    needs=("scores",),
    settings=Settings,
    limits={
        **dict.fromkeys(("install", "wrong", "remove", "unexpected"), (-1e3, 1e3)),
        "rho": (0, 1),
        "hold": (0, MAX_HOLD),
    },
    flags={"threshold": "install"},
    columns={"install": "Install", "wrong": "Wrong", "remove": "Remove"},
    threshold="the logit above which a part is reported as installed",
    decoders=("expected",),  # it completes what a variant allows, as that does
    fitted=True,
    # As the few settings are all sound, the faster one is given up only for one that is better by
    # nearly a whole standard error.
    within=0.9,
)
