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


def values_of(
    record: Mapping[str, Any], text: str, states: Sequence[int] | None
) -> dict[str, Value]:
    """Returns the values of a record, by the last part of the node's name.

    Args:
        record: a line of live recognition.
        text: the same as JSON.
        states: of the components after it; None where it tells nothing of them.
    """
    kind = record.get("type")
    if kind == "status":
        return {
            STATUS: Value(text, "String"),
            "Connected": Value(bool(record.get("connected")), "Boolean"),
        }
    found = {EVENT: Value(text, "String")}
    if kind in ("event", "uncertain"):
        found |= {
            "Step": Value(str(record.get("step", "")), "String"),
            "StepId": Value(int(record["step_id"]), "Int32"),
            "Confidence": Value(float(record.get("confidence", 0)), "Double"),
        }
    elif kind == "alert":
        found["Alert"] = Value(str(record.get("message", "")), "String")
    elif kind == "unit":
        missing = [row["step"] for row in record.get("missing", ())]
        found["Unit"] = Value(int(record.get("unit", 0)), "Int32")
        found["Missing"] = Value(missing, "String", True)
    if states is not None:
        found["States"] = Value(list(states), "Int32", True)
    return found
