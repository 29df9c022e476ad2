"""What the lines of live recognition have told of the unit at hand."""

from collections.abc import Mapping, Sequence
from typing import Any


class Told:
    """The components as they are after the events that were told.

    An uncertain event changes nothing: its step is not told as done; nor does one that is not sure.

    Attributes:
        states: K values: 1 installed, 0 absent, -1 incorrect.
        unsure: names of the installations that are not sure, by step id.
    """

    def __init__(
        self,
        initial_state: Sequence[int],
        states: Sequence[int] | None = None,
        unsure: Mapping[int, str] | None = None,
    ):
        """Takes over the states.

        Args:
            initial_state: K values with which each unit begins.
            states: those that were told of the unit at hand; None for the initial ones.
            unsure: likewise.
        """
        self._initial = list(initial_state)
        self.states = list(initial_state if states is None else states)
        self.unsure = dict(unsure or {})

    def take(self, record: Mapping[str, Any]) -> bool:
        """Takes the next line; returns whether it tells of states."""
        kind, step = record.get("type"), record.get("step_id")
        if kind == "unit":
            self.states, self.unsure = list(self._initial), {}
        elif isinstance(step, int) and 0 <= step < 3 * len(self.states):
            if kind in ("event", "confirmed"):
                self.unsure.pop(3 * (step // 3), None)
                self.states[step // 3] = (1, -1, 0)[step % 3]
            elif kind == "gone":
                self.unsure.pop(3 * (step // 3), None)
            elif kind == "unsure":
                self.unsure[step] = str(record.get("step", ""))
        return kind in ("event", "unsure", "gone", "confirmed", "unit")
