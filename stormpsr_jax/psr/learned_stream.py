"""Stream "learned": from the beliefs of the learned fusion to steps.

`learned_beliefs.py` has its equations, `learned_events.py` says when a belief becomes an event.

A frame that is left out leaves all beliefs as they are. The memory does not grow.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event, Observation, check_same
from stormpsr_jax.psr.learned_beliefs import Belief, Filter, Weights
from stormpsr_jax.psr.learned_events import (
    NAME,
    LearnedSettings,
    Reporter,
    removal_logits,
)
from stormpsr_jax.psr.stream import Appearance, Stream
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant

# Logits of removals that are not expected. People who rework take parts off, which a high logit
# finds; where hands hide the product for long, hidden parts look as if they had been taken off.
# Other thresholds are not chosen: a dozen recordings tell too little of them.
UNEXPECTED = (None, -6.0)
# Of a part's own evidence, which an installation has to exceed to be right (`risk.py`).
BARS = (
    *(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5),
    *(3.0, 3.25, 3.5, 3.75, 4.0, 4.25, 4.5, 5.0),
)


class LearnedDecoder:
    """Online decoder of one recording: the scores of a frame in, events out.

    Args:
        weights: of the recurrent unit.
        calibration: of the events' confidences; it changes nothing else.
    """

    stream = NAME

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: LearnedSettings,
        weights: Weights,
        calibration: Calibration | None = None,
    ) -> None:
        self.procedure, self.variant = procedure, variant
        self.settings, self.weights = settings, weights
        removal = removal_logits(variant, settings)
        self._filter = Filter(
            procedure, variant, weights, settings.rho, removal, camera=settings.camera
        )
        right, seen = reporters_of(settings)
        # The first says what is right, the second what was seen, where that is something else.
        self._reporters = [
            Reporter(procedure, variant, one, calibration)
            for one in ([right] if seen is right else [right, seen])
        ]
        self._frame = -1
        self.belief: Belief | None = None  # at the last frame with scores

    @property
    def assembly(self) -> tuple[int, ...]:
        """The state that was reported last (K,), -1 for an incorrect installation."""
        return tuple(self._reporters[0].reported.tolist())

    @property
    def floor(self) -> float:
        """All detections are evidence here; of less than this confidence no alert is made."""
        return 0.5

    def observe(self, frame: int, seen: Observation, passed: int = 1) -> list[Event]:
        """Takes a picture and returns what is reported at it, by step id: seen, then right.

        Beliefs stay as they are between pictures, and at one without scores. ValueError as of
        `OnlineDecoder`; the picture is not taken then.
        """
        if frame <= self._frame:
            raise ValueError(f"frame {frame} does not come after frame {self._frame}")
        if seen.scores is None:
            self._frame = frame
            return []
        for name, values in seen.scores._asdict().items():
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"frame {frame}: {name} hold numbers that are not finite")
        self.belief = self._filter.update(frame, seen.scores, passed)
        self._frame = frame
        right, *others = (one.update(frame, self.belief) for one in self._reporters)
        return _with_seen(itertools.chain(*others), right)

    def confirm(self, component: int, right: bool = True) -> None:
        """Takes it from a person that a component is installed right, or that it is not.

        That stands until the part is off.
        """
        self._filter.evidence.say(component, right)
        for reporter in self._reporters:
            reporter.reported[component] = 1 if right else -1
            reporter.unsure[component] = -1

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        return {
            "procedure": self.procedure.name,
            "variant": self.variant.name,
            "stream": NAME,
            "settings": dataclasses.asdict(self.settings)
            | {"camera": self.settings.camera and list(self.settings.camera)},
            "weights": self.weights.checksum,
            "frame": self._frame,
            "reporters": [one.state() for one in self._reporters],
            "evidence": self._filter.evidence.state(),
            "begin": self._filter.begin,
            "hidden": self._filter.hidden.tolist(),
            "recent": [[frame, x.tolist()] for frame, x in self._filter.recent],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError, and all stays, if it is another decoder's."""
        keys = ("procedure", "variant", "stream", "settings", "weights")
        check_same(state, self.state(), *keys)
        beliefs = self._filter
        beliefs.evidence.restore(state["evidence"])
        self._frame, self.belief = state["frame"], None
        for reporter, saved in zip(self._reporters, state["reporters"], strict=True):
            reporter.restore(saved)
        beliefs.begin = state["begin"]
        beliefs.hidden = np.array(state["hidden"])
        beliefs.recent = collections.deque((frame, np.array(x)) for frame, x in state["recent"])


