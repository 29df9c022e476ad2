"""Protocol `released`: what the published evaluation code computes, number for number.

The code that came with the STORM-PSR paper (arXiv 2510.12385) departs from the paper's equations.
Published figures came from it, so this module computes what it computes, quirks included;
`docs/protocols.md` lists them beside protocol `paper` (`decoding.py`, `metrics.py`). Nothing else
in the package may depend on this module's choices.

An event is (frame, step id, confidence); step ids are 3k (install component k) and 3k + 2 (remove
it). Every event that is decoded here has confidence 1. M rows, K components, N = 3K step ids.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from stormpsr_jax.psr.decoding import STREAMS, Settings
from stormpsr_jax.psr.metrics import edit_distance
from stormpsr_jax.psr.predictions import Detections, TemporalPredictions
from stormpsr_jax.psr.procedure import Procedure, Variant

# Stands for "no such event" in the matching of repeats. Nearer than infinity, so that it can win.
_FILLER = 1e9

Event = tuple[int, int, float]


def _steps_between(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Step ids from one state vector (K,) to another, in component order; none if one is empty."""
    changes = enumerate(zip(before, after, strict=False))
    return [3 * k if b == 0 else 3 * k + 2 for k, (b, a) in changes if a != b]


class _Sums:
    """Cumulative confidence per step id, and what completes when a sum exceeds the threshold."""

    def __init__(self, settings: Settings, expected: frozenset[int], state: list[int] | None, n: int):
        self.settings = settings
        self.expected = expected
        self.state = state  # (K,), or empty, or None until something is detected
        self.sums = np.zeros(n)  # (N,), one array for both streams in fusion
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

    def update(self, frame: int, detected: Sequence[int], confidence: float) -> None:
        """`detected`: the state vector of the frame's first row, empty for background and error."""
        if self.state is None:
            self.state = list(detected)
            return  # without decay
        suggested = _steps_between(self.state, detected)
        self.sums[suggested] += confidence
        if suggested:
            self.complete(frame)
        self.decay_all_but(suggested)

    def idle(self, num_frames: int) -> None:
        """Decays through frames without rows, one by one: a power would round differently."""
        for i in range(num_frames):
            if i % 64 == 0 and (self.sums * self.settings.decay == self.sums).all():
                break  # all zero, or too small to shrink
            self.sums *= self.settings.decay


class _TemporalSums(_Sums):
    """B2 and B3 on the temporal stream. Only frames with a row count, in order."""

    def __init__(self, *args):
        super().__init__(*args)
        self.supported: set[int] = set()  # step ids added to since the last decay
        self.changes: list[tuple[int, np.ndarray]] = []  # recorded: frame, (K,) bool
        self.recent: np.ndarray | None = None  # the last change XOR those at most a window older

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


def decode(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    settings: Settings,
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
) -> list[Event]:
    """Decodes one stream of a recording.

    Of `settings`, `weight` matters at frame 0 only and `confidence` to the decoder "naive" only;
    `window` is the number of frames within which the temporal stream counts a change once.

    Args:
        procedure, variant: what is built, and how it starts and what it expects.
        stream: "asd", "temporal" or "storm" (both, fused; not the paper's Eq. 9).
        settings: as for `decoding.decode`.
        detections, temporal: the recording's predictions; a stream may be absent if it is not used.

    Returns:
        Events (frame, step id, 1.0) in the order in which they are emitted.

    Raises:
        ValueError: unknown stream; "storm" with the decoder "naive", which has no fusion;
            predictions that do not fit the procedure.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r} is not one of {', '.join(STREAMS)}")
    naive = settings.decoder == "naive"
    if stream == "storm" and naive:
        raise ValueError("--decoder=naive has no fused stream; take confidence or expected")
    initial = list(variant.initial_state)
    expected = every = frozenset(range(3 * procedure.num_components))
    if settings.decoder == "expected":
        expected = frozenset(variant.expected)
    if stream == "asd":
        rows = _detection_rows(detections, procedure)
        if naive:
            return _naive_detections(rows, initial, settings)
        return _fuse(
            _first_rows(rows), {}, _DetectionSums(settings, expected, initial, len(every)), None
        )
    changes = _temporal_rows(temporal, procedure)
    if naive:
        return _naive_temporal(changes, initial, settings)
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


def _matches(step, frames, steps, other_frames, other_steps) -> list[tuple[int, int]]:
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


def _edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """True Damerau-Levenshtein distance: insertion, deletion, transposition 1, substitution 2."""
    n, m = len(first), len(second)
    # cost[i + 1][j + 1] belongs to prefixes of length i and j; row and column 0 are unreachable.
    cost = [[2 * (n + m)] * (m + 2) for _ in range(n + 2)]
    cost[1][1:] = range(m + 1)
    last_row: dict[int, int] = {}  # symbol: the last row at which `first` has it
    for i, a in enumerate(first, start=1):
        cost[i + 1][1] = i
        column = 0  # the last one in this row at which both agree
        for j, b in enumerate(second, start=1):
            row = last_row.get(b, 0)
            cost[i + 1][j + 1] = min(
                cost[i][j] + (0 if a == b else 2),
                cost[i + 1][j] + 1,
                cost[i][j + 1] + 1,
                cost[row][column] + (i - row - 1) + 1 + (j - column - 1),
            )
            if a == b:
                column = j
        last_row[a] = i
    return cost[n + 1][m + 1]


def _reordered(frames, steps, truth_frames, truth_steps, window: int) -> list[int]:
    """Returns the predicted step ids in an order nearer to the truth's, for POS alone."""
    frames, steps, truth_steps = frames.tolist(), steps.tolist(), truth_steps.tolist()
    if any(frames):
        at_start = max(i for i, frame in enumerate(frames) if frame == frames[0]) + 1
        done = set(truth_steps[i] for i in np.flatnonzero(truth_frames <= frames[0]))
        if set(steps[:at_start]) == done:
            reach = min(len(steps), len(truth_steps))
            steps[:reach] = truth_steps[:reach]
    neighbours = set(itertools.pairwise(truth_steps))
    for i in range(1, len(steps)):
        if (steps[i], steps[i - 1]) in neighbours and frames[i] - frames[i - 1] < window:
            steps[i - 1 : i + 1] = steps[i], steps[i - 1]
            frames[i - 1 : i + 1] = frames[i], frames[i - 1]
    return steps


