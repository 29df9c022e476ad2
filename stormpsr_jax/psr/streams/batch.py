"""Decoding of whole recordings, with one threshold or many: the fast twin of `decoding.Decoder`.

No component's evidence depends on another's state, so components are decoded one after the other:
the evidence for a component's flip is laid out once, and its sum runs along it until it exceeds the
threshold. Until then the sum does not depend on the threshold, so many thresholds share one run.
"""

import dataclasses
import heapq
import operator
from collections.abc import Mapping, Sequence

import numpy as np

from stormpsr_jax.psr.files.predictions import Detections, TemporalPredictions
from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.rules import Event, Rules, Settings

BLOCK = 16384  # rows of evidence that are looked at at a time: few enough to stay in the cache


def decode(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    settings: Settings,
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
    *,
    calibration: Calibration | None = None,
) -> list[Event]:
    """Decodes a whole recording: the events that `Decoder.update` gives frame by frame.

    Predictions that are not given are no evidence. Raises ValueError as `Decoder`.
    """
    return sweep(
        procedure,
        variant,
        stream,
        settings,
        [settings.threshold],
        detections,
        temporal,
        calibration=calibration,
    )[0]


def sweep(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    settings: Settings,
    thresholds: Sequence[float],
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
    *,
    removals: Sequence[float | None] | None = None,
    calibration: Calibration | None = None,
) -> list[list[Event]]:
    """Decodes a whole recording with each of several thresholds T, in any order.

    Args:
        settings: as for `Decoder`; its threshold is not used.
        removals: `Settings.removal` beside each threshold; None takes that of `settings`.
        calibration: of the events' confidences, None leaves them as they are.

    Returns:
        For each threshold the events, by frame and step id.
    """
    if removals is None:
        removals = [settings.removal] * len(thresholds)
    rules = []
    for threshold, removal in zip(thresholds, removals, strict=True):
        one = dataclasses.replace(settings, threshold=threshold, removal=removal)
        rules.append(Rules(procedure, variant, stream, one, calibration))
    events: list[list[Event]] = [[] for _ in rules]
    if not rules:
        return events
    # In what the evidence is, and in what an event says, they do not differ.
    evidence = _Evidence(procedure, rules[0], settings, detections, temporal)
    for k, bit in enumerate(variant.initial_state):
        # Completions from which several thresholds go on are followed once, in time order.
        starts: dict[tuple[int, int], list[int]] = {(-1, bit): list(range(len(rules)))}
        queue = [(-1, bit)]
        known: dict[int, Rows] = {}  # by bit
        while queue:
            frame, bit = start = heapq.heappop(queue)
            group = [i for i in starts.pop(start) if rules[i].may_flip[k][bit]]
            if not group:
                continue
            blocked_until = frame + settings.window if frame >= 0 else -1
            if bit not in known:
                known[bit] = evidence.rows(k, bit)
            limits = {i: rules[i].thresholds[k][bit] for i in group}
            path = _Path(evidence, known[bit], frame, blocked_until, max(limits.values()))
            for end, members in path.crossings(limits).items():
                event = path.event(end, 3 * k + 2 * bit, rules[0])
                for i in members:
                    events[i].append(event)
                following = (event.frame, 1 - bit)
                if following not in starts:
                    heapq.heappush(queue, following)
                starts.setdefault(following, []).extend(members)
    for found in events:
        found.sort(key=operator.attrgetter("frame", "step_id"))
    return events


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