# --- The stream -----------------------------------------------------------------------------------


# Of weights for detections alone, which are fitted to drawn ones (`tools/drawn_detections.py`).
# Chosen on real detections, by people: benchmarks/results/noise.md.
_OF_DETECTIONS = LearnedSettings(install=2.5, rho=None, unexpected=-6.0, hold=5.0)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LearnedStream(Stream):
    """The learned fusion as a stream; its settings are `LearnedSettings`."""

    def defaults(self, weights: Weights | None) -> LearnedSettings:
        """Returns the settings that suit the weights' kind."""
        of_detections = weights is not None and weights.kind == "detections"
        return _OF_DETECTIONS if of_detections else LearnedSettings()

    def decoder(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: LearnedSettings,
        *,
        calibration: Calibration | None = None,
        weights: Weights | None = None,
    ) -> LearnedDecoder:
        """Returns `LearnedDecoder`; ValueError without weights, or with `hold`.

        That is for the files of a detector, which are decoded as a whole. Networks see every frame.
        """
        if settings.hold is not None:
            raise ValueError(
                "hold is for files of detections (evaluate --fusion=default); leave it out here"
            )
        if weights is None:
            raise ValueError("the learned fusion needs weights")
        return LearnedDecoder(procedure, variant, settings, weights, calibration)

    def decode_each(
        self,
        procedure: Procedure,
        recording: LabelledPredictions,
        candidates: Sequence[LearnedSettings],
        weights: Weights | None = None,
        *,
        calibration: Calibration | None = None,
    ) -> list[list[Event]]:
        """Decodes with each of several settings."""
        all_events: list[list[Event]] = []
        decoded: dict[LearnedSettings, list[Event]] = {}
        for settings in candidates:
            belief = self.beliefs(procedure, recording, settings, weights)
            assert recording.scores is not None  # or there were no beliefs
            right, without = reporters_of(settings)
            for one in {right, without} - decoded.keys():
                reporter = Reporter(procedure, recording.variant, one, calibration)
                events = reporter.whole(recording.scores.frames, belief)
                decoded[one] = _in_groups(events, (one.hold or 0.0) * procedure.fps)
            seen = [] if without is right else decoded[without]
            all_events.append(_with_seen(seen, decoded[right]))
        return all_events

    def beliefs(
        self,
        procedure: Procedure,
        recording: LabelledPredictions,
        settings: LearnedSettings,
        weights: Weights | None,
    ) -> Belief:
        """Returns the beliefs (N, K) at the frames with scores, as the online decoder has them.

        The recording keeps them: settings are chosen, and figures drawn, by the same ones.
        """
        scores = recording.scores
        if weights is None or scores is None:
            raise ValueError("the learned fusion needs weights and scores")
        removal = removal_logits(recording.variant, settings)
        by = settings.rho, tuple(removal.tolist()), settings.camera
        of = (procedure, recording.variant, scores, weights, *by)
        if recording.believed is None or recording.believed[0] != of:
            begin = int(recording.frames[0]) if len(recording.frames) else None
            how = settings.rho, removal, begin, settings.camera
            one = Filter(procedure, recording.variant, weights, *how)
            step = int(min(np.diff(scores.frames), default=1))
            rows = [one.update(frame, row, step) for frame, row in scores.per_frame()]
            none = np.zeros((len(Belief._fields), 0, procedure.num_components))
            belief = Belief(*(map(np.stack, zip(*rows, strict=True)) if rows else none))
            recording.believed = of, belief
        return recording.believed[1]

    def grid(self, base: Settings, chosen: Mapping[str, Any]) -> list[LearnedSettings]:
        """Returns the default settings with thresholds of removals that are not expected."""
        return [LearnedSettings(unexpected=unexpected) for unexpected in UNEXPECTED]

    def fixed_settings(
        self, procedure: Procedure, base: Settings, threshold: float = 0.0, paper: bool = True
    ) -> list[LearnedSettings]:
        """Returns the default settings; too few recordings tell whether people rework."""
        return [LearnedSettings() if paper else LearnedSettings(unexpected=UNEXPECTED[1])]

    def bars(self, settings: LearnedSettings) -> tuple[float, ...]:
        """Returns log odds of the part's own evidence."""
        return BARS

    def with_bar(self, settings: LearnedSettings, bar: float | None) -> LearnedSettings:
        """Returns the settings with `sure`."""
        return dataclasses.replace(settings, sure=bar)