def score(
    events: Sequence[Event], truth: Sequence[tuple[int, int]], *, window: int | None = None
) -> dict[str, float]:
    """Scores one recording.

    Args:
        events: (frame, step id, confidence) in the order of emission; a confidence below 1 marks
            a step that was implied, not perceived.
        truth: (frame, step id) of PSR_labels.csv in file order, without anything from raw states.
        window: frames within which neighbours are put in the truth's order before POS; or None.

    Returns:
        pos, f1, delay_frames (0 if nothing was matched), tp, fp, fn, perception_fp, perception_fn.

    Raises:
        ValueError: there are no ground-truth steps, so that POS is undefined.
    """
    if not truth:
        raise ValueError("no ground-truth steps in PSR_labels.csv; --protocol=paper allows that")
    frames, steps = (np.array([event[i] for event in events], np.int64) for i in (0, 1))
    implied = [int(event[2]) == 0 for event in events]
    truth_frames, truth_steps = np.array(truth, np.int64).T
    fp = fn = perception_fp = perception_fn = 0
    delays: dict[int, int] = {}  # index in the truth: of several pairs with it the last
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
        "pos": 1 - min(_edit_distance(truth_steps.tolist(), order) / len(truth), 1),
        "f1": float(2 * precision * recall / (precision + recall + 1e-6)),
        "delay_frames": float(np.mean(list(delays.values()))) if delays else 0.0,
        "tp": int(tp),
        "fp": int(fp),
        "fn": int(fn),
        "perception_fp": int(perception_fp),
        "perception_fn": int(perception_fn),
    }


def contains_errors(truth: Sequence[tuple[int, int]], states: np.ndarray, variant: Variant) -> bool:
    """True if the truth lacks an expected step or a raw state vector (M, K) has a -1."""
    missing = set(variant.expected) - {step for _, step in truth}
    return bool(missing) or bool((states == -1).any())


def evaluate_stream(
    stream: str,
    detections: Detections | None,
    temporal: TemporalPredictions | None,
    truth: Sequence[tuple[int, int]],
    states: np.ndarray,
    *,
    settings: Settings,
    fps: float,
) -> dict[str, object]:
    """Decodes and scores one stream of one recording, as metrics.json wants it.

    POS follows the re-ordering except for detections, as in the released scripts; the events
    returned are those before it.

    Args:
        stream: "asd", "temporal" or "storm" (both; not for the decoder "naive").
        detections, temporal: the recording's predictions; what the stream does not use is ignored.
        truth: (frame, step id) of PSR_labels.csv, in file order.
        states: (M, K) of PSR_labels_raw.csv.
        settings: of this stream.
        fps: frames per second, for the delay.
    """
    if stream == "asd":
        events = decode_detections(detections, settings)
    elif stream == "temporal":
        events = decode_temporal(temporal, settings)
    else:
        events = fuse(detections, temporal, settings)
    scores = score(events, truth, window=None if stream == "asd" else settings.window)
    return {
        **scores,
        "delay_s": scores["delay_frames"] / fps,
        "contains_errors": contains_errors(truth, states, settings.variant),
        "events": [list(event) for event in events],
    }


def summarise(recordings: Sequence[Mapping]) -> dict[str, float]:
    """Means of pos, f1 and delay_s (0 where nothing was matched), sums of tp, fp and fn.

    Raises:
        ValueError: there are no recordings.
    """
    if not recordings:
        raise ValueError("there are no recordings to summarise; check --labels")
    means = {k: float(np.mean([r[k] for r in recordings])) for k in ("pos", "f1", "delay_s")}
    return means | {k: sum(r[k] for r in recordings) for k in ("tp", "fp", "fn")}
