"""Whether labels, procedure and predictions agree: warnings of what may be, but is hardly meant.

`of_labels` and `without_steps` look at the labels of a recording alone.

`check` compares the states of detections with the labelled ones. Another clock, classes in another
order or exchanged files still give high figures. Of the published detections of 17 recordings of
IndustReal, in 425 sets of one to five, none was warned of as it is; frames × 1.2 were noticed in
all 17, and in half of the sets of three. Gaps that are alike everywhere are looked at too.

`check_rates` looks at all predictions. Nothing in the files says at which rate they count, so this
goes by three signs:

* where visibility is known for every frame, no prediction can be after the recording's end;
* the last predicted frame of every recording lies far behind its last label, or far before it;
* a straight line through the times of the true and of the recognised steps fits well, and its slope
  is not near 1. A slow recogniser moves the line and leaves its slope.

The first is certain, and so are the second and the third together. Each of these alone is a
warning; a slope near 1 shows that the rates are the same.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.monitor import Monitor
from stormpsr_jax.recordings.evaluation_set import FLAGS, LabelledPredictions
from stormpsr_jax.recordings.labels import Labels
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.steps import Step, steps_to_states

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


# --- States of detections -------------------------------------------------------------------------


_CONFIDENT = 0.5
_SHIFTS_S = (*range(-60, -4), *range(5, 61))  # who sees states a little late has no other clock
_RATES = (0.2, 1 / 3, 0.4, 0.5, 2 / 3, 0.8, 5 / 6, 1.2, 1.25, 1.5, 2, 2.5, 3, 5)
# Shares of frames by which another clock, and another order of the classes, is clearly better, and
# that have to fit then. An exchange has to raise the sum of two recordings' shares by so much.
_CLOCK, _ORDER, _FIT, _EXCHANGE = 0.02, 0.1, 0.5, 0.3
_MIN_GAPS = 20  # between frames, of which fewer may have a divisor in common by chance

_Classes = tuple[np.ndarray, np.ndarray]  # frames, ascending, and the classes there, (N,) each


def check(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    settings: Settings | None = None,
) -> tuple[list[str], list[str]]:
    """Compares the states of detections with the labelled ones; `settings` sum up their evidence.

    Returns:
        What is known, a sentence, and a warning where another clock, another order of the classes
        or the labels of another recording clearly fit better, or else where no sum can exceed the
        threshold, because of gaps that are alike in all recordings; both empty without such frames.
    """
    seen: dict[str, _Classes] = {}
    true: dict[str, _Classes] = {}
    table = np.zeros((procedure.error_class + 1,) * 2, np.int64)  # detected by labelled class
    shown = there = 0
    for name, r in recordings.items():
        if r.detections is None:
            continue
        top = r.detections.tops()
        frames, classes = r.detections.frames[top], r.detections.classes[top]
        # What nobody sees has a state too, so background says nothing.
        sure = (classes > 0) & (classes < procedure.error_class)
        sure &= r.detections.confidences[top] >= _CONFIDENT
        frames, classes = seen[name] = frames[sure], classes[sure]
        known = r.frames, r.states
        if not len(r.frames):  # labels that are steps alone
            known = steps_to_states(r.truth, r.variant.initial_state, -1)
        starts, of_rows = true[name] = known[0], procedure.state_classes(known[1])
        rows = _rows(starts, frames)
        np.add.at(table, (classes, of_rows[rows]), 1)
        steps = 1 + np.flatnonzero(of_rows[1:] % procedure.error_class)  # to catalogued states
        there += len(steps)
        shown += len(np.intersect1d(steps, rows[classes == of_rows[rows]]))
    num = int(table[:, 1:-1].sum())  # frames whose labels are of a catalogued state
    fact = (
        f"--asd: {np.trace(table):,} of {num:,} frames with a state agree with the labels; "
        f"of {there:,} states after labelled steps it shows {shown:,}"
    )

    def agree(a: str, b: str, rate: float = 1.0, shift: float = 0.0) -> np.ndarray:
        (frames, classes), (starts, of_rows) = seen[a], true[b]
        return classes == of_rows[_rows(starts, frames * rate + shift)]

    def agreeing(rate: float, shift: float) -> np.ndarray:
        return np.array([agree(name, name, rate, shift).sum() for name in seen])

    def fit(a: str, b: str) -> float:
        return float(agree(a, b).mean())

    seen = {name: one for name, one in seen.items() if len(one[0])}
    if not seen:
        return [], []
    warning = _clock_or_order(table, procedure.fps, agreeing) or _exchange(list(seen), fit)
    if warning is None and settings is not None:
        warning = _gaps([r.detections for r in recordings.values() if r.detections], settings)
    return [fact], [warning] if warning else []


def _rows(starts: np.ndarray, frames: np.ndarray) -> np.ndarray:
    return np.maximum(np.searchsorted(starts, frames, "right") - 1, 0)


def _clock_or_order(
    table: np.ndarray, fps: float, agreeing: Callable[[float, float], np.ndarray]
) -> str | None:
    """What of all recordings fits better; of a clock and an order that do, the better one."""
    fitting, num = int(np.trace(table)), int(table.sum())
    clocks = [(1.0, s * fps) for s in _SHIFTS_S] + [(rate, 0.0) for rate in _RATES]
    best, rate, shift = max((int(agreeing(*clock).sum()), *clock) for clock in clocks)
    one = (agreeing(rate, shift) - agreeing(1, 0)).max()  # a single recording may gain by chance
    order: dict[int, int] = {}  # the labelled class of each detected one, frequent pairs first
    states = table[:, 1:-1]
    for place in np.argsort(-states, axis=None, kind="stable")[: np.count_nonzero(states)]:
        a, b = int(place) // states.shape[1], int(place) % states.shape[1] + 1
        if a not in order and b not in order.values():
            order[a] = b
    ordered = int(sum(table[pair] for pair in order.items()))
    moved = [pair for pair in sorted(order.items()) if pair[0] != pair[1]]
    if best - fitting - min(one, num / 4) > _CLOCK * num and best > _FIT * num and best >= ordered:
        which = f"its frames were about {rate:.3g} times as high; "
        which += remedy("asd", 1 / rate, fps)
        if rate == 1:
            which = f"its frames were {abs(shift):.0f} ({abs(shift) / fps:.0f} s) "
            which += "higher" if shift > 0 else "lower"
            which += ": do its videos begin elsewhere, or does it see states late?"
    elif len(moved) > 1 and ordered - fitting > _ORDER * num and ordered > _FIT * num:
        best, which = ordered, ", ".join(f"{a} as {b}" for a, b in moved)
        which = f"its classes were other ones ({which}): class 0 is background, class 1 the first "
        which += "state of the procedure (psr.convert coco and yolo have --classes)"
    else:
        return None
    said = f"{fitting:,} of {num:,} frames in which --asd shows a state agree with the labels"
    return f"{said}, and {best:,} would if {which}"


def _exchange(names: Sequence[str], fit: Callable[[str, str], float]) -> str | None:
    """Two recordings of which each one's detections fit the other's labels better."""
    own = {name: fit(name, name) for name in names}
    bad = [name for name in names if own[name] < 1 - _EXCHANGE / 2]
    pairs = [(fit(a, b) + fit(b, a) - own[a] - own[b], a, b) for a in bad for b in names if b != a]
    gain, a, b = max(pairs, default=(0.0, "", ""))
    if gain < _EXCHANGE:
        return None
    return (
        f"--asd: the detections of {a} fit the labels of {b} in {fit(a, b):.0%} of their frames "
        f"and their own in {own[a]:.0%}, and those of {b} the labels of {a} in {fit(b, a):.0%} and "
        f"their own in {own[b]:.0%}: are the two files exchanged?"
    )


def _gaps(detections: Sequence[Detections], settings: Settings) -> str | None:
    """Detections in one frame of n alone, whose sums cannot reach the threshold; what to give."""
    gaps = np.concatenate([np.diff(np.unique(one.frames)) for one in detections])
    every = int(np.gcd.reduce(gaps)) if len(gaps) >= _MIN_GAPS else 1
    decay = settings.decay if settings.unseen_decay is None else settings.unseen_decay
    highest = max(float(one.confidences.max(initial=0)) for one in detections)
    reached = highest > settings.threshold * (1 - decay ** (every - 1))
    if every == 1 or reached or settings.decoder == "naive":
        return None
    return (
        f"--asd has detections in one frame of {every} alone, in all recordings: sums decay in "
        f"between and never exceed the threshold of {settings.threshold:g}. Give them for "
        f"every frame (repeated), or --decay=1 and --threshold=asd={settings.threshold / every:.2g}"
    )


# --- Frame rates ----------------------------------------------------------------------------------


# Golden runs and the MECCANO and IndustReal recordings have ends at 0.5 to 1.3 of the last label.
FAR_BEHIND, FAR_BEFORE = 1.8, 0.4
# Lines through fewer steps, or that fit worse, say nothing. Runs of the golden data on which a line
# fits that well have slopes of 0.98 to 1.01.
MIN_STEPS, MIN_FIT, MAX_SLOPE = 6, 0.99, 1.1


def check_rates(
    recordings: Mapping[str, LabelledPredictions],
    stream: str,
    kind: str,
    events: Mapping[str, Sequence[Step]],
    fps: float,
) -> tuple[list[str], list[str]]:
    """Looks for the signs in one stream.

    `kind` is that of the predictions that it is decoded from, and `events` are (frame, step id)
    that it recognised, by recording. Returns errors, which are certain, and warnings; both say what
    to do.
    """
    flag = FLAGS[kind]
    ratios, errors = list[float](), list[str]()  # of last predicted over last labelled frames
    for name, r in recordings.items():
        frames = r.of_kind(kind).frames
        last_label = max((frame for frame, _ in r.truth), default=0)
        if not len(frames) or not last_label:
            continue
        last, end = int(frames[-1]), _known_end(r)
        ratios.append(last / last_label)
        if end is not None and last > max(end, last_label) + fps:
            errors.append(
                f"recording {name}: --{flag} has frame {last}, but the recording ends at frame "
                f"{max(end, last_label)} by --visibility; {remedy(flag, last / end, fps)}"
            )
    slope = _slope(recordings, events)
    if slope is not None and abs(math.log(slope)) <= math.log(MAX_SLOPE):
        return errors, []  # the rates are the same, wherever the predictions end
    behind, before = min(ratios, default=1) > FAR_BEHIND, max(ratios, default=1) < FAR_BEFORE
    signs = []
    if behind or before:
        low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
        shown = low if low == high else f"{low} to {high}"
        signs.append(f"the last frames of --{flag} are {shown} times those of the labels")
    if slope is not None:
        signs.append(
            f"the frames of the steps that stream {stream} recognises grow {slope:.3g} times as "
            "fast as those of the labels"
        )
    if not signs:
        return errors, []
    ratio = slope if slope is not None else float(np.median(ratios))
    what = f"{', and '.join(signs)}; {remedy(flag, ratio, fps)}"
    if slope is not None and ((behind and slope > 1.5) or (before and slope < 1 / 1.5)):
        return [*errors, what], []
    return errors, [what]


def _known_end(r: LabelledPredictions) -> int | None:
    """The last frame of a recording whose visibility file has every frame from 0 or 1 on."""
    if r.visibility is None or not len(r.visibility[0]):
        return None
    first, last = r.visibility[0][[0, -1]].tolist()
    return last if first <= 1 and last - first + 1 == len(r.visibility[0]) and last > 0 else None


def _slope(
    recordings: Mapping[str, LabelledPredictions], events: Mapping[str, Sequence[Step]]
) -> float | None:
    """Slope of the line through the true and the recognised frames, if enough, and it fits."""
    points = []
    for name, r in recordings.items():
        # Of a step that repeats the first counts.
        truth, found = (
            {step: frame for frame, step in sorted(steps, reverse=True)}
            for steps in (r.truth, events[name])
        )
        points += [(frame, found[step]) for step, frame in truth.items() if step in found]
    true, recognised = np.array(points, np.float64).reshape(-1, 2).T
    if len(true) < MIN_STEPS or not np.ptp(true) or not np.ptp(recognised):
        return None
    slope = float(np.polyfit(true, recognised, 1)[0])
    fits = slope > 0 and np.corrcoef(true, recognised)[0, 1] ** 2 >= MIN_FIT
    return slope if fits else None


def remedy(flag: str, ratio: float, fps: float) -> str:
    """Returns what to do where the predictions' frames are `ratio` times those of the labels."""
    return (
        f"do the frames of --{flag} count at another rate than those of --labels, "
        f"such as {ratio * fps:.3g} a second instead of {fps:g}? "
        "python -m stormpsr_jax.psr.convert frames --fps=FROM:TO converts them. Or do labels with "
        f"a column frame count at another, such as {fps / ratio:.3g}? Give it as --labels_fps"
    )