def reporters_of(settings: LearnedSettings) -> tuple[LearnedSettings, LearnedSettings]:
    """Returns the settings of who says what is right, and what was seen; without a bar, the same.

    What is reported together (`hold`) is so for its order alone, of which the bar keeps little.
    """
    if settings.sure is None:
        return settings, settings
    return dataclasses.replace(settings, hold=None), dataclasses.replace(settings, sure=None)


def _in_groups(events: Sequence[Event], frames: float) -> list[Event]:
    """Returns events in which those of so many frames are of the last of their frames.

    A group begins with the first event that is in none. What one look shows crosses its thresholds
    some frames apart, in no order that means anything.
    """
    groups: list[list[Event]] = []
    for event in events:
        if groups and event.frame - groups[-1][0].frame <= frames:
            groups[-1].append(event)
        else:
            groups.append([event])
    return [
        event._replace(frame=group[-1].frame, time_s=group[-1].time_s)
        for group in groups
        for event in sorted(group, key=lambda event: event.step_id)
    ]


def _with_seen(seen: Iterable[Event], events: Iterable[Event]) -> list[Event]:
    """Returns what was seen and what is reported, by frame and step id, of one step seen first."""
    both = [*(event._replace(kind="seen") for event in seen), *events]
    return sorted(both, key=lambda event: (event.frame, event.step_id))


def _describe(settings: LearnedSettings) -> str:
    unexpected, hold, sure = settings.unexpected, settings.hold, settings.sure
    return (
        f"The learned fusion: seen above a logit of {settings.install}, "
        + ("" if sure is None else f"right above {sure} of the part's own evidence, ")
        + f"wrong above {settings.wrong}, removed below {settings.remove}"
        + ("" if unexpected is None else f" (unexpectedly below {unexpected})")
        + (f"; what is seen within {hold} s is reported together" if hold else "")
        + ("; for a camera that training has not seen." if settings.camera else ".")
    )


LEARNED = LearnedStream(
    name=NAME,
    needs=("scores",),
    settings=LearnedSettings,
    threshold="install",
    decoders=("expected",),  # it completes what a variant allows, as that does
    fitted=True,
    # As the few settings are all sound, the faster one is given up only for one that is better by
    # nearly a whole standard error.
    within=0.9,
    appearance=Appearance(
        title="Learned fusion",
        short="Learned",
        colour="purple",
        meaning="All that the networks say, weighed over time by a small recurrent network that "
        "was fitted on labelled recordings. Its thresholds are logits of its beliefs.",
        summary="all networks, by a fusion fitted on validation recordings (not in the paper)",
        threshold="the logit above which a part is reported as installed",
        describe=_describe,
    ),
)
