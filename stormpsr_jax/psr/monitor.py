"""Alerts during a procedure: order, missed and unexpected steps, incorrect installations.

The rules are a variant's ``precedence``: pairs (before, after) of steps. What counts is the state
of the assembly: the rule holds if, when ``after`` completes, the component of ``before`` is as that
step leaves it, whether it was so from the start or was made so; a step that was undone since is
missing again. An incorrect installation is as neither of its steps leaves it.

A stream that has beliefs reports an incorrect installation once it has believed in it for some
seconds without a break. For other streams what counts is how long the detector has shown the error
state since it last showed a catalogued one: single pictures of it are wrong too often. Such an
alert is withdrawn when the belief has ended, or catalogued states are shown, for as long.

`check_labels` and `without_steps` look at the labels of a recording in the same way: they warn of
what may be, but is hardly meant.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.psr.events import check_same, top_detection
from stormpsr_jax.recordings.labels import Labels, Step
from stormpsr_jax.recordings.procedure import Procedure, Variant

MAX_NAMED = 3  # parts, in the alert of an error state
# Chosen on rendered validation recordings; docs/recognise.md has what they are worth on others.
ERROR_SECONDS, BELIEF_SECONDS = 3.0, 1.0
BELIEVED = 0.5
_NAMED = 5  # places of a warning
_LONG = 2 * 3600  # seconds; times in milliseconds of any video longer than 7 s are beyond


class Alert(NamedTuple):
    """Something that should not be.

    Attributes:
        frame: at which it was noticed.
        kind: "missed" (``other`` completed without ``step_id``), "out of order" (``step_id``
            completed after ``other``, which it should precede), "unexpected" (the variant does not
            expect ``step_id``, which corrects no reported installation), "wrong part" (its
            component may be installed incorrectly), "error state" (so may any; the detector does
            not say which), "withdrawn" (one of these two no longer holds), "missing" (``step_id``
            is not done at the end; only from `Monitor.finish`).
        message: for people: what to do.
        step_id: the step at fault; None for an error state, as the detector's error class names no
            component.
        other: the step that should come after it, where there is one.
        since: first frame of the error state, or of the belief that the part is incorrect.
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
        variant: initial state, expected steps and precedence rules.
        confidence: a detection at or below it is no clear view, and does not count.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, procedure: Procedure, variant: Variant, *, confidence: float = 0.5) -> None:
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence={confidence} is not in 0…1")
        self._procedure, self._variant = procedure, variant
        fps = procedure.fps
        self._error_frames, self._belief_frames = ERROR_SECONDS * fps, BELIEF_SECONDS * fps
        self._confidence = confidence
        self._expected = frozenset(variant.expected)
        self._announced = self._expected.union(variant.allowed or ())
        self._before: dict[int, list[int]] = {}
        for before, after in dict.fromkeys(variant.precedence):  # one given twice is one
            self._before.setdefault(after, []).append(before)

        self._frame = -1
        self._state = list(variant.initial_state)
        self._completed: set[int] = set()
        self._missed: dict[int, list[int]] = {}  # by missed step, the steps that went ahead
        self._error_since: int | None = None
        self._error_told = False
        self._views = 0  # frames that showed the error state, and once it was reported, others
        # By component, since when it is believed to be incorrect; once reported, not to be.
        self._since: list[int | None] = [None] * procedure.num_components
        self._told = [False] * procedure.num_components

    def update(
        self,
        frame: int,
        step_ids: Iterable[int] = (),
        detections: Iterable[tuple[int, float]] = (),
        wrong: Sequence[float] | None = None,
    ) -> list[Alert]:
        """Takes one frame and returns its alerts.

        Args:
            frame: its number, larger than that of the frame before; frames may be left out.
            step_ids: of the steps that completed at it, or 3k+1 of an incorrect installation of k
                from now on. Steps of one frame have no order among each other.
            detections: the detector's (class, confidence) rows, in file order.
            wrong: (K,) how likely each component is incorrect, of a stream that has beliefs; the
                error state is not looked at then.

        Raises:
            ValueError: a frame out of order, an unknown step, or a detection that cannot be.
        """
        if frame <= self._frame:
            raise ValueError(f"frame {frame} does not come after frame {self._frame}")
        self._frame = frame
        completed = sorted(step_ids)
        corrections = set()
        for step in completed:
            self._procedure.step_name(step)  # which has to be one
            if step % 3 == 2 and self._state[step // 3] < 0:
                corrections.add(step)  # it was incorrect: to take it off corrects it
            self._state[step // 3] = (1, -1, 0)[step % 3]
            self._completed.add(step)
        alerts: list[Alert] = []
        for step in completed:
            announced = step in self._announced or step in corrections
            alerts += self._check_step(frame, step, announced, wrong is not None)
        if wrong is not None:
            return alerts + self._check_beliefs(frame, wrong)
        return alerts + self._check_error(frame, detections)

    def missing(self) -> list[int]:
        """Step ids whose absence was reported and still lasts, ascending.

        It lasts as long as a step that went ahead holds.
        """
        return sorted(
            step
            for step, after in self._missed.items()
            if not self.holds(step) and any(map(self.holds, after))
        )

    def holds(self, step: int) -> bool:
        """Whether a component is as the step leaves it, made so or from the start."""
        return self._state[step // 3] == (1 if step % 3 == 0 else 0)

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
            if not (step in self._completed if first else self.holds(step)):
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
            "views": self._views,
            "since": list(self._since),
            "told": list(self._told),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError, and all stays, if it is another monitor's."""
        check_same(state, self.state(), "procedure", "variant")
        if (num := len(state["state"])) != len(self._state):
            raise ValueError(f"the saved state has {num} components")
        self._frame, self._views = state["frame"], state["views"]
        self._state, self._completed = list(state["state"]), set(state["completed"])
        self._missed = {step: list(after) for step, after in state["missed"]}
        self._error_since, self._error_told = state["error_since"], state["error_told"]
        self._since, self._told = list(state["since"]), list(state["told"])

    def _check_step(self, frame: int, step: int, announced: bool, believes: bool) -> list[Alert]:
        name = self._procedure.step_name
        alerts = []
        if step % 3 == 1:
            if not believes:  # else the alert comes if that is believed for long enough
                alerts.append(self._wrong_part(frame, step // 3, frame))
        elif not announced:
            message = f"{name(step)} was not expected: check"
            alerts.append(Alert(frame, "unexpected", message, step))
        for after in self._missed.pop(step, []):
            if self.holds(after):  # undone in the meantime: nothing is out of order any more
                message = f"{name(step)} came after {name(after)}"
                alerts.append(Alert(frame, "out of order", message, step, after))
        for before in self._before.get(step, []):
            if not self.holds(before):
                message = f"{name(before)} is missing before {name(step)}"
                alerts.append(Alert(frame, "missed", message, before, step))
                went_ahead = self._missed.setdefault(before, [])
                if step not in went_ahead:
                    went_ahead.append(step)
        return alerts

    def _wrong_part(self, frame: int, k: int, since: int) -> Alert:
        message = f"{self._procedure.components[k]} may be installed incorrectly: check"
        return Alert(frame, "wrong part", message, 3 * k + 1, since=since)

    def _check_beliefs(self, frame: int, wrong: Sequence[float]) -> list[Alert]:
        alerts = []
        for k, probability in enumerate(wrong):
            if (probability > BELIEVED) == self._told[k]:
                self._since[k] = None
                continue
            if (since := self._since[k]) is None:
                since = self._since[k] = frame
            if frame - since < self._belief_frames:
                continue
            if self._told[k]:
                message = f"{self._procedure.components[k]} is not installed incorrectly"
                alerts.append(Alert(frame, "withdrawn", message, 3 * k + 1, since=since))
            else:
                alerts.append(self._wrong_part(frame, k, since))
            self._told[k], self._since[k] = not self._told[k], None
        return alerts

    def _check_error(self, frame: int, detections: Iterable[tuple[int, float]]) -> list[Alert]:
        error_class = self._procedure.error_class
        top, confidence = top_detection(frame, detections, error_class)
        if confidence <= self._confidence or top == 0:
            return []
        if (top == error_class) == self._error_told:
            # Before it is reported any view of a catalogued state ends it, and the other way round.
            self._views, self._error_since = 0, self._error_since if self._error_told else None
            return []
        if not self._views and not self._error_told:
            self._error_since = frame
        self._views += 1
        if self._views < self._error_frames:
            return []
        since, self._views, self._error_told = self._error_since, 0, not self._error_told
        if not self._error_told:
            self._error_since = None
            message = "no part seems to be installed incorrectly any more"
            return [Alert(frame, "withdrawn", message, since=since)]
        message = f"{self._suspects()} may be installed incorrectly: check"
        return [Alert(frame, "error state", message, since=since)]

    def _suspects(self) -> str:
        """The parts that may just have been put on wrong, for people: those that can come next."""
        ready = [
            step // 3
            for step in self._variant.expected
            if step % 3 == 0
            and not self.holds(step)
            and all(self.holds(before) for before in self._before.get(step, ()))
        ]
        names = [self._procedure.components[k] for k in ready]
        return " or ".join(names) if 0 < len(names) <= MAX_NAMED else "a part"


# --- Labels ---------------------------------------------------------------------------------------


class LabelWarning(NamedTuple):
    """Something in the labels of a recording, which is the same text in every recording."""

    frame: int
    text: str


def check_labels(
    procedure: Procedure, variant: Variant, labels: Labels, window: int = 0
) -> list[LabelWarning]:
    """Returns the warnings of all kinds about the labels of a recording, in their order.

    `window` are frames of a clip; 0 looks for no changes in haste.
    """
    began = variant
    if len(labels.states):  # what is in place from the first frame on is missing nowhere
        began = dataclasses.replace(variant, initial_state=tuple(labels.states[0].tolist()))
    warnings = _of_steps(procedure, began, labels.with_errors)
    last = max((frame for frame, _ in labels.with_errors), default=0)
    if last > _LONG * procedure.fps:
        text = f"the last step is more than {_LONG // 3600} hours after the first picture, as with "
        text += "times in milliseconds, or m:ss that a spreadsheet took for h:mm"
        warnings.append(LabelWarning(last, text))
    warnings += _of_states(procedure, variant, labels.frames, labels.states)
    return sorted(warnings + _of_pauses(procedure, labels.frames, labels.states, window))


def without_steps(variant: Variant, labels: Labels, place: object) -> list[str]:
    """Returns a line if labels say that nothing happens, as a file with a header alone does.

    `place` is their file or folder, as the line names it.
    """
    if labels.with_errors or (np.asarray(labels.states) != variant.initial_state).any():
        return []
    text = "no step is labelled, as if nothing happened in the recording; label it, or take it out"
    return [f"{place}: {text}"]


def _of_steps(procedure: Procedure, variant: Variant, steps: Iterable[Step]) -> list[LabelWarning]:
    """Steps that the variant has no place for, and those before one that should precede them."""
    monitor, warnings = Monitor(procedure, variant), []
    for frame, of_frame in itertools.groupby(sorted(steps), key=lambda step: step[0]):
        ids = [step for _, step in of_frame]
        for step in ids:
            if step % 3 != 1 and step not in variant.possible:
                name = procedure.step_name(step)
                text = f"{name} is neither expected nor allowed in variant {variant.name}"
                warnings.append(LabelWarning(frame, text))
        for alert in monitor.update(frame, ids):
            if alert.kind == "missed":
                warnings.append(LabelWarning(frame, f"{alert.message}, which it precedes"))
    return warnings


def _of_states(
    procedure: Procedure, variant: Variant, frames: np.ndarray, states: np.ndarray
) -> list[LabelWarning]:
    """States that are not catalogued; the initial one has nothing yet to be recognised."""
    warnings = []
    for i in np.flatnonzero(procedure.state_classes(states) == 0):
        if i and (states[i] == states[i - 1]).all():  # a row for each frame, of the same state
            continue
        if tuple(states[i].tolist()) == variant.initial_state:
            continue
        parts = [name for name, on in zip(procedure.components, states[i], strict=True) if on]
        digits = "".join(map(str, states[i]))
        text = f"state {digits} ({', '.join(parts) or 'nothing'} on) is not in the procedure's"
        warnings.append(LabelWarning(int(frames[i]), f"{text} states"))
    return warnings


def _of_pauses(
    procedure: Procedure, frames: np.ndarray, states: np.ndarray, window: int
) -> list[LabelWarning]:
    """Components that change twice within a clip, which is no change to the temporal network."""
    warnings = []
    for k, name in enumerate(procedure.components):
        changes = frames[1:][states[1:, k] != states[:-1, k]]
        warnings += [
            LabelWarning(int(frame), f"{name} changes twice within the {window} frames of a clip")
            for frame in changes[1:][np.diff(changes) < window]
        ]
    return warnings


def clock(seconds: float) -> str:
    """Returns minutes and seconds to a tenth; rounded first, as there is no 0:60.0."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    return f"{minutes}:{tenths / 10:04.1f}"


def group_warnings(warnings: Sequence[tuple[str, LabelWarning]], fps: float) -> list[str]:
    """Returns a line for each text of (recording, warning), with some places that it is of."""
    places: dict[str, list[str]] = {}
    for recording, warning in warnings:
        places.setdefault(warning.text, []).append(f"{recording} at {clock(warning.frame / fps)}")
    return [
        f"{text}: {', '.join(at[:_NAMED])}" + f" and {len(at) - _NAMED} more" * (len(at) > _NAMED)
        for text, at in places.items()
    ]
