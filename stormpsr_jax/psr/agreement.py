"""Whether labels, procedure and predictions agree: warnings of what may be, but is hardly meant.

`of_labels` and `without_steps` look at the labels of a recording alone. `check` compares the states
of detections with the labelled ones, which classes that count from 0 still follow. `check_rates`
notices predictions that count frames at another rate than the labels.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stormpsr_jax.psr.monitor import Monitor
from stormpsr_jax.recordings.evaluation_set import FLAGS, LabelledPredictions
from stormpsr_jax.recordings.labels import Labels, Step, steps_to_states
from stormpsr_jax.recordings.procedure import Procedure, Variant

_NAMED = 5  # places of a warning
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


def without_steps(variant: Variant, labels: Labels, place: object) -> list[str]:
    """Returns a line if labels say that nothing happens, as a file with a header alone does.

    `place` is their file or folder, as the line names it.
    """
    if labels.with_errors or (np.asarray(labels.states) != variant.initial_state).any():
        return []
    what = "no step is labelled, as if nothing happened in the recording; label it, or take it out"
    return [f"{place}: {what}"]


def _of_steps(procedure: Procedure, variant: Variant, steps: Iterable[Step]) -> list[LabelWarning]:
    """Steps that the variant has no place for, and those before one that should precede them."""
    monitor, warnings = Monitor(procedure, variant), []
    for frame, its in itertools.groupby(sorted(steps), key=lambda step: step[0]):
        ids = [step for _, step in its]
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


def group_warnings(found: Sequence[tuple[str, LabelWarning]], fps: float) -> list[str]:
    """Returns a line for each text of (recording, warning), with some places that it is of."""
    places: dict[str, list[str]] = {}
    for recording, warning in found:
        places.setdefault(warning.text, []).append(f"{recording} at {clock(warning.frame / fps)}")
    return [
        f"{text}: {', '.join(at[:_NAMED])}" + f" and {len(at) - _NAMED} more" * (len(at) > _NAMED)
        for text, at in places.items()
    ]


# --- Predictions ----------------------------------------------------------------------------------

_CONFIDENT = 0.5
# By which share of frames other classes have to fit better, and the share that has to fit then.
_BETTER, _FIT = 0.1, 0.5
# Golden runs and the MECCANO and IndustReal recordings have ends at 0.5 to 1.3 of the last label.
_FAR_BEHIND, _FAR_BEFORE = 1.8, 0.4
# Lines through fewer steps, or that fit worse, say nothing. Runs of the golden data on which a line
# fits that well have slopes of 0.98 to 1.01.
_MIN_STEPS, _MIN_FIT, _MAX_SLOPE, _CERTAIN_SLOPE = 6, 0.99, 1.1, 1.5


def check(
    procedure: Procedure, recordings: Mapping[str, LabelledPredictions]
) -> tuple[list[str], list[str]]:
    """Compares the states of detections with the labelled ones.

    Returns how many agree, a sentence, and a warning where they clearly fit better as classes that
    count from 0; both empty without states of which the detector is sure.
    """
    num = fitting = from_0 = shown = there = sure_frames = 0
    for r in recordings.values():
        if r.detections is None:
            continue
        top = r.detections.tops()
        frames, classes = r.detections.frames[top], r.detections.classes[top]
        # What nobody sees has a state too, so background says nothing.
        sure = (classes > 0) & (classes < procedure.error_class)
        sure &= r.detections.confidences[top] >= _CONFIDENT
        frames, classes = frames[sure], classes[sure]
        starts, states = r.frames, r.states
        if not len(starts):  # labels that are steps alone
            starts, states = steps_to_states(r.truth, r.variant.initial_state, -1)
        of_rows = procedure.state_classes(states) % procedure.error_class  # 0: not catalogued
        rows = np.maximum(np.searchsorted(starts, frames, "right") - 1, 0)
        labelled = of_rows[rows]
        sure_frames += len(frames)
        num += int(np.count_nonzero(labelled))
        fitting += int(np.count_nonzero(classes == labelled))
        from_0 += int(np.count_nonzero(classes + 1 == labelled))
        steps = 1 + np.flatnonzero(of_rows[1:])
        there += len(steps)
        shown += len(np.intersect1d(steps, rows[classes == labelled]))
    if not sure_frames:
        return [], []
    fact = (
        f"--asd: {fitting:,} of {num:,} frames with a state agree with the labels; "
        f"of {there:,} states after labelled steps it shows {shown:,}"
    )
    if from_0 - fitting <= _BETTER * num or from_0 <= _FIT * num:
        return [fact], []
    return [fact], [
        f"{fitting:,} of {num:,} frames in which --asd shows a state agree with the labels, and "
        f"{from_0:,} would if its classes were one higher: class 0 is background, class 1 the "
        "first state of the procedure (psr.convert coco and yolo have --classes)"
    ]


def check_rates(
    recordings: Mapping[str, LabelledPredictions],
    stream: str,
    kind: str,
    events: Mapping[str, Sequence[Step]],
    fps: float,
) -> tuple[list[str], list[str]]:
    """Looks for another frame rate in one stream.

    There are two signs: the last predicted frame of every recording lies far from its last label,
    and a straight line through the frames of the true and of the recognised steps fits well, and
    its slope is not near 1 (a slow recogniser moves the line and leaves its slope). One of them is
    a warning, both are certain; a slope near 1 shows that the rates are the same.

    `kind` is that of the predictions that it is decoded from, and `events` are (frame, step id)
    that it recognised, by recording. Returns errors, which are certain, and warnings; both say what
    to do.
    """
    flag, ratios = FLAGS[kind], list[float]()  # of last predicted over last labelled frames
    for r in recordings.values():
        frames = r.of_kind(kind).frames
        last_label = max((frame for frame, _ in r.truth), default=0)
        if len(frames) and last_label:
            ratios.append(int(frames[-1]) / last_label)
    slope = _slope(recordings, events)
    if slope is not None and abs(math.log(slope)) <= math.log(_MAX_SLOPE):
        return [], []
    behind, before = min(ratios, default=1) > _FAR_BEHIND, max(ratios, default=1) < _FAR_BEFORE
    signs = []
    if behind or before:
        low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
        times = low if low == high else f"{low} to {high}"
        signs.append(f"the last frames of --{flag} are {times} times those of the labels")
    if slope is not None:
        signs.append(
            f"the frames of the steps that stream {stream} recognises grow {slope:.3g} times as "
            "fast as those of the labels"
        )
    if not signs:
        return [], []
    ratio = slope if slope is not None else float(np.median(ratios))
    line = (
        f"{', and '.join(signs)}; do the frames of --{flag} count at another rate than those of "
        f"--labels, such as {ratio * fps:.3g} a second instead of {fps:g}? "
        "python -m stormpsr_jax.psr.convert frames --fps=FROM:TO converts them. Or do labels with "
        f"a column frame count at another, such as {fps / ratio:.3g}? Give it as --labels_fps"
    )
    certain = slope is not None and (
        (behind and slope > _CERTAIN_SLOPE) or (before and slope < 1 / _CERTAIN_SLOPE)
    )
    return ([line], []) if certain else ([], [line])


def _slope(
    recordings: Mapping[str, LabelledPredictions], events: Mapping[str, Sequence[Step]]
) -> float | None:
    """Slope of the line through the true and the recognised frames, if enough, and it fits."""
    points = []
    for name, r in recordings.items():
        # Of a step that repeats the first counts.
        truth, recognised = (
            {step: frame for frame, step in sorted(steps, reverse=True)}
            for steps in (r.truth, events[name])
        )
        points += [(frame, recognised[step]) for step, frame in truth.items() if step in recognised]
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    if len(x) < _MIN_STEPS or not np.ptp(x) or not np.ptp(y):
        return None
    slope = float(np.polyfit(x, y, 1)[0])
    return slope if slope > 0 and np.corrcoef(x, y)[0, 1] ** 2 >= _MIN_FIT else None
