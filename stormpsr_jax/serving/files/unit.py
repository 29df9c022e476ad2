"""Units: one assembly after the other, where each ends, and what is told about it then."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stormpsr_jax.base.files import number
from stormpsr_jax.psr.events import Event, reports
from stormpsr_jax.serving.online import PERSON, Live

# Seconds that a finished assembly must not be seen, until it counts as taken away and the next unit
# begins. Shorter, a hand before it would be enough, and its steps would be told once more.
TAKEN_AWAY = 3.0
MAX_STEPS = 1000  # of a unit; later ones are counted only
_MAX_SECONDS = 86_400.0


@dataclasses.dataclass(frozen=True)
class Reset:
    """When a unit ends.

    The kind is "never", "key", "complete" (all expected steps are done; the next unit begins when
    it was taken away) or "absent" (no object for so many seconds).
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


class UnitState(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A unit, as it is saved."""

    count: int = 1
    finished: int | None = None  # the class of what is to be taken away before it begins
    first: int | None = None  # the frame in which the object was seen first
    before: int = 0  # the last frame
    away: float = 0.0  # frames for which the object, or what is finished, has not been seen
    # Number and time of each, its wall time, and whether a person has confirmed it.
    steps: list[tuple[int, float, str, bool]] = []
    num_steps: int = 0
    late: list[int] = []  # numbers of those that came after what they should precede


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
        self.state = UnitState()

    @property
    def began(self) -> bool:
        """Whether there was a step, or one may have been."""
        return self.state.num_steps > 0 or bool(self._live.unsure)

    @property
    def waiting(self) -> bool:
        """Whether the unit before is still there, so that this one has not begun."""
        return self.state.finished is not None

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Those of the unit so far, for people and programs."""
        name, fps = self._live.decoder.procedure.step_name, self._live.fps
        return [
            {"step_id": step, "step": name(step), "time_s": time, "frame": round(time * fps)}
            | {"wall_time": wall, "confirmed": confirmed}
            for step, time, wall, confirmed in self.state.steps
        ]

    def begin(self) -> None:
        """Waits no longer."""
        self.state.finished, self.state.away = None, 0.0

    def wait(self, frame: int) -> None:
        """Takes the frame that `live` has just looked at, while it is `waiting`."""
        seen, finished = self._seen(), self.state.finished
        # A finished state without a catalogue's class may be any.
        self._pass(frame, seen == finished or (finished == 0 and seen is not None))
        if self.state.away >= TAKEN_AWAY * self._live.fps:
            self.begin()

    def take(self, frame: int, events: Sequence[Event], wall_time: str = "") -> str | None:
        """Takes the frame that `live` was given; returns why the unit ends with it, or None.

        Its `wall_time` is kept with its steps, as the clock of a file stands still in a restart.
        Time that was lost with the source is no absence of the object.
        """
        live, state, seen = self._live, self.state, self._seen()
        if state.first is None and (seen is not None or not live.detects):
            state.first = frame
        for event in reports(events):
            state.num_steps += 1
            if len(state.steps) < MAX_STEPS:
                time, by_person = round(event.frame / live.fps, 6), event.stream == PERSON
                state.steps.append((event.step_id, time, wall_time, by_person))
        late = [alert.step_id for alert in live.alerts if alert.kind == "out of order"]
        state.late += [step for step in late if step is not None and step not in state.late]
        self._pass(frame, seen is not None)
        if self._reset.kind == "complete" and self.began and not live.finish():
            return "complete"
        if self._reset.kind == "absent" and self.began:
            return "absent" if state.away >= self._reset.seconds * live.fps else None
        return None

    def _seen(self) -> int | None:
        """The class of a clear view of the object."""
        shown = self._live.shown
        top = None if shown is None else shown.clear(self._live.decoder.floor)
        return None if top is None else top[0]

    def _pass(self, frame: int, here: bool) -> None:
        state = self.state
        passed, state.before = min(frame - state.before, self._live.fps), frame
        state.away = 0.0 if here else state.away + passed

    def end(self, why: str) -> dict[str, Any]:
        """Returns what is told about the unit, and resets `live` and this for the next one."""
        live, state, procedure = self._live, self.state, self._live.decoder.procedure
        last = live.frame
        first = last if state.first is None else state.first
        duration = 0 if last is None or first is None else last - first
        open_steps = [(one.kind, one.step_id) for one in live.finish() if one.step_id is not None]
        unsure = [step for kind, step in open_steps if kind == "unsure"]
        ids = {
            "done": [step.step_id for step in live.progress if step.status == "done"],
            "late": state.late,
            "wrong": [step.step_id for step in live.progress if step.status == "wrong"],
            "unsure": list(dict.fromkeys([*live.unsure, *unsure])),
            "missing": [step for kind, step in open_steps if kind == "missing"],
        }

        def named(step: int) -> dict[str, Any]:
            return {"step_id": step, "step": procedure.step_name(step)}

        record = {
            "unit": state.count,
            "ended": why,
            "start_s": None if first is None else round(first / live.fps, 6),
            "duration_s": round(duration / live.fps, 6),
            "steps": self.steps,
            "num_steps": state.num_steps,
            **{key: [named(step) for step in steps] for key, steps in ids.items()},
        }
        finished = None
        if why == "complete" and live.detects:
            finished = procedure.state_class(live.decoder.assembly)
        live.reset()
        self.state = UnitState(count=state.count + 1, before=state.before, finished=finished)
        return record


MAX_UNITS, MAX_ALERTS = 200, 100  # of today; of a unit

_Record = dict[str, Any]


class UnitHistory(msgspec.Struct, forbid_unknown_fields=True):
    """Lines of units, each with its "alerts", and the alerts of the unit at hand."""

    units: list[_Record] = []
    alerts: list[_Record] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes the next line that was told. The memory does not grow."""
        kind = record["type"]
        if kind == "alert" and record["alert"] != "withdrawn":  # an all-clear is none
            alert = {key: record[key] for key in ("message", "time_s", "frame", "wall_time")}
            self.alerts = [*self.alerts, alert][:MAX_ALERTS]
        elif kind == "unit":
            same = [unit for unit in self.units if _day(unit) == _day(record)]
            self.units = [*same, {**record, "alerts": self.alerts}][-MAX_UNITS:]
            self.alerts = []

    def until(self, now: Mapping[str, Any]) -> list[_Record]:
        """Returns all units of today; `now` is said of the one at hand, the last."""
        return [*self.units, {**now, "alerts": self.alerts}]


def _day(record: Mapping[str, Any]) -> datetime.date | None:
    """The day of a record, here; None of a saved one without a time."""
    try:
        return datetime.datetime.fromisoformat(record["wall_time"]).astimezone().date()
    except (KeyError, TypeError, ValueError):
        return None
