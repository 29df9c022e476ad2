"""Alerts while a procedure is carried out: order, omissions, unexpected steps and error states.

The rules are a variant's ``precedence``: pairs (before, after) of steps. What counts is the state
of the assembly: the rule holds if, when ``after`` completes, the component of ``before`` is as that
step leaves it, whether it was so from the start or was made so; a step that was undone since is
missing again. A component that sits wrong is as neither of its steps leaves it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stormpsr_jax.base.files import whole
from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.streams.decoding import top_detection
from stormpsr_jax.psr.streams.rules import LAST_FRAME

KINDS = ("missed", "out of order", "unexpected", "error state", "missing")


class Alert(NamedTuple):
    """Something that should not be.

    Attributes:
        frame: at which it was noticed.
        kind: "missed" (``other`` completed without ``step_id``), "out of order" (``step_id``
            completed after ``other``, which it should precede), "unexpected" (the variant does not
            expect ``step_id``, or its component sits wrong), "error state" (the object was seen in
            it for long), "missing" (``step_id`` is not done at the end; only from
            `Monitor.finish`).
        message: for people.
        step_id: the step at fault; None for an error state, as the detector's error class names no
            component.
        other: the step that should come after it, where there is one.
        since: first frame of the error state.
    """

    frame: int
    kind: str
    message: str
    step_id: int | None = None
    other: int | None = None
    since: int | None = None


class Monitor:
    """Online: events of a frame in, alerts out. The memory does not grow.

    Args:
        procedure: the product.
        variant: initial state, expected steps and precedence rules.
        error_seconds: an error state that is seen for at least as long raises an alert, once until
            a catalogued state is seen. Frames without a clear view do not end it.
        confidence: a detection at or below it is no clear view.
        fps: frames per second, None for the procedure's.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        *,
        error_seconds: float = 5.0,
        confidence: float = 0.5,
        fps: float | None = None,
    ) -> None:
        fps = procedure.checked_fps(fps)
        if not 0 < error_seconds < float("inf"):
            raise ValueError(f"error_seconds={error_seconds} is not a positive number")
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence={confidence} is not in 0…1")
        self._procedure, self._variant = procedure, variant
        self._error_frames = error_seconds * fps
        self._confidence = confidence
        self._expected = frozenset(variant.expected)
        self._announced = self._expected.union(variant.allowed or ())
        self._before: dict[int, list[int]] = {}
        for before, after in variant.precedence:
            self._before.setdefault(after, []).append(before)

        self._frame = -1
        self._state = list(variant.initial_state)
        self._completed: set[int] = set()
        self._missed: dict[int, list[int]] = {}  # by missed step, the steps that went ahead
        self._error_since: int | None = None
        self._error_told = False

    def update(
        self,
        frame: int,
        step_ids: Iterable[int] = (),
        detections: Iterable[tuple[int, float]] = (),
    ) -> list[Alert]:
        """Takes one frame and returns its alerts.

        Args:
            frame: its number, larger than that of the frame before; frames may be left out.
            step_ids: of the steps that completed at it, or 3k+1 of a component that sits wrong from
                now on. Steps of one frame have no order among each other.
            detections: the detector's (class, confidence) rows, in file order.

        Raises:
            ValueError: a frame out of order, an unknown step, or a detection that cannot be.
        """
        if frame <= self._frame:
            raise ValueError(f"frame {frame} does not come after frame {self._frame}")
        self._frame = frame
        completed = sorted(step_ids)
        for step in completed:
            self._procedure.step_name(step)  # which has to be one
            self._state[step // 3] = (1, -1, 0)[step % 3]
            self._completed.add(step)
        alerts: list[Alert] = []
        for step in completed:
            alerts += self._check_step(frame, step)
        return alerts + self._check_error(frame, detections)

    def missing(self) -> list[int]:
        """Step ids whose absence was told and still lasts, ascending."""
        return sorted(step for step in self._missed if not self._holds(step))

    def finish(self) -> list[Alert]:
        """Returns an alert for each expected step that is missing, if the procedure ends now.

        A step is missing if its component is not as the step leaves it. Where the variant expects a
        component to be both installed and removed, it must end as it began, and the step that first
        changes it must have completed.
        """
        alerts = []
        for step in self._variant.expected:
            k, value = step // 3, int(step % 3 == 0)
            opposite = step + 2 if value else step - 2
            first = opposite in self._expected and value != self._variant.initial_state[k]
            if not (step in self._completed if first else self._holds(step)):
                message = f"{self._procedure.step_name(step)} is missing at the end"
                alerts.append(Alert(self._frame, "missing", message, step))
        return alerts

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        return {
            "procedure": self._procedure.name,
            "variant": self._variant.name,
            "frame": self._frame,
            "state": list(self._state),
            "completed": sorted(self._completed),
            "missed": [[step, list(after)] for step, after in self._missed.items()],
            "error_since": self._error_since,
            "error_told": self._error_told,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state.

        Raises:
            ValueError: it was saved by the monitor of another procedure or variant, or is damaged.
                Everything stays as it is then.
        """
        own = self.state()
        for key in ("procedure", "variant"):
            if state[key] != own[key]:
                raise ValueError(f"the saved state is of {key} {state[key]!r}, not {own[key]!r}")
        if len(state["state"]) != len(self._state):
            raise ValueError(f"the saved state has {len(state['state'])} components")
        step = self._procedure.checked_step
        frame = whole(state["frame"], "monitor: frame", -1, LAST_FRAME)
        values = [whole(value, "monitor: state", -1, 1) for value in state["state"]]
        # States that were saved before `finish` existed do not have it.
        completed = {step(one, "monitor: completed") for one in state.get("completed", ())}
        missed = {
            step(one, "monitor: missed"): [step(other, "monitor: missed") for other in after]
            for one, after in state["missed"]
        }
        if (since := state["error_since"]) is not None:
            whole(since, "monitor: error_since", 0, max(frame, 0))
        self._frame, self._state, self._completed, self._missed = frame, values, completed, missed
        self._error_since, self._error_told = since, state["error_told"]

    def _holds(self, step: int) -> bool:
        return self._state[step // 3] == (1 if step % 3 == 0 else 0)

    def _check_step(self, frame: int, step: int) -> list[Alert]:
        name = self._procedure.step_name
        alerts = []
        if step not in self._announced:
            message = f"{name(step)} is not expected in variant {self._variant.name}"
            if step % 3 == 1:
                message = f"{self._procedure.components[step // 3]} sits wrong"
            alerts.append(Alert(frame, "unexpected", message, step))
        for after in self._missed.pop(step, []):
            if self._holds(after):  # undone in the meantime: nothing is out of order any more
                message = f"{name(step)} came after {name(after)}"
                alerts.append(Alert(frame, "out of order", message, step, after))
        for before in self._before.get(step, []):
            if not self._holds(before):
                message = f"{name(before)} is missing before {name(step)}"
                alerts.append(Alert(frame, "missed", message, before, step))
                went_ahead = self._missed.setdefault(before, [])
                if step not in went_ahead:
                    went_ahead.append(step)
        return alerts

    def _check_error(self, frame: int, detections: Iterable[tuple[int, float]]) -> list[Alert]:
        top, confidence = top_detection(frame, detections, self._procedure.error_class)
        if confidence <= self._confidence or top == 0:
            return []
        if top != self._procedure.error_class:
            self._error_since, self._error_told = None, False
            return []
        if self._error_since is None:
            self._error_since = frame
        if self._error_told or frame - self._error_since < self._error_frames:
            return []
        self._error_told = True
        message = f"the assembly is in an error state since frame {self._error_since}"
        return [Alert(frame, "error state", message, since=self._error_since)]