class _Evidence:
    """Evidence of all frames that have some, by component and by the bit that it would flip."""

    def __init__(
        self,
        procedure: Procedure,
        rules: Rules,
        settings: Settings,
        detections: Detections | None,
        temporal: TemporalPredictions | None,
    ) -> None:
        none = np.zeros(0, np.int64)
        frames_s, classes, confidences = none, none, np.zeros(0)
        self._seen = none
        if detections is not None and rules.weight < 1:
            self._seen, classes, confidences = _top_detections(detections, procedure, settings)
            known = classes <= procedure.num_states
            frames_s, classes, confidences = self._seen[known], classes[known], confidences[known]
        elif temporal is not None and rules.weight == 1:
            self._seen = temporal.frames
        frames_t = none
        self._temporal = np.zeros((procedure.num_components, 0))
        if temporal is not None and rules.weight > 0:
            if temporal.confidences.shape[1:] != (procedure.num_components,):
                raise ValueError(
                    f"probabilities of shape {temporal.confidences.shape}, procedure "
                    f"{procedure.name!r} has {procedure.num_components} components"
                )
            some = (temporal.confidences > rules.changed).any(axis=1)
            frames_t = temporal.frames[some]
            # Components are read one at a time, so each lies in one piece.
            self._temporal = np.ascontiguousarray(temporal.confidences[some].T)
        self._rules = rules
        # A stable sort merges two ascending lists in linear time, which np.union1d does not.
        frames = np.sort(np.concatenate((frames_s, frames_t)), kind="stable")
        self._frames = frames[np.diff(frames, prepend=-1) != 0]
        self._places = np.searchsorted(self._frames, frames_t)
        places = np.searchsorted(self._frames, frames_s)
        self._asd = np.zeros(len(self._frames))
        self._asd[places] = (1 - rules.weight) * confidences
        self._classes = np.zeros(len(self._frames), np.int64)
        self._classes[places] = classes
        # Row c is the state of class c; 2 flips nothing.
        self._bits = np.vstack([np.full(procedure.num_components, 2), procedure.states])

    def rows(self, k: int, bit: int) -> Rows:
        """Frames (M,), evidence ŷ_S,k (M,) and ŷ_T,k (M,), both weighted, for flipping a bit."""
        flips = self._bits[:, k] == 1 - bit
        asd = self._asd * flips[self._classes]
        changes = np.zeros(len(asd))
        column = self._temporal[k]
        changes[self._places] = np.where(
            column > self._rules.changed, self._rules.weight * column, 0.0
        )
        some = np.flatnonzero(asd + changes)
        return self._frames[some], asd[some], changes[some]

    def left(self, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
        """What the decay leaves of a sum (N,) between two frames with evidence, (N,) each."""
        factors = np.ones(len(later))
        breaks = np.flatnonzero(later - earlier > 1)
        earlier, later = earlier[breaks], later[breaks]
        gaps = later - earlier - 1
        seen = np.searchsorted(self._seen, later) - np.searchsorted(self._seen, earlier, "right")
        factors[breaks] = [
            self._rules.left(*counts) for counts in zip(gaps.tolist(), seen.tolist(), strict=True)
        ]
        return factors


class _Path:
    """The sum of one component after a completion, until it exceeds the highest threshold.

    Args:
        rows: evidence of the component, see `_Evidence.rows`.
        after: frame of the completion, -1 at the start.
        blocked_until: last frame whose temporal evidence does not count.
        ceiling: the highest threshold.
    """

    def __init__(
        self, evidence: _Evidence, rows: Rows, after: int, blocked_until: int, ceiling: float
    ) -> None:
        blocks: list[tuple[np.ndarray, ...]] = []
        begin = int(np.searchsorted(rows[0], after, "right"))
        # Blocks start small and grow, as a path may end soon, and must not cost as much as all that
        # is left of the recording.
        size = 256
        total = 0.0
        before = None
        while begin < len(rows[0]):
            frames, asd, temporal = (column[begin : begin + size] for column in rows)
            if frames[0] <= blocked_until:
                temporal = np.where(frames > blocked_until, temporal, 0.0)
                some = np.flatnonzero(asd + temporal)
                frames, asd, temporal = frames[some], asd[some], temporal[some]
            begin, size = begin + size, min(2 * size, BLOCK)
            if not len(frames):
                continue
            first = frames[0] - 1 if before is None else before
            left = evidence.left(np.concatenate(([first], frames[:-1])), frames)
            before = frames[-1]
            sums = []
            for share, y in zip(left.tolist(), (asd + temporal).tolist(), strict=True):
                total = total * share + y
                sums.append(total)
                if total > ceiling:
                    break
            columns = (frames, left, temporal)
            blocks.append((*(c[: len(sums)] for c in columns), np.array(sums)))
            if total > ceiling:
                break
        blocks = blocks or [(np.zeros(0, np.int64), *np.zeros((3, 0)))]
        # `left` is what the decay left of the sum before.
        self.frames, self.left, self.temporal, self.sums = map(
            np.concatenate, zip(*blocks, strict=True)
        )

    def crossings(self, thresholds: Mapping[int, float]) -> dict[int, list[int]]:
        """By place, ascending, the keys of the thresholds that the sum exceeds there first."""
        highest = np.maximum.accumulate(self.sums)
        keys = list(thresholds)
        places = np.searchsorted(highest, [thresholds[i] for i in keys], "right").tolist()
        result: dict[int, list[int]] = {}
        for place, key in sorted(zip(places, keys, strict=True)):
            if place < len(highest):
                result.setdefault(place, []).append(key)
        return result

    def event(self, end: int, step_id: int, rules: Rules) -> Event:
        """The event at a place of the path."""
        support = part = 0.0
        left, temporals = self.left[: end + 1].tolist(), self.temporal[: end + 1].tolist()
        for share, temporal in zip(left, temporals, strict=True):
            support = support * share + 1
            part = part * share + temporal
        return rules.event(
            int(self.frames[end]),
            step_id,
            float(self.sums[end]),
            part,
            support,
            end + 1,
            int(self.frames[0]),
        )


def _top_detections(
    detections: Detections, procedure: Procedure, settings: Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, classes and confidences of the frames' most confident rows, if they show something.

    That is a catalogued state, which is evidence, or the error state, above the floor.
    """
    for c in np.unique(detections.classes).tolist():
        if not 0 <= c <= procedure.error_class:
            raise ValueError(
                f"class {c} is not in 0…{procedure.error_class} (procedure {procedure.name!r})"
            )
    tops = detections.tops()
    frames, classes = detections.frames[tops], detections.classes[tops]
    confidences = detections.confidences[tops]
    good = (confidences > settings.confidence) & (classes >= 1)
    return frames[good], classes[good], confidences[good]
