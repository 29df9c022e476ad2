"""From the beliefs of the learned fusion to events.

Where the variant allows the step: install (3k) when the logit of being right exceeds `install` and
the reported state is not right; incorrect installation (3k + 1) when that of being wrong exceeds
`wrong` and it is not wrong; remove (3k + 2) when that of being there falls below `remove` and it is
right or wrong. Where two of them hold, the surer counts. A removal that the variant does not expect
may need a lower logit, `unexpected`.

That is how a step is *seen*. With `sure`, the bar that `risk.py` chooses, a second reporter says
what is *right*: an installation also needs that much evidence of the part itself since it last
changed (`Belief.own`), which no other part and no prior lifts. So what was reported as incorrect is
right only after the part has gone, or has been shown right for longer than `REMEMBERED` speaks
against it. A part that is seen to be there, or to be right, and that is neither right nor wrong, is
not sure: after `PATIENCE` an event asks for a clear view, once until the part is reported.

Steps that one look at the object shows cross their thresholds some frames apart, in no order that
means anything. With `hold` a report waits, for so long at most, while another possible step is
rising; then all that are over their thresholds are reported at once, by step id. Where nothing is
seen when that time is up, the last frame that was seen decides. That is for the files of a
detector, which are decoded as a whole.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.learned_beliefs import Belief, sigmoid
from stormpsr_jax.psr.streams.stream import Event

NAME = "learned"
MAX_HOLD = 60.0
RISING = -1.0  # logit above which a step may soon exceed its threshold
PATIENCE = (
    8.0  # seconds for which a part is not sure before an event says so; most are right by then
)
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
        hold: seconds that a report waits at most for others that are rising, 0…60; None is 0.
        sure: log odds of the part's own evidence above which it is right; None asks for none, and
            then no part is not sure.
    """

    install: float = 3.5
    wrong: float = 0.0
    remove: float = -2.0
    rho: float | None = 0.1
    unexpected: float | None = None
    hold: float | None = None
    sure: float | None = None

    def __post_init__(self) -> None:
        for field in ("install", "wrong", "remove", "unexpected", "sure"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{field} {value} is not a finite number")
        for field, high in (("rho", 1), ("hold", MAX_HOLD)):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= high:
                raise ValueError(f"{field} {value} is not in 0…{high:g}")


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
        expected = np.isin(3 * parts + 2, variant.expected)
        unexpected = settings.remove if settings.unexpected is None else settings.unexpected
        removal = -np.where(expected, settings.remove, unexpected)
        ones = np.ones(len(parts))
        self._install, self._sure = settings.install, settings.sure
        self._thresholds = np.stack([settings.install * ones, settings.wrong * ones, removal])
        # What a report waits for: neither what goes wrong nor what is not expected to come off.
        self._awaited = np.stack([may_install, np.zeros_like(may_install), expected])
        self._hold = math.ceil((settings.hold or 0.0) * procedure.fps)  # frames
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
        """Returns the events of the next frame with a belief, by step id; nothing waits."""
        _, over, kinds = self._over(belief)
        states = np.array(_STATES)[kinds]
        events = []
        for k in np.flatnonzero(over.any(axis=0) & (states != self.reported)).tolist():
            self.reported[k] = states[k]
            self.asked[k] = False
            events.append(self._event(frame, k, int(kinds[k]), belief))
        if self._sure is not None:
            events += self._ask(frame, belief, np.any(over, axis=0))
            events.sort(key=lambda event: event.step_id)
        return events

    def whole(self, frames: np.ndarray, belief: Belief) -> list[Event]:
        """Returns the events of a recording, of frames (N,) and beliefs (N, K), with `hold`.

        Frames that would change nothing, nearly all, are found at once and left out. What still
        waits at the end is not reported: nothing more was seen.
        """
        _, over, kinds = self._over(belief, axis=1)
        states, over = np.array(_STATES)[kinds], np.asarray(over.any(axis=1))
        events: list[Event] = []
        since: int | None = None  # the frame from which on a report waits
        waiting = belief  # what it reports
        n = 0
        while n < len(frames):
            if since is None:
                rest = slice(n, None)
                stirs = over[rest] & (states[rest] != self.reported)
                if self._sure is not None:
                    own = Belief(*(its[rest] for its in belief))
                    stirs |= self._unsure(own, over[rest]) != (self.unsure >= 0)
                    stirs |= self._gone(own)
                    waits = (self.unsure >= 0) & ~self.asked
                    stirs |= waits & (frames[rest, None] - self.unsure >= self._patience)
                (some,) = np.nonzero(stirs.any(axis=1))
                if not len(some):
                    break
                n += int(some[0])
            frame, now = int(frames[n]), Belief(*(its[n] for its in belief))
            if since is not None and frame > since + self._hold:  # its time was up before
                events += self.update(since + self._hold, waiting)
                since = None
            since, waiting = self._waits(frame, now, since), now
            if since is None:
                events += self.update(frame, now)
            n += 1
        return events

    def _waits(self, frame: int, belief: Belief, since: int | None) -> int | None:
        """Returns the frame from which on what is ready waits for others; None: it does not."""
        if not self._hold:
            return None
        logits, over, kinds = self._over(belief)
        ready = over.any(axis=0) & (np.array(_STATES)[kinds] != self.reported)
        if not ready.any():
            return None
        since = frame if since is None else since
        away = np.array(_STATES)[:, None] != self.reported
        rising = self._awaited & away & ~ready & (logits > RISING)
        return since if rising.any() and frame - since < self._hold else None

    def _over(self, belief: Belief, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits (…, 3, K), which are over their thresholds, and which of three is, (…, K)."""
        logits = np.stack([belief.right, belief.wrong, -belief.present], axis)
        over = self._may & (logits > self._thresholds)
        if self._sure is not None:
            over[..., 0, :] &= belief.own > self._sure
        # After a projection a part may be believed to be right and to be wrong or absent: the surer
        # counts, so that two reports do not take turns.
        return logits, over, np.where(over, logits, -np.inf).argmax(axis=-2)

    def _event(self, frame: int, k: int, kind: int, belief: Belief, is_a: str = "report") -> Event:
        logit = (belief.right, belief.wrong, -belief.present)[kind][k]
        confidence, step_id = float(sigmoid(logit)), 3 * k + kind
        if self._calibration is not None:
            confidence = self._calibration(confidence, step_id)
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
        return self.asked & (self.reported == 0) & (-belief.present > self._thresholds[2])

    def _unsure(self, belief: Belief, over: np.ndarray) -> np.ndarray:
        """Which parts (…, K) are there, or seem right, and neither are reported so nor sure."""
        there = (belief.present > self._install) & (self.reported == 0)
        seen = there | ((belief.right > self._install) & (self.reported != 1))
        return self._may[0] & seen & ~over
