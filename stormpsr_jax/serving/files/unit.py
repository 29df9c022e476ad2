"""Units: one assembly after the other, where each ends, and what is told about it then."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from stormpsr_jax.base.files import number, whole
from stormpsr_jax.psr.streams.rules import LAST_FRAME, Event
from stormpsr_jax.serving.checklist import Frame
from stormpsr_jax.serving.live import Live

# Seconds that a finished assembly must not be seen, until it counts as taken away and the next unit
# begins. Shorter, a hand before it would be enough, and its steps would be told once more.
TAKEN_AWAY = 3.0
MAX_STEPS = 1000  # of a unit; later ones are counted only
_MAX_SECONDS = 86_400.0


@dataclasses.dataclass(frozen=True)
class Reset:
    """When a unit ends.

    Attributes:
        kind: "never", "key", "complete" (all expected steps are done; the next unit begins when it
            was taken away) or "absent" (no object for so many seconds).
        seconds: of "absent".
    """

    kind: str = "never"
    seconds: float = 0.0


def parse_reset(text: str) -> Reset:
    """Reads --reset=complete|key|SECONDS; ValueError if it is none of them."""
    if text in ("complete", "key"):
        return Reset(text)
    try:
        return Reset("absent", number(float(text), "--reset", 0.1, _MAX_SECONDS))
    except ValueError:
        raise ValueError(
            f"--reset={text} is none of complete, key, and a number of seconds without the object"
        ) from None


_Number = Annotated[float, msgspec.Meta(ge=0, le=LAST_FRAME)]


class State(msgspec.Struct, forbid_unknown_fields=True):
    """What is saved of a unit: the attributes of `Unit`; of each step its number and time."""

    count: Annotated[int, msgspec.Meta(ge=1, le=LAST_FRAME)]
    finished: Frame | None
    first: Frame | None
    last: Frame
    before: Frame
    away: _Number
    steps: Annotated[list[tuple[int, _Number]], msgspec.Meta(max_length=MAX_STEPS)]
    num_steps: Frame
    late: list[int]


class Unit:
    """Gathers what is told at the end of a unit; the frames of `live` in, the end out."""

    def __init__(self, live: Live, reset: Reset):
        """`live`: at the start of a unit.

        Raises:
            ValueError: the stream does not look for the object, whose absence is to end a unit.
        """
        if reset.kind == "absent" and not live.detects:
            raise ValueError(
                f"--reset={reset.seconds:g}: stream {live.decoder.stream} does not look for the "
                "object; --reset=complete or key, or another --stream"
            )
        self._live, self._reset = live, reset
        self.count = 1
        self._before = 0  # the last frame
        self.restart()

    def restart(self) -> None:
        """Begins the unit at hand anew, as nothing that was told of it is true."""
        self._finished: int | None = None  # the class of what is to be taken away
        self._away = 0.0  # frames for which it, or any object, has not been seen
        self._first: int | None = None  # the frame in which the object was seen first
        self._last = 0  # the frame of the last step
        self._steps: list[dict[str, Any]] = []
        self._num_steps = 0
        self._late: list[int] = []

    @property
    def began(self) -> bool:
        """Whether there was a step."""
        return self._num_steps > 0

    @property
    def waiting(self) -> bool:
        """Whether the unit before is still there, so that this one has not begun."""
        return self._finished is not None

    def begin(self) -> None:
        """Does not wait any longer."""
        self._finished, self._away = None, 0.0

    def wait(self, frame: int) -> None:
        """Takes the frame that `live` has just looked at, while it is `waiting`."""
        seen = self._seen()
        # A finished state without a catalogue's class may be any.
        self._pass(frame, seen == self._finished or (self._finished == 0 and seen is not None))
        if self._away >= TAKEN_AWAY * self._live.fps:
            self.begin()

    def take(self, frame: int, events: Sequence[Event]) -> str | None:
        """Takes the frame that `live` was given; returns why the unit ends with it, or None.

        Time that was lost with the source is no absence of the object.
        """
        live = self._live
        fps, seen = live.fps, self._seen()
        if self._first is None and (seen is not None or not live.detects):
            self._first = frame
        for event in events:
            self._num_steps += 1
            self._last = event.frame
            if len(self._steps) < MAX_STEPS:
                step = {"step_id": event.step_id, "step": event.name}
                self._steps.append(step | {"time_s": round(event.frame / fps, 6)})
        late = [alert.step_id for alert in live.alerts if alert.kind == "out of order"]
        self._late += [step for step in late if step is not None and step not in self._late]
        self._pass(frame, seen is not None)
        if self._reset.kind == "complete" and self.began and not live.finish():
            return "complete"
        if self._reset.kind == "absent" and self.began:
            return "absent" if self._away >= self._reset.seconds * fps else None
        return None

    def _seen(self) -> int | None:
        """The class of a clear view of the object."""
        top = self._live.seen
        return None if top is None or top[1] <= self._live.decoder.floor else top[0]

    def _pass(self, frame: int, here: bool) -> None:
        passed, self._before = min(frame - self._before, self._live.fps), frame
        self._away = 0.0 if here else self._away + passed

    def end(self, why: str) -> dict[str, Any]:
        """Returns what is told about the unit, and resets `live` and this for the next one."""
        live, name = self._live, self._live.decoder.procedure.step_name
        first = live.frame if self._first is None else self._first
        last = max(self._last, first or 0)
        steps = {
            "done": [step.step_id for step in live.progress if step.status == "done"],
            "late": self._late,
            "wrong": [step.step_id for step in live.progress if step.status == "wrong"],
            "missing": [alert.step_id for alert in live.finish() if alert.step_id is not None],
        }
        record: dict[str, Any] = {
            "unit": self.count,
            "ended": why,
            "start_s": None if first is None else round(first / live.fps, 6),
            "duration_s": 0.0 if first is None else round((last - first) / live.fps, 6),
            "steps": self._steps,
            "num_steps": self._num_steps,
        }
        for key, ids in steps.items():
            record[key] = [{"step_id": step, "step": name(step)} for step in ids]
        state = live.decoder.assembly
        live.reset()
        self.count += 1
        self.restart()
        if why == "complete" and live.detects:
            self._finished = live.decoder.procedure.state_class(state)
        return record

    def state(self) -> State:
        """Returns all that `restore` needs, besides `live`."""
        return State(
            count=self.count,
            finished=self._finished,
            first=self._first,
            last=self._last,
            before=self._before,
            away=self._away,
            steps=[(step["step_id"], step["time_s"]) for step in self._steps],
            num_steps=self._num_steps,
            late=list(self._late),
        )

    def restore(self, state: State) -> None:
        """Goes back to a saved state; ValueError if it is of another procedure."""
        procedure = self._live.decoder.procedure
        whole(state.num_steps, "unit: num_steps", len(state.steps), LAST_FRAME)
        steps = [
            {
                "step_id": procedure.checked_step(step, "unit: steps"),
                "step": procedure.step_name(step),
                "time_s": time,
            }
            for step, time in state.steps
        ]
        self._late = [procedure.checked_step(step, "unit: late") for step in state.late]
        self._steps = steps
        self.count, self._num_steps = state.count, state.num_steps
        self._first, self._last, self._before = state.first, state.last, state.before
        self._finished, self._away = state.finished, state.away
