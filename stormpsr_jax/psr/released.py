"""Protocol `released`: what the published evaluation code computes, number for number.

The code that came with the STORM-PSR paper (arXiv 2510.12385) departs from the paper's equations.
Published figures came from it, so this module computes what it computes, quirks included: B1 to B3,
a fusion of its own, and the scores. `docs/psr.md` lists them beside protocol `paper`
(`accumulation.py`, `metrics.py`). Nothing else in the package may depend on this module's choices.

An event is (frame, step id, confidence); step ids are 3k (install component k) and 3k + 2 (remove
it). Every event that is decoded here has confidence 1. M rows, K components, N = 3K step ids.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr import headline, streams
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.metrics import Step, check_pairs, edit_distance
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import Procedure, Variant

Event = tuple[int, int, float]
# Frame, state vector (empty: background, None: error state), rounded confidence.
_DetectionRow = tuple[int, list[int] | None, float]
# By frame, (K,) predicted changes, as bool, and rounded confidences.
_TemporalRows = dict[int, tuple[np.ndarray, np.ndarray]]


def _steps_between(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Step ids from one state vector (K,) to another, in component order; none if one is empty."""
    changes = enumerate(zip(before, after, strict=False))
    return [3 * k if b == 0 else 3 * k + 2 for k, (b, a) in changes if a != b]


