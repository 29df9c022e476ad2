"""Whole recordings, with many thresholds at hardly more than the cost of one.

The events are those of `accumulation.Decoder`. The evidence of a component depends neither on a
threshold nor on another one's state, so it is worked out once for all thresholds.
"""

import bisect
import dataclasses
import functools
import itertools
import operator
from collections.abc import Iterator, Sequence

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
        weight, likely_from = weight_of(stream, settings), gate(settings)
        some = (confidences > settings.confidence) & (classes > 0)
        seen = windows if weight == 1 else frames[some]
        known = some & (classes <= procedure.num_states)
        shown, sure = procedure.states[classes[known] - 1], (1 - weight) * confidences[known]
        for k, initial in enumerate(variant.initial_state):
            changed = likely[:, k] > likely_from
            of_windows = windows[changed], weight * likely[changed, k]
            evidence = []
            for bit in (0, 1):  # the state that a flip ends
                flips = shown[:, k] != bit
                evidence.append(_evidence((frames[known][flips], sure[flips]), of_windows, seen))
            for events, of_parts in zip(found[start:], limits, strict=True):
                for one, bit in _flips(evidence, of_parts[k], initial, settings):
                    events.append(event(one, 3 * k + 2 * bit))
    return [sorted(events, key=operator.attrgetter("frame", "step_id")) for events in found]


def _evidence(
    shown: tuple[np.ndarray, np.ndarray], changes: tuple[np.ndarray, np.ndarray], seen: np.ndarray
) -> list[tuple]:
    """The evidence for a flip, as `Sum.add` takes it.

    Args:
        shown, changes: frames, ascending, and the evidence of detections and windows there.
        seen: frames that show something.
    """
    every = np.union1d(shown[0], changes[0])
    y_s, y_t = np.zeros((2, len(every)))
    y_s[np.searchsorted(every, shown[0])] = shown[1]
    y_t[np.searchsorted(every, changes[0])] = changes[1]
    before, after = (np.searchsorted(seen, every, side) for side in ("left", "right"))
    columns = (every, y_s, y_t, before, after)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _flips(
    evidence: Sequence[Sequence[tuple]],
    limits: tuple[float | None, float | None],
    bit: int,
    settings: Settings,
) -> Iterator[tuple[Sum, int]]:
    """Yields the sums of a component that exceed T, each with the state that its flip ends.

    Args:
        evidence, limits: of its flips from 0 and from 1; T is None where it may not flip.
        bit: its first state.
    """
    one = Sum()
    start = 0
    while (limit := limits[bit]) is not None:
        for row in itertools.islice(evidence[bit], start, None):
            one = one.add(settings, *row)
            if one.total > limit:
                break
        else:
            return
        yield one, bit
        bit, frame = 1 - bit, one.last
        start = bisect.bisect_right(evidence[bit], frame, key=operator.itemgetter(0))
        one = Sum(blocked_until=frame + settings.window)
