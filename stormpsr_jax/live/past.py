"""The units of today, which the page shows: each with its steps, times and alerts."""

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_UNITS, MAX_ALERTS = 200, 100  # of today; of a unit

_Record = dict[str, Any]


class PastState(msgspec.Struct, forbid_unknown_fields=True):
    """Lines of units, each with its "alerts", and the alerts of the unit at hand."""

    units: list[_Record] = []
    alerts: list[_Record] = []


class Past:
    """Gathers lines that were told. The memory does not grow."""

    def __init__(self) -> None:
        self.state = PastState()

    def take(self, record: Mapping[str, Any]) -> None:
        """Takes the next line."""
        state, kind = self.state, record["type"]
        if kind == "alert":
            kept = {key: record[key] for key in ("message", "time_s", "frame", "wall_time")}
            state.alerts = [*state.alerts, kept][:MAX_ALERTS]
        elif kind == "unit":
            day = _day(record)
            same = [unit for unit in state.units if _day(unit) == day]
            state.units = [*same, {**record, "alerts": state.alerts}][-MAX_UNITS:]
            state.alerts = []

    def units(self, now: Mapping[str, Any]) -> list[_Record]:
        """Returns all units of today; `now` is said of the one at hand, the last."""
        return [*self.state.units, {**now, "alerts": self.state.alerts}]


def _day(record: Mapping[str, Any]) -> datetime.date | None:
    """The day of a record, here; None of a saved one without a time."""
    try:
        return datetime.datetime.fromisoformat(record["wall_time"]).astimezone().date()
    except (KeyError, TypeError, ValueError):
        return None
