"""What labels may say, but hardly mean: steps out of place, odd states, changes in haste, hours."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from stormpsr_jax.psr.files.label_files import Labels
from stormpsr_jax.psr.files.labels import Step
from stormpsr_jax.psr.monitor import Monitor
from stormpsr_jax.psr.procedure import Procedure, Variant

_LONG = 2 * 3600  # seconds; times in milliseconds of any video longer than 7 s are beyond


class LabelWarning(NamedTuple):
    """Something in the labels of a recording, which is the same text in every recording."""

    frame: int
    text: str


def of_labels(
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


def _of_steps(procedure: Procedure, variant: Variant, steps: Iterable[Step]) -> list[LabelWarning]:
    """Steps that the variant has no place for, and those before one that should precede them."""
    monitor, warnings = Monitor(procedure, variant), []
    by_frame: dict[int, list[int]] = {}
    for frame, step in sorted(steps):
        by_frame.setdefault(frame, []).append(step)
    for frame, ids in by_frame.items():
        for step in ids:
            if step % 3 != 1 and step not in variant.possible:
                what = f"{procedure.step_name(step)} is neither expected nor allowed in variant"
                warnings.append(LabelWarning(frame, f"{what} {variant.name}"))
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


def grouped(found: Sequence[tuple[str, LabelWarning]], fps: float, shown: int = 5) -> list[str]:
    """Returns a line for each text of (recording, warning), with `shown` places that it is of."""
    places: dict[str, list[str]] = {}
    for recording, warning in found:
        places.setdefault(warning.text, []).append(f"{recording} at {clock(warning.frame / fps)}")
    return [
        f"{text}: {', '.join(at[:shown])}" + (f" and {len(at) - shown} more" * (len(at) > shown))
        for text, at in places.items()
    ]
