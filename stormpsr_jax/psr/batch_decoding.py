"""Whole recordings, with many thresholds at hardly more than the cost of one.

The events are those of `accumulation.Decoder`. How evidence adds up does not depend on a threshold,
and no component's evidence on another's state. So a sum is followed once from each frame at which
it begins, as far as the highest threshold needs: a threshold is exceeded where the sum first rises
above it, which is where it is higher than ever before.
"""

import bisect
import dataclasses
import functools
import itertools
import operator
from collections.abc import Sequence

import numpy as np

from stormpsr_jax.psr.accumulation import Settings, Sum, gate, thresholds, weight_of
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant


def decode(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    settings: Settings,
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
) -> list[Event]:
    """Decodes a whole recording: the events that `Decoder.update` gives frame by frame.

    Args:
        stream: "asd" (detections alone), "temporal" (windows alone) or "storm" (Eq. 9 fuses both).
        detections, temporal: of the recording; those that are not given are no evidence.

    Returns:
        Events by frame and step id, which are the first two fields of each, as scores take them.

    Raises:
        ValueError: an unknown stream, "storm" with decoder "naive", or a class or a number of
            components that the procedure does not have.
    """
    return decode_each(procedure, variant, stream, [settings], detections, temporal)[0]


def decode_each(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    candidates: Sequence[Settings],
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
    calibration: Calibration | None = None,
) -> list[list[Event]]:
    """Returns a recording's events, by frame and step id, with each of several settings.

    Those that follow one another and differ in thresholds alone are decoded together. Predictions
    that are not given are no evidence.

    Args:
        calibration: of the events' confidences, None leaves them as they are.

    Raises:
        ValueError: a class or a number of components that the procedure does not have; as
            `Decoder`.
    """

    def alike(settings: Settings) -> Settings:
        return dataclasses.replace(settings, threshold=0.0, removal=None)

    @functools.cache
    def event(one: Sum, step_id: int) -> Event:  # many settings find the same
        return one.event(step_id, stream, procedure, calibration)

    num, none = procedure.num_components, np.zeros(0, np.int64)
    frames, classes, confidences = none, none, np.zeros(0)
    if detections is not None and stream != "temporal":
        for c in np.unique(detections.classes).tolist():
            if not 0 <= c <= procedure.error_class:
                what = f"0…{procedure.error_class} (procedure {procedure.name!r})"
                raise ValueError(f"class {c} is not in {what}")
        tops = detections.tops()
        frames, classes = detections.frames[tops], detections.classes[tops]
        confidences = detections.confidences[tops]
    windows, likely = none, np.zeros((0, num))
    if temporal is not None and stream != "asd":
        windows, likely = temporal.frames, temporal.confidences
        if likely.shape[1:] != (num,):
            raise ValueError(
                f"probabilities of shape {likely.shape}, procedure {procedure.name!r} has {num} "
                "components"
            )
    found: list[list[Event]] = []
    for settings, group in itertools.groupby(candidates, key=alike):
        limits, start = [thresholds(variant, one) for one in group], len(found)
        found += [[] for _ in limits]
        weight = weight_of(stream, settings)
        some = (confidences > settings.confidence) & (classes > 0)
        seen = windows if weight == 1 else frames[some]
        known = some & (classes <= procedure.num_states)
        shown, sure = procedure.states[classes[known] - 1], confidences[known]
        for k, initial in enumerate(variant.initial_state):
            rows = (frames[known], shown[:, k], sure), (windows, likely[:, k])
            sums = _Sums(settings, weight, seen, *rows)
            for events, of_parts in zip(found[start:], limits, strict=True):
                bit, frame = initial, -1
                while (one := sums.first_above(of_parts[k][bit], bit, frame)) is not None:
                    events.append(event(one, 3 * k + 2 * bit))
                    bit, frame = 1 - bit, one.last
    return [sorted(events, key=operator.attrgetter("frame", "step_id")) for events in found]


class _Sums:
    """The sums of a component, by the state that a flip ends and the frame at which they begin.

    Args:
        weight: of the windows.
        seen: frames that show something.
        shown: frames, the component's state as detected at them, and the confidence of that.
        changes: frames, and P(the component changed inside the window that ends at them).
    """

    def __init__(
        self,
        settings: Settings,
        weight: float,
        seen: np.ndarray,
        shown: tuple[np.ndarray, np.ndarray, np.ndarray],
        changes: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self._settings, self._weight, self._seen = settings, weight, seen
        self._shown, self._changes = shown, changes
        self._evidence: dict[int, list[tuple]] = {}
        self._courses: dict[tuple[int, int], _Course] = {}

    def first_above(self, threshold: float | None, bit: int, start: int) -> Sum | None:
        """Returns the sum where it first exceeds a threshold; None if it never does, or may not."""
        if threshold is None:
            return None
        if bit not in self._evidence:
            self._evidence[bit] = self._of(bit)
        if (bit, start) not in self._courses:
            self._courses[bit, start] = _Course(self._evidence[bit], self._settings, start)
        return self._courses[bit, start].first_above(threshold)

    def _of(self, bit: int) -> list[tuple]:
        """The evidence for the flip from a state, as `Sum.add` takes it."""
        frames, states, sure = self._shown
        windows, likely = self._changes
        flips, changed = states != bit, likely > gate(self._settings)
        every = np.union1d(frames[flips], windows[changed])
        y_s, y_t = np.zeros((2, len(every)))
        y_s[np.searchsorted(every, frames[flips])] = (1 - self._weight) * sure[flips]
        y_t[np.searchsorted(every, windows[changed])] = self._weight * likely[changed]
        before, after = (np.searchsorted(self._seen, every, side) for side in ("left", "right"))
        columns = (every, y_s, y_t, before, after)
        return list(zip(*(column.tolist() for column in columns), strict=True))


class _Course:
    """A sum from the frame on at which it begins, as far as a threshold has asked for it."""

    def __init__(self, evidence: list[tuple], settings: Settings, start: int) -> None:
        self._evidence, self._settings = evidence, settings
        self._next = bisect.bisect_right(evidence, start, key=operator.itemgetter(0))
        self._sum = Sum(blocked_until=start + settings.window if start >= 0 else -1)
        self._records: list[Sum] = []  # wherever it was higher than ever before

    def first_above(self, threshold: float) -> Sum | None:
        one, i, records, evidence = self._sum, self._next, self._records, self._evidence
        highest = records[-1].total if records else 0.0
        while highest <= threshold and i < len(evidence):
            one = one.add(self._settings, *evidence[i])
            i += 1
            if one.total > highest:
                highest = one.total
                records.append(one)
        self._sum, self._next = one, i
        if highest <= threshold:
            return None
        return records[bisect.bisect_right(records, threshold, key=operator.itemgetter(0))]
