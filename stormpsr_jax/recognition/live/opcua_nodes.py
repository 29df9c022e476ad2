"""What live recognition writes to which OPC UA nodes; docs/recognise.md has the same as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

EVENT, STATUS = "Event", "Status"  # which a server has to have


class Value(NamedTuple):
    """A value of an OPC UA type: "String", "Int32", "Double" or "Boolean", or an array of it."""

    value: Any
    type: str
    is_array: bool = False


class Nodes:
    """Turns records into values of nodes; knows the state of the unit at hand."""

    def __init__(self, initial_state: Sequence[int], state: Sequence[int] | None = None):
        """Takes over the states.

        Args:
            initial_state: K values with which each unit begins.
            state: those that the unit at hand has now; None for the initial ones.
        """
        self._initial = list(initial_state)
        self._state = list(initial_state if state is None else state)

    def values(self, record: Mapping[str, Any], text: str) -> dict[str, Value]:
        """Returns the values of a record, by the last part of the node's name.

        Args:
            record: a line of live recognition.
            text: the same as JSON.
        """
        kind = record.get("type")
        if kind == "status":
            return {
                STATUS: Value(text, "String"),
                "Connected": Value(bool(record.get("connected")), "Boolean"),
            }
        values = {EVENT: Value(text, "String")}
        if kind in ("event", "uncertain"):
            values |= {
                "Step": Value(str(record.get("step", "")), "String"),
                "StepId": Value(int(record["step_id"]), "Int32"),
                "Confidence": Value(float(record.get("confidence", 0)), "Double"),
            }
        if kind == "event":
            k, change = divmod(int(record["step_id"]), 3)
            if k < len(self._state):
                self._state[k] = (1, -1, 0)[change]
            values["States"] = Value(list(self._state), "Int32", True)
        elif kind == "alert":
            values["Alert"] = Value(str(record.get("message", "")), "String")
        elif kind == "unit":
            self._state = list(self._initial)
            values |= {
                "Unit": Value(int(record.get("unit", 0)), "Int32"),
                "Missing": Value(
                    [row["step"] for row in record.get("missing", ())], "String", True
                ),
                "States": Value(list(self._state), "Int32", True),
            }
        return values
