"""From the predictions of a frame to completed steps: B1, B2, B3, the temporal decoder and Eq. 9.

B1 to B3 are the baselines of Schoonbeek et al., IndustReal (WACV 2024); Eq. 9 is that of STORM-PSR
(arXiv 2510.12385).

All are one accumulator. In a state s, component k can only flip: install if s_k = 0, remove if
s_k = 1. The evidence of a frame for that flip is (Eq. 9)

    ŷ_k = (1 − weight) · ŷ_S,k + weight · ŷ_T,k

with ŷ_S,k the confidence of the frame's top detection where it shows k flipped, and ŷ_T,k the
probability that k changed inside the window that ends at the frame. A sum per component grows by
ŷ_k where ŷ_k > 0 and is multiplied by ``decay`` where ŷ_k = 0; when it exceeds the threshold T the
step completes, the sum returns to 0 and the state is updated. Removals that the variant does not
expect may have a threshold of their own, and frames that show nothing a decay of their own, which
is not in the papers. Stream ``asd`` is weight 0, stream
``temporal`` is weight 1, and the naive decoder (B1) is T = 0: any evidence completes a step.

A sum is brought up to date only when its component gets evidence: the decay of n frames without
evidence is the factor decay**n (`Rules.left`). So the work grows with the evidence, not with the
frames. `batch.py` does the same for whole recordings.
"""

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.rules import Event, Rules, Seen, Settings, check_same


