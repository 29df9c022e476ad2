"""From the beliefs of the learned fusion to events.

Where the variant allows the step: install (3k) when the logit of being right exceeds `install` and
the reported state is not right; incorrect installation (3k + 1) when that of being wrong exceeds
`wrong` and it is not wrong; remove (3k + 2) when that of being there falls below `remove` and it is
right or wrong. Where two of them hold, the surer counts. A removal that the variant does not expect
may need a lower logit, `unexpected`.

That is how a step is *seen*. With `sure`, the bar that `risk.py` chooses, a second reporter says
what is *right*: where an installation is the surest of the three, it also needs that much evidence
of the part itself (`evidence.py`), which no other part and no prior lifts. A part that is seen to
be there, or to be right, and that is neither right nor wrong, is not sure: after `PATIENCE` an
event asks for a clear view, once until the part is reported, or is off.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.evidence import sigmoid
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.recordings.procedure import Procedure, Variant

NAME = "learned"
MAX_HOLD = 60.0
PATIENCE = 8.0  # seconds not sure before an event says so; most parts are right by then
_STATES = (1, -1, 0)  # after the steps 3k, 3k + 1 and 3k + 2


@dataclasses.dataclass(frozen=True)
class LearnedSettings:
    """When a belief becomes an event.

    Attributes:
        install, wrong: logits above which a part is reported as installed, and as wrong.
        remove: logit of being present below which a part is reported as removed.
        rho: ρ of the projection, in 0…1; 1 takes no notice of the catalogue but for what is more
            than one component away from it, None leaves the projection out.
        unexpected: as `remove`, of removals that the variant does not expect; None is `remove`.
        hold: seconds, 0…60, within which steps that are seen one after the other are reported
            together; None reports each at once.
        sure: log odds of the part's own evidence above which it is right; None asks for none, and
            then no part is not sure.
        camera: (K,) that beliefs take a part's logit of being right to be higher by, as a camera
            shows it lower than training did (`level`); its evidence is as it is.
    """

    install: float = 3.0
    wrong: float = 0.0
    remove: float = -2.0
    rho: float | None = 0.1
    unexpected: float | None = None
    hold: float | None = None
    sure: float | None = None
    camera: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for field in ("install", "wrong", "remove", "unexpected", "sure"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{field}={value} is not a finite number")
        if not all(math.isfinite(value) for value in self.camera or ()):
            raise ValueError(f"camera={self.camera} holds numbers that are not finite")
        for field, high in (("rho", 1), ("hold", MAX_HOLD)):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= high:
                raise ValueError(f"{field}={value} is not in 0…{high:g}")


def removal_logits(variant: Variant, settings: LearnedSettings) -> np.ndarray:
    """Returns the logits (K,) of P(present) below which a part is reported as removed."""
    parts = np.arange(len(variant.initial_state))
    expected = np.isin(3 * parts + 2, variant.expected)
    unexpected = settings.remove if settings.unexpected is None else settings.unexpected
    return np.where(expected, settings.remove, unexpected)


class Reporter:
    """From beliefs to events, and the state that was reported last."""

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        settings: LearnedSettings,
        calibration: Calibration | None,
    ) -> None:
        self._procedure, self._calibration = procedure, calibration
        parts = np.arange(procedure.num_components)
        possible = list(variant.possible)
        may_install = np.isin(3 * parts, possible)
        # A part that may go on can go on wrong.
        may_wrong = np.isin(3 * parts + 1, possible) | may_install
        self._may = np.stack([may_install, may_wrong, np.isin(3 * parts + 2, possible)])
        ones = np.ones(len(parts))
        self._settings = settings
        rows = settings.install * ones, settings.wrong * ones, -removal_logits(variant, settings)
        self._thresholds = np.stack(rows)
        self.reported = np.array(variant.initial_state, int)
        # Since which frame each part is not sure, -1 if it is, and whether an event has said so.
        self.unsure, self.asked = np.full(len(parts), -1), np.zeros(len(parts), bool)
        self._patience = math.ceil(PATIENCE * procedure.fps)

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs, as plain values for JSON."""
        return {
            "reported": self.reported.tolist(),
            "unsure": self.unsure.tolist(),
            "asked": self.asked.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state."""
        self.reported, self.unsure = np.array(state["reported"]), np.array(state["unsure"])
        self.asked = np.array(state["asked"])

    def update(self, frame: int, belief: Belief) -> list[Event]:
        """Returns the events of the next frame with a belief, by step id."""
        over, kinds = self._over(belief)
        states = np.array(_STATES)[kinds]
        events = []
        for k in np.flatnonzero(over & (states != self.reported)).tolist():
            self.reported[k] = states[k]
            self.asked[k] = False
            events.append(self._event(frame, k, int(kinds[k]), belief))
        if self._settings.sure is not None:
            events += self._ask(frame, belief, over)
            events.sort(key=lambda event: event.step_id)
        return events

    def whole(self, frames: np.ndarray, belief: Belief) -> list[Event]:
        """Returns the events of a recording, of frames (N,) and beliefs (N, K).

        Frames that would change nothing, nearly all, are found at once and left out.
        """
        over, kinds = self._over(belief, axis=1)
        states = np.array(_STATES)[kinds]
        events: list[Event] = []
        n = 0
        while n < len(frames):
            rest = slice(n, None)
            stirs = over[rest] & (states[rest] != self.reported)
            if self._settings.sure is not None:
                own = Belief(*(part[rest] for part in belief))
                stirs |= self._unsure(own, over[rest]) != (self.unsure >= 0)
                stirs |= self._gone(own)
                waits = (self.unsure >= 0) & ~self.asked
                stirs |= waits & (frames[rest, None] - self.unsure >= self._patience)
            (some,) = np.nonzero(stirs.any(axis=1))
            if not len(some):
                break
            n += int(some[0])
            events += self.update(int(frames[n]), Belief(*(part[n] for part in belief)))
            n += 1
        return events

    def _over(self, belief: Belief, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """What may be reported of each part (…, K): whether anything, and which of the three."""
        logits = np.stack([belief.right, belief.wrong, -belief.present], axis)
        over = self._may & (logits > self._thresholds)
        # After a projection a part may be believed to be right and to be wrong or absent: the surer
        # counts, so that two reports do not take turns. The bar takes an installation out and does
        # not make it incorrect.
        kinds = np.where(over, logits, -np.inf).argmax(axis=-2)
        one_is = np.asarray(over.any(axis=-2))
        if self._settings.sure is not None:
            one_is = one_is & ((kinds != 0) | (belief.own > self._settings.sure))
        return one_is, kinds

    def _event(self, frame: int, k: int, kind: int, belief: Belief, is_a: str = "report") -> Event:
        logit = (belief.right, belief.wrong, -belief.present)[kind][k]
        confidence, step_id = float(sigmoid(logit)), 3 * k + kind
        if self._calibration is not None:
            confidence = self._calibration(confidence)
        evidence = {name: float(sigmoid(its[k])) for name, its in belief._asdict().items()}
        if is_a == "unsure":
            evidence["since"] = int(self.unsure[k])
        name, time = self._procedure.step_name(step_id), frame / self._procedure.fps
        return Event(frame, step_id, confidence, NAME, evidence, name, time, is_a)

    def _ask(self, frame: int, belief: Belief, over: np.ndarray) -> list[Event]:
        """The events of parts that have not been sure for long enough; `over` (K,): what is."""
        unsure = self._unsure(belief, over)
        self.unsure = np.where(unsure, np.where(self.unsure < 0, frame, self.unsure), -1)
        due = unsure & ~self.asked & (frame - self.unsure >= self._patience)
        gone = self._gone(belief)
        self.asked = (self.asked | due) & ~gone
        parts = np.flatnonzero(due).tolist()
        events = [self._event(frame, k, 0, belief, "unsure") for k in parts]
        parts = np.flatnonzero(gone).tolist()
        return events + [self._event(frame, k, 2, belief, "gone") for k in parts]

    def _gone(self, belief: Belief) -> np.ndarray:
        """Which parts (…, K) an event has called not sure that have been taken off."""
        return self.asked & (self.reported == 0) & (belief.present < self._settings.remove)

    def _unsure(self, belief: Belief, over: np.ndarray) -> np.ndarray:
        """Which parts (…, K) are there, or seem right, and neither are reported so nor sure."""
        install = self._settings.install
        there = (belief.present > install) & (self.reported == 0)
        seen = there | ((belief.right > install) & (self.reported != 1))
        return self._may[0] & seen & ~over
