"""How far a procedure is: each step done, next, missing, not sure or wrong, and alerts."""

from typing import Any

import msgspec

from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.psr.monitor import Alert, Monitor
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.serving.frames import Frame

PERSON = "person"  # in place of a stream, of an event that somebody has confirmed


def likely(step: int, belief: Belief) -> float:
    """How likely a step holds, by beliefs in 0…1: its part is right, incorrect, absent."""
    k, kind = divmod(step, 3)
    return float((belief.right[k], belief.wrong[k], 1 - belief.present[k])[kind])


class ChecklistState(msgspec.Struct, forbid_unknown_fields=True):
    """What is saved of a checklist: the monitor's state, and (step id, frame) of the others."""

    monitor: dict[str, Any]
    seen: list[tuple[int, int]]
    done: list[tuple[int, int]]
    wrong: list[tuple[int, int]]
    unsure: list[tuple[int, int]]


class Checklist:
    """The expected steps of a variant while it is carried out; frames in, alerts out."""

    def __init__(self, procedure: Procedure, variant: Variant, confidence: float, fps: float):
        """`confidence`: a detection at or below it is no clear view (see `Monitor`)."""
        self._procedure, self._variant = procedure, variant
        self._monitor = Monitor(procedure.at(fps), variant, confidence=confidence)
        self._expected = set(variant.expected)
        # By step, the frame at which it was seen, or completed, last.
        self._seen: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._wrong: dict[int, int] = {}  # those that should not have happened and still hold
        self._unsure: dict[int, int] = {}  # installations of which it is asked whether they are

    def update(self, frame: Frame) -> list[Alert]:
        """Takes the next frame."""
        number, events = frame.number, frame.events
        steps = [event.step_id for event in events if event.kind == "report"]
        for event in events:
            if event.kind == "report":
                self._unsure.pop(3 * (event.step_id // 3), None)
            elif event.kind == "unsure":
                self._unsure[event.step_id] = number
            elif event.kind == "gone":
                self._unsure.pop(event.step_id - 2, None)
            if event.kind in ("seen", "report"):  # the last one counts
                for other in range(3 * (event.step_id // 3), 3 * (event.step_id // 3) + 3):
                    self._seen.pop(other, None)
                if event.kind == "seen":
                    self._seen[event.step_id] = number
        for step in steps:
            corrects = step % 3 == 2 and step - 1 in self._wrong
            for other in {3 * (step // 3) + i for i in range(3)} - {step}:
                self._wrong.pop(other, None)
                # Where both are expected, a part is put on for a while: both stay done.
                if not (step in self._expected and other in self._expected):
                    self._done.pop(other, None)
            if step in self._expected:
                self._done[step] = number
            elif not corrects and (step % 3 == 1 or step not in (self._variant.allowed or ())):
                self._wrong[step] = number
        wrong = None if frame.belief is None else frame.belief.wrong.tolist()
        clear = [] if frame.top is None else [frame.top[:2]]
        alerts = self._monitor.update(number, steps, clear, wrong)
        return list(map(self._as_known, alerts))

    def finish(self) -> list[Alert]:
        """Alerts for the steps that are missing, or not sure, if the recording ends now."""
        return list(map(self._as_known, self._monitor.finish()))

    def _as_known(self, alert: Alert) -> Alert:
        """An alert, which does not call missing what may be there."""
        step = alert.step_id
        if alert.kind not in ("missed", "missing") or step is None or step % 3:
            return alert
        if step not in self._unsure and step not in self._seen:
            return alert
        part = self._procedure.components[step // 3]
        message = f"not sure whether {part} is installed correctly: check"
        kind = "unsure" if alert.kind == "missing" else alert.kind
        return alert._replace(kind=kind, message=message)

    @property
    def unsure(self) -> list[int]:
        """The installations (3k) that nobody knows to be right or wrong, the oldest first."""
        return list(self._unsure)

    def asks(self, component: int, how: int) -> bool:
        """Whether a person may say that a component is right (`how` 0), or incorrect (1)."""
        step = 3 * component
        return how < 2 and (step in self._unsure or (how == 0 and step + 1 in self._wrong))

    def rows(self) -> list[tuple[int, str]]:
        """Returns (step id, status) of the expected steps, and then of wrong ones.

        "next" is one step: the first that is open and whose precedence rules hold.
        """
        missing = self._monitor.missing()
        before: dict[int, list[int]] = {}
        for first, second in self._variant.precedence:
            before.setdefault(second, []).append(first)
        rows, found = [], False
        for step in self._variant.expected:
            status = "done" if step in self._done else "missing" if step in missing else "open"
            if step in self._seen and step not in self._done:
                status = "seen"
            if step in self._unsure:
                status = "unsure"
            ready = all(map(self._in_place, before.get(step, ())))
            if status == "open" and ready and not found:
                status, found = "next", True
            rows.append((step, status))
        rows += [(step, "unsure") for step in self._unsure if step not in self._expected]
        return rows + [(step, "wrong") for step in sorted(self._wrong)]

    def _in_place(self, step: int) -> bool:
        """Whether a step counts for those that it precedes, as in `Monitor`, or was seen.

        Where a part is expected to be put on and taken off, how it was at the start says nothing.
        """
        k = step // 3
        both = {3 * k, 3 * k + 2} <= self._expected
        held = step in self._done if both else self._monitor.holds(step)
        return held or step in self._seen or step in self._unsure

    def frame(self, step: int) -> int | None:
        """The frame at which a step was completed that is done or wrong, or else was seen."""
        known = self._done.get(step, self._wrong.get(step, self._seen.get(step)))
        return None if step in self._unsure else known

    def state(self) -> ChecklistState:
        """Returns all that `restore` needs to go on from here."""
        kept = (self._seen, self._done, self._wrong, self._unsure)
        of_steps = (list(steps.items()) for steps in kept)
        return ChecklistState(self._monitor.state(), *of_steps)

    def restore(self, state: ChecklistState) -> None:
        """Goes back to a saved state; ValueError if it is of another procedure or variant."""
        self._monitor.restore(state.monitor)
        self._seen, self._done = dict(state.seen), dict(state.done)
        self._wrong = dict(state.wrong)
        self._unsure = dict(state.unsure)