class Decoder:
    """Online decoder of one recording: one frame in, events out.

    Frames come in ascending order; a frame that is left out counts as one without evidence. The
    memory does not grow. `batch.decode` gives the same events for a whole recording, faster.

    Args:
        stream: "asd", "temporal" or "storm".
        calibration: of the events' confidences; it changes nothing else.

    Raises:
        ValueError: an unknown stream, or "storm" with the naive decoder, which has no fusion.
    """

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
        self._rules = Rules(procedure, variant, stream, settings, calibration)
        self._last_class = procedure.error_class
        self._catalogue = procedure.states.tolist()
        self._flips: dict[int, frozenset[int]] = {}  # by class, valid for the current state

        num = procedure.num_components
        self._frame = -1
        self._state = list(variant.initial_state)
        self._sum = [0.0] * num
        self._temporal_part = [0.0] * num
        self._support = [0.0] * num  # decayed number of frames with evidence
        self._frames = [0] * num  # number of frames with evidence, not decayed
        self._since = [0] * num  # the first frame with evidence
        self._last = [0] * num  # the last frame with evidence
        self._blocked_until = [-1] * num  # temporal evidence counts after this frame
        self._num_seen = 0  # frames that showed something
        self._seen_at = [0] * num  # how many these were at the last frame with evidence

    belief = None  # sums are no beliefs

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
        weight = self._rules.weight
        evidence: dict[int, float] = {}  # by component, the temporal stream's part
        flips: frozenset[int] = frozenset()
        asd = 0.0
        seen = temporal is not None
        if weight < 1:
            top, confidence = top_detection(frame, detections, self._last_class)
            seen = confidence > self.settings.confidence and top > 0
            if seen:
                flips, asd = self._flips_to(top), (1 - weight) * confidence
                evidence = dict.fromkeys(flips, 0.0)
        if temporal is not None and weight > 0:
            if len(temporal) != len(self._state):
                raise ValueError(
                    f"{len(temporal)} probabilities at frame {frame}, procedure "
                    f"{self.procedure.name!r} has {len(self._state)} components"
                )
            values = temporal.tolist() if isinstance(temporal, np.ndarray) else temporal
            changed = self._rules.changed
            try:
                for k, probability in enumerate(values):
                    if not 0 <= probability <= changed:
                        if not changed < probability <= 1:
                            what = f"the probability {probability} of component {k} is not in 0…1"
                            raise ValueError(f"frame {frame}: {what}")
                        if (
                            frame > self._blocked_until[k]
                            and self._rules.may_flip[k][self._state[k]]
                        ):
                            evidence[k] = weight * probability
            except TypeError as error:
                raise ValueError(f"frame {frame}: {temporal!r} are not probabilities") from error
        self._frame = frame
        before = self._num_seen
        self._num_seen += seen
        if not evidence:
            return []
        events = []
        for k, part in evidence.items():
            self._accumulate(frame, k, asd + part if k in flips else part, part, before)
            if self._sum[k] > self._rules.thresholds[k][self._state[k]]:
                events.append(self._complete(frame, k))
        return sorted(events, key=operator.attrgetter("step_id"))

    def observe(self, frame: int, seen: Seen, frame_step: int = 1) -> list[Event]:
        """Takes a picture, and as many frames as it stands for; see `stream.OnlineDecoder`.

        Sums decay at every frame without evidence, so between pictures that are left alone none
        would last.
        """
        events = []
        for held in range(frame, frame + frame_step):
            events += self.update(held, seen.detections, seen.windows)
        return events

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        return {
            "procedure": self.procedure.name,
            "variant": self.variant.name,
            "stream": self.stream,
            "settings": dataclasses.asdict(self.settings),
            "frame": self._frame,
            "num_seen": self._num_seen,
            "components": [list(values) for values in zip(*self._columns(), strict=True)],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError, and all stays, if it is another decoder's."""
        check_same(state, self.state(), "procedure", "variant", "stream", "settings")
        if (num := len(state["components"])) != len(self._state):
            raise ValueError(f"the saved state has {num} components")
        self._frame, self._num_seen = state["frame"], state["num_seen"]
        columns = zip(*state["components"], strict=True)
        for column, values in zip(self._columns(), columns, strict=True):
            column[:] = values
        self._flips.clear()

    def _columns(self) -> tuple[list, ...]:
        sums = self._sum, self._temporal_part, self._support
        frames = self._frames, self._since, self._last, self._blocked_until, self._seen_at
        return self._state, *sums, *frames

    def _flips_to(self, detected_class: int) -> frozenset[int]:
        """Components that may flip and differ between the current state and a detected class."""
        if detected_class not in self._flips:
            # Background and the error state say nothing about a component, so nothing flips.
            state = self._state
            if 1 <= detected_class <= len(self._catalogue):
                state = self._catalogue[detected_class - 1]
            pairs = enumerate(zip(self._state, state, strict=True))
            may_flip = self._rules.may_flip
            self._flips[detected_class] = frozenset(
                k for k, (now, seen) in pairs if now != seen and may_flip[k][now]
            )
        return self._flips[detected_class]

    def _accumulate(self, frame: int, k: int, y: float, temporal: float, seen: int) -> None:
        """Adds the evidence of a frame, before which `seen` frames showed something."""
        if self._frames[k]:
            left = self._rules.left(frame - self._last[k] - 1, seen - self._seen_at[k])
            self._sum[k] = self._sum[k] * left + y
            self._temporal_part[k] = self._temporal_part[k] * left + temporal
            self._support[k] = self._support[k] * left + 1
        else:
            self._sum[k], self._temporal_part[k], self._support[k] = y, temporal, 1.0
            self._since[k] = frame
        self._frames[k] += 1
        self._last[k] = frame
        self._seen_at[k] = self._num_seen

    def _complete(self, frame: int, k: int) -> Event:
        event = self._rules.event(
            frame,
            3 * k + 2 * self._state[k],
            self._sum[k],
            self._temporal_part[k],
            self._support[k],
            self._frames[k],
            self._since[k],
        )
        self._state[k] = 1 - self._state[k]
        self._frames[k] = 0
        self._sum[k] = self._temporal_part[k] = self._support[k] = 0.0
        self._blocked_until[k] = frame + self.settings.window
        self._flips.clear()
        return event


def top_detection(
    frame: int, detections: Iterable[tuple[int, float]], last_class: int
) -> tuple[int, float]:
    """Returns the most confident (class, confidence) row of a frame, of equal ones the first.

    Args:
        last_class: the procedure's error class.

    Returns:
        (0, 0.0), which is background without confidence, for a frame without rows.

    Raises:
        ValueError: a row with another class or confidence than can be, with the frame and value.
    """
    top, highest = 0, -1.0
    try:
        for c, confidence in detections:
            if not 0 <= confidence <= 1:
                raise ValueError(f"frame {frame}: confidence {confidence} is not in 0…1")
            if not 0 <= c <= last_class:
                what = f"class {c} is not in 0…{last_class}, the procedure's classes"
                raise ValueError(f"frame {frame}: {what}")
            if confidence > highest:
                top, highest = c, confidence
        return operator.index(top), max(highest, 0.0)
    except TypeError as error:
        what = "a detection is (class, confidence), a whole number and one in 0…1"
        raise ValueError(f"frame {frame}: {what} ({error})") from error
