"""The units of today, which the page shows: each with its steps, times and alerts."""

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

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