class _Sums:
    """Cumulative confidence per step id, and what completes when a sum exceeds the threshold."""

    def __init__(self, settings: Settings, expected: frozenset[int], initial: Sequence[int]):
        self.settings = settings
        self.expected = expected
        self.state = list(initial)  # (K,), or empty
        self.sums = np.zeros(3 * len(initial))  # (N,), one array for both streams in fusion
        self.events: list[Event] = []

    def complete(self, frame: int) -> list[int]:
        """Handles every sum above the threshold, whoever filled it; returns all those step ids."""
        above = (self.sums > self.settings.threshold).nonzero()[0].tolist()
        for step in above:
            self.sums[step] = 0
            if step in self.expected:
                self.events.append((frame, step, 1.0))
                self.state[step // 3] = int(step % 3 == 0)
        return above

    def decay_all_but(self, spared: list[int]) -> None:
        kept = self.sums[spared]
        self.sums *= self.settings.decay
        self.sums[spared] = kept


class _DetectionSums(_Sums):
    """B2 and B3 on detections. Every frame counts, in order, either as `update` or as `idle`."""

    blank = False  # what is detected first is then the state to start from

    def update(self, frame: int, detected: Sequence[int], confidence: float) -> None:
        """`detected`: the state vector of the frame's first row, empty for background and error."""
        if self.blank:
            self.blank, self.state = False, list(detected)
            return  # the sums do not decay at this frame
        suggested = [] if detected == self.state else _steps_between(self.state, detected)
        if suggested:
            self.sums[suggested] += confidence
            self.complete(frame)
        self.decay_all_but(suggested)

    def idle(self, num_frames: int) -> None:
        """Decays through frames without rows, one by one: a power would round differently."""
        for i in range(1, num_frames + 1):
            self.sums *= self.settings.decay
            if i % 64 == 0 and (self.sums * self.settings.decay == self.sums).all():
                break  # all zero, or too small to shrink


class _TemporalSums(_Sums):
    """B2 and B3 on the temporal stream. Only frames with a row count, in order."""

    def __init__(self, settings: Settings, expected: frozenset[int], initial: Sequence[int]):
        super().__init__(settings, expected, initial)
        self.supported: set[int] = set()  # step ids added to since the last decay
        self.changes: list[tuple[int, np.ndarray]] = []  # recorded: frame, (K,) bool
        # The last change XOR those at most a window older.
        self.recent = np.zeros(len(initial), bool)

    def update(self, frame: int, predicted: np.ndarray, confidences: np.ndarray) -> None:
        """`predicted` (K,) bool and `confidences` (K,) of the clip that ends at `frame`."""
        if not predicted.any():
            self.decay_all_but(list(self.supported))
            self.supported.clear()
            return
        if self.changes and frame - self.changes[-1][0] < self.settings.window:
            predicted = predicted & ~self.recent
        components = predicted.nonzero()[0].tolist()
        if not components:
            return
        for k in components:
            step = 3 * k if self.state[k] == 0 else 3 * k + 2
            self.sums[step] += confidences[k]
            self.supported.add(step)
        num_events = len(self.events)
        above = self.complete(frame)
        if len(self.events) > num_events:
            self._record(frame, above)

    def _record(self, frame: int, steps: list[int]) -> None:
        change = np.zeros(len(self.state), bool)
        change[[step // 3 for step in steps]] = True
        self.recent = change.copy()
        for older, label in reversed(self.changes):
            if frame - older > self.settings.window:
                break
            self.recent ^= label
        self.changes.append((frame, change))


def _rounded(confidences: np.ndarray) -> np.ndarray:
    """Confidences to 3 decimals as `round` does it; NumPy's rounding errs on some halves."""
    scaled = confidences * 1000
    rounded = np.rint(scaled) / 1000
    halves = np.abs(scaled - np.floor(scaled) - 0.5) < 1e-6
    rounded[halves] = [round(value, 3) for value in confidences[halves].tolist()]
    return rounded


def _temporal_rows(temporal: TemporalPredictions) -> _TemporalRows:
    """The first row of each frame."""
    rows: _TemporalRows = {}
    columns = temporal.frames.tolist(), temporal.predicted == 1, _rounded(temporal.confidences)
    for frame, predicted, confidences in zip(*columns, strict=True):
        rows.setdefault(frame, (predicted, confidences))
    return rows


def _naive_detections(
    rows: Sequence[_DetectionRow], state: list[int], settings: Settings
) -> list[Event]:
    """B1: the most confident row of a frame completes the steps to its state at once."""
    events = []
    for frame, group in itertools.groupby(rows, key=lambda row: row[0]):
        _, detected, confidence = max(group, key=lambda row: row[2])
        if confidence > settings.confidence and detected is not None:
            events += [(frame, step, 1.0) for step in _steps_between(state, detected)]
            state = detected  # empty after background: no steps lead to the next detection
    return events


def _naive_temporal(rows: _TemporalRows, state: list[int], settings: Settings) -> list[Event]:
    """B1: confident components flip at once, unless the row applied last flagged them already."""
    events: list[Event] = []
    emitted: set[int] = set()
    last, last_frame = np.zeros(len(state), bool), -math.inf
    for frame, (predicted, confidences) in rows.items():
        age = frame - last_frame
        if age < settings.window and (predicted == last).all():
            continue
        flips = predicted & (confidences >= settings.confidence)
        if age <= settings.window:
            flips &= ~last
        if not flips.any():
            continue
        last, last_frame = predicted, frame
        for k in flips.nonzero()[0].tolist():
            step = 3 * k if state[k] == 0 else 3 * k + 2
            state[k] = 1 - state[k]
            # A removal's id + 2 belongs to the next component and is never emitted: an install may
            # repeat after the removal, a removal never.
            if step not in emitted or step + 2 in emitted:
                events.append((frame, step, 1.0))
                emitted.add(step)
    return events


def decode(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    settings: Settings,
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
) -> list[Event]:
    """Decodes a stream of a recording: events (frame, step id, 1.0) in the order of their emission.

    `stream` is "asd", "temporal", or "storm" for both, fused (not by the paper's Eq. 9; the decoder
    "naive" has none); only the predictions that it uses are needed. `settings.confidence` applies
    to "naive" alone, `settings.weight` to frame 0 alone. How many images a recording has does not
    matter: frames without predictions only decay sums.

    Raises:
        ValueError: a removal, a gate or an unseen_decay, which it does not have.
    """
    needs = streams.find(stream).needs
    detects, fused = "detections" in needs, len(needs) > 1
    for field in ("removal", "gate", "unseen_decay"):
        if (value := getattr(settings, field)) != getattr(Settings, field):
            raise ValueError(f"{field}={value} needs protocol 'paper'")
    asd_rows: list[_DetectionRow] = []
    if detects and detections is not None:
        vectors = [[], *procedure.states.tolist(), None]
        states = [vectors[c] for c in detections.classes.tolist()]
        columns = detections.frames.tolist(), states, _rounded(detections.confidences).tolist()
        asd_rows = list(zip(*columns, strict=True))
    temporal_rows = _temporal_rows(temporal) if "windows" in needs and temporal else {}
    initial = list(variant.initial_state)
    if settings.decoder == "naive":
        if detects:
            return _naive_detections(asd_rows, initial, settings)
        return _naive_temporal(temporal_rows, initial, settings)

    expected = frozenset(variant.expected)
    every = expected if settings.decoder == "expected" else frozenset(range(3 * len(initial)))
    # Fused B2 starts the detections from what they show first, and its temporal side is B3's.
    asd = _DetectionSums(settings, every, initial)
    asd.blank = fused and settings.decoder == "confidence"
    change = _TemporalSums(settings, expected if fused else every, initial)
    first_rows: dict[int, tuple] = {}
    for frame, detected, confidence in asd_rows:  # the first in the file, not the most confident
        first_rows.setdefault(frame, (detected or [], confidence))
    previous = -1
    for frame in sorted({0, *first_rows, *temporal_rows}):
        if detects:
            asd.idle(frame - previous - (frame in first_rows))
        if frame in first_rows:
            asd.update(frame, *first_rows[frame])
        if frame in temporal_rows:
            change.update(frame, *temporal_rows[frame])
        # From frame 0 on both decoders of the fused stream have one array, the weighted sum.
        if frame == 0 and fused:
            asd.sums *= 1 - settings.weight
            asd.sums += settings.weight * change.sums
            change.sums = asd.sums
        previous = frame
    return _merge(asd.events, change.events) if fused else asd.events + change.events


def _merge(first: Sequence[Event], second: Sequence[Event]) -> list[Event]:
    """Frame by frame the first list's events, else the second's, without unexplained repeats."""
    taken = {event[0] for event in first}
    events = [*first, *(event for event in second if event[0] not in taken)]
    merged: list[Event] = []
    since: dict[int, int] = {}  # step id: frame of its first event, before the frame at hand
    by_frame = itertools.groupby(sorted(events, key=lambda event: event[0]), lambda e: e[0])
    for frame, group in by_frame:
        accepted = []
        for event in group:
            install = event[1] - event[1] % 3
            both = install in since and install + 2 in since
            if event[1] not in since or (both and since[install] < since[install + 2]):
                accepted.append(event)
        merged += accepted
        for _, step, _ in accepted:
            since.setdefault(step, frame)
    return merged


# --- Scores ---------------------------------------------------------------------------------------

# Stands for "no such event" in the matching of repeats. Nearer than infinity, so that it can win.
_FILLER = 1e9
_COMPUTED = ("pos", "f1", "delay_s", "tp", "fp", "fn")
# The headline figures that the released code does not compute.
_UNDEFINED = {figure.key: None for figure in headline.figures_of(()) if figure.key not in _COMPUTED}


def _matches(
    step: int,
    frames: np.ndarray,
    steps: np.ndarray,
    other_frames: np.ndarray,
    other_steps: np.ndarray,
) -> list[tuple[int, int]]:
    """Pairs each event of `step` in one list with the nearest in the other: (index, index).

    An event exactly on time counts as infinitely far. The other list holds at least as many of
    that step, and the search runs over all of it: events of other steps, and those already used,
    stand at `_FILLER`, and the first of them is taken when nothing else is left.
    """
    candidates = np.where(other_steps == step, other_frames, _FILLER)
    pairs = []
    for i in np.flatnonzero(steps == step).tolist():
        distances = np.abs(candidates - frames[i])
        distances[distances == 0] = np.inf
        j = int(distances.argmin())
        candidates[j] = _FILLER
        pairs.append((i, j))
    return pairs


def _reordered(
    frames: np.ndarray,
    steps: np.ndarray,
    truth_frames: np.ndarray,
    truth_steps: np.ndarray,
    window: int,
) -> list[int]:
    """Returns the predicted step ids in an order nearer to the truth's, for POS alone."""
    times, ids, wanted = frames.tolist(), steps.tolist(), truth_steps.tolist()
    if any(times):
        at_start = max(i for i, time in enumerate(times) if time == times[0]) + 1
        done = set(wanted[i] for i in np.flatnonzero(truth_frames <= times[0]))
        if set(ids[:at_start]) == done:
            reach = min(len(ids), len(wanted))
            ids[:reach] = wanted[:reach]
    neighbours = set(itertools.pairwise(wanted))
    for i in range(1, len(ids)):
        if (ids[i], ids[i - 1]) in neighbours and times[i] - times[i - 1] < window:
            ids[i - 1 : i + 1] = ids[i], ids[i - 1]
            times[i - 1 : i + 1] = times[i], times[i - 1]
    return ids


def score_recording(
    truth: Sequence[Step], events: Sequence[Event], window: int | None = None
) -> dict[str, Any]:
    """Scores one recording.

    Args:
        truth: (frame, step id) of PSR_labels.csv as it stands, in file order.
        events: (frame, step id, confidence) in the order of emission; a confidence below 1 marks
            a step that was implied, not perceived.
        window: frames within which neighbours are put in the truth's order before POS; or None.

    Returns:
        pos, f1, delay_frames (0 if nothing was matched), tp, fp, fn, perception_fp, perception_fn;
        f1_tolerant, which the released code does not have, is None.

    Raises:
        ValueError: there are no ground-truth steps, so that POS is undefined; `check_pairs`.
    """
    if not truth:
        raise ValueError("no ground-truth steps in PSR_labels.csv: take protocol 'paper'")
    check_pairs(len(truth), len(events))
    frames, steps = (np.array([event[i] for event in events], np.int64) for i in (0, 1))
    implied = [int(event[2]) == 0 for event in events]
    truth_frames, truth_steps = np.array(truth, np.int64).T
    fp = fn = perception_fp = perception_fn = 0
    delays: dict[int, int] = {}  # by index in the truth; the last one where it is in several pairs
    for step in np.union1d(steps, truth_steps).tolist():
        num_predicted, num_true = (steps == step).sum(), (truth_steps == step).sum()
        fn += max(num_true - num_predicted, 0)
        perception_fn += max(num_true - num_predicted, 0)
        fp += max(num_predicted - num_true, 0)
        perception_fp += max(num_predicted - num_true, 0)
        pairs: list[tuple[int, int]] = []
        if num_predicted < num_true:
            pairs = _matches(step, frames, steps, truth_frames, truth_steps)
        elif num_true:
            swapped = _matches(step, truth_frames, truth_steps, frames, steps)
            pairs = [(p, t) for t, p in swapped]
        for p, t in pairs:
            if frames[p] >= truth_frames[t]:
                delays[t] = frames[p] - truth_frames[t]
                perception_fn += implied[p]
            elif implied[p]:
                perception_fp += 1
            else:
                fp += 1
    tp = len(events) - fp
    precision = tp / (tp + fp) if tp + fp else 1e-6
    recall = tp / (tp + fn) if tp + fn else 1e-6
    order = steps.tolist()
    if window is not None:
        order = _reordered(frames, steps, truth_frames, truth_steps, window)
    return {
        "pos": 1 - min(edit_distance(tuple(truth_steps.tolist()), tuple(order)) / len(truth), 1),
        "f1": float(2 * precision * recall / (precision + recall + 1e-6)),
        **_UNDEFINED,
        "delay_frames": float(np.mean(list(delays.values()))) if delays else 0.0,
        "tp": int(tp),
        "fp": int(fp),
        "fn": int(fn),
        "perception_fp": int(perception_fp),
        "perception_fn": int(perception_fn),
    }


def contains_errors(truth: Sequence[Step], states: np.ndarray, variant: Variant) -> bool:
    """True if the truth lacks an expected step or a raw state vector (M, K) has a -1.

    A step besides the expected ones, such as a part that comes off and goes on again, is no error.
    """
    missing = set(variant.expected) - {step for _, step in truth}
    return bool(missing) or bool((states == -1).any())


def evaluate_recording(
    procedure: Procedure, r: LabelledPredictions, stream: str, settings: Settings, fps: float
) -> dict[str, Any]:
    """Decodes and scores one stream of one recording: the entry of metrics.json.

    As in the released scripts, POS comes without the re-ordering for detections and with it for
    the other streams. The events are those before it. ValueError: as `decode`, `score_recording`.
    """
    events = decode(procedure, r.variant, stream, settings, r.detections, r.temporal)
    reordered = "windows" in streams.find(stream).needs
    scores = score_recording(r.truth, events, settings.window if reordered else None)
    return {
        **scores,
        "delay_s": scores["delay_frames"] / fps,
        "contains_errors": contains_errors(r.truth, r.states, r.variant),
        "events": [list(event) for event in events],
    }


def summarise(recordings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The headline figures: means (of a delay of 0 where nothing was matched) and sums.

    Args:
        recordings: by name, what `evaluate_recording` returns.
    """
    # NumPy's mean, as in the released code: another way to sum rounds differently.
    return headline.over_recordings(recordings.values(), lambda values: float(np.mean(values)))
