"""Protocol `paper`: POS, F1 and delay of recognised steps.

They are those of Schoonbeek et al., IndustReal (WACV 2024), which STORM-PSR (arXiv 2510.12385)
reports too. Where the papers leave a choice open, ours is said at the function that makes it. Steps
are (frame, step id), in any order: rows, also of events, or an array (N, 2).
"""

import collections
import dataclasses
import functools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr import headline

Step = tuple[int, int]  # frame, step id
SWAPPED = 3  # so many ids that look like frames, and frames like ids, are no chance
Pair = tuple[int, int, int]  # step id, true frame, predicted frame
MAX_PAIRS = 4 * 10**6  # of a labelled and a recognised step that POS compares, in two seconds
TOLERANCE_S = 1.0  # of f1_tolerant, by which a prediction may be early


# --- Arguments: what is no step, frame or state is refused by name, not cut to one ----------------


def steps(name: str, values: Iterable[Sequence[Any]] | np.ndarray) -> list[Step]:
    """Returns steps, in the order in which they are given, of rows (frame, step id, …).

    Raises:
        ValueError: `values`, which `name` stands for, are not such rows, or a row has a number
            that is not whole, or below 0.
    """
    rows = values.tolist() if isinstance(values, np.ndarray) else list(values)
    array = numbers([row[:2] if isinstance(row, Sequence) else row for row in rows])
    if rows and (array.ndim != 2 or array.shape[1] < 2):
        raise ValueError(f"{name}: rows are not (frame, step id)")
    array = array[:, :2] if rows else np.zeros((0, 2))
    _check_whole(name, array, ("frame ", "step id "))
    return [(int(frame), int(step_id)) for frame, step_id in array.tolist()]


def truth_and_predicted(
    truth: Iterable[Sequence[Any]] | np.ndarray, predicted: Iterable[Sequence[Any]] | np.ndarray
) -> tuple[list[Step], list[Step]]:
    """Returns both as `steps`, which each may have once at a frame.

    Raises:
        ValueError: as `steps`; a step that is given twice; columns that are exchanged.
    """
    true, reported = steps("truth", truth), steps("predicted", predicted)
    for name, its in (("truth", true), ("predicted", reported)):
        if len(set(its)) < len(its):
            (frame, step_id), _ = collections.Counter(its).most_common(1)[0]
            raise ValueError(f"{name}: step {step_id} is given twice at frame {frame}")
    first = {frame for frame, _ in reported}
    if len(first) >= SWAPPED and true:
        ids = {step_id for _, step_id in true}
        if min(step_id for _, step_id in reported) > max(ids) and ids.issuperset(first):
            raise ValueError(
                "predicted: rows are (frame, step id), and its columns look exchanged: what stands "
                "as frame are step ids of truth"
            )
    return true, reported


def rate(fps: float) -> float:
    """Returns frames per second; ValueError if they are not a positive number."""
    if not (fps > 0 and math.isfinite(fps)):
        raise ValueError(f"fps={fps} is not a positive number")
    return fps


def frames(name: str, values: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns frame numbers (N,), int64; ValueError if they are not whole, or do not ascend."""
    array = numbers(values)
    if array.shape != (len(values),):
        raise ValueError(f"{name} are not N frame numbers")
    _check_whole(name, array[:, None], ("",))
    if (down := np.flatnonzero(np.diff(array) <= 0)).size:
        at, before = down[0] + 1, array[down[0]]
        raise ValueError(f"{name} do not ascend: row {at} has {array[at]:g} after {before:g}")
    return array.astype(np.int64)


def states(
    name: str,
    values: Iterable[Sequence[Any] | np.ndarray | str] | np.ndarray,
    shape: tuple[int, int | None],
) -> np.ndarray:
    """Returns states (M, K) in {-1, 0, 1}, int8; a row may be a text of 0 and 1.

    `shape` is what they have to have, K None for any. ValueError names the row otherwise.
    """
    rows = [list(row) if isinstance(row, str) else row for row in values]
    array = numbers(rows) if rows else np.zeros((0, shape[1] or 0))
    num = shape[1] if shape[1] is not None or array.ndim < 2 else array.shape[1]
    if array.shape != (shape[0], num):
        wanted = f"({shape[0]}, {'K' if num is None else num})"
        raise ValueError(f"{name} are not states of shape {wanted}")
    if (odd := np.argwhere(~np.isin(array, (-1, 0, 1)))).size:
        row, column = odd[0]
        raise ValueError(
            f"{name}, row {row}: {array[row, column]:g} is not 1 (there), 0 (not there) or -1 "
            "(incorrect); probabilities are no states"
        )
    return array.astype(np.int8)


def numbers(values: Any) -> np.ndarray:
    """Returns an array of floats; of shape (0,) for what is none."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        return np.zeros(0)


def _check_whole(name: str, numbers: np.ndarray, columns: Sequence[str]) -> None:
    whole = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
    if not whole.all():
        row, column = np.argwhere(~whole)[0]
        said = f"{columns[column]}{numbers[row, column]:g}"
        raise ValueError(f"{name}, row {row}: {said} is not a whole number from 0 up")


# --- Scores ---------------------------------------------------------------------------------------


def check_pairs(num_true: int, num_predicted: int) -> None:
    """Raises ValueError if steps are too many to compare each of them with each other one."""
    if num_true * num_predicted > MAX_PAIRS:
        raise ValueError(
            f"has {num_true:,} labelled and {num_predicted:,} recognised steps, whose product is "
            f"more than {MAX_PAIRS:,}; cut the recording into parts"
        )


@functools.lru_cache(maxsize=4096)
def edit_distance(truth: tuple[int, ...], predicted: tuple[int, ...]) -> int:
    """Returns the weighted Damerau-Levenshtein distance between two sequences of step ids.

    Insert 1, delete 1, substitute 2, transpose 1; the unrestricted ("true") distance, in which
    transposed neighbours may be edited further: Lowrance and Wagner's recurrence, which holds as
    twice the cost of a transposition is no less than that of an insertion and a deletion.
    ValueError: see `check_pairs`.
    """
    start = 0
    while start < min(len(truth), len(predicted)) and truth[start] == predicted[start]:
        start += 1
    truth, predicted = truth[start:], predicted[start:]
    while truth and predicted and truth[-1] == predicted[-1]:
        truth, predicted = truth[:-1], predicted[:-1]
    check_pairs(len(truth), len(predicted))
    # cost[i][j] transforms the first i of truth into the first j of predicted.
    cost = [list(range(len(predicted) + 1))]
    last_row: dict[int, int] = {}  # by step id, the last i < current one with truth[i-1] = id
    for i, a in enumerate(truth, start=1):
        above = cost[-1]
        row = [i]
        last_column = 0  # the last j < current one with predicted[j-1] = a
        for j, b in enumerate(predicted, start=1):
            best = min(row[-1], above[j]) + 1
            if a == b:
                best = min(best, above[j - 1])
            # A substitution costs as much as a deletion and an insertion: no case of its own.
            k = last_row.get(b, 0)
            if k and last_column:
                gaps = (i - k - 1) + (j - last_column - 1)
                best = min(best, cost[k - 1][last_column - 1] + gaps + 1)
            if a == b:
                last_column = j
            row.append(best)
        cost.append(row)
        last_row[a] = i
    return cost[-1][-1]


def order_similarity(truth: Iterable[Step], predicted: Iterable[Step]) -> float | None:
    """Returns POS, the procedure order similarity: `1 − min(DamLev(Y, Ŷ) / |Y|, 1)`, in 0…1.

    DamLev is the weighted Damerau-Levenshtein distance between the true and the recognised order of
    step ids; a substitution costs 2 (`edit_distance`). Source: IndustReal (WACV 2024).

    >>> order_similarity([(10, 0), (20, 3), (30, 6), (40, 9)], [(11, 0), (22, 6), (23, 3), (41, 9)])
    0.75

    The order is that of frames, and of step ids inside one frame, in both lists alike.

    Args:
        truth, predicted: rows (frame, step id, …) or an array (N, 2), in any order.

    Returns:
        The similarity, which is 1 for equal orders; None without ground-truth steps.

    Raises:
        ValueError: what is no step, is there twice or has its columns exchanged; more steps than
            `check_pairs` allows.
    """
    truth, predicted = truth_and_predicted(truth, predicted)
    if not truth:
        return None
    true_order = tuple(step_id for _, step_id in sorted(truth))
    order = tuple(step_id for _, step_id in sorted(predicted))
    return 1 - min(edit_distance(true_order, order) / len(true_order), 1)


def match_times(truth: Sequence[int], predicted: Sequence[int]) -> list[tuple[int, int]]:
    """Matches the repeats of one step: most matches first, then least total delay.

    A prediction matches a truth at or before it. Read along time, truths open and predictions
    close brackets: a prediction takes the latest truth that is still open. That matches as many as
    possible, leaves out the latest predictions and the earliest truths, and so has the least total
    delay. The total does not depend on who is paired with whom; we pair in time order, which
    makes the longest delay as short as possible.

    Frames come in any order; the pairs (true frame, predicted frame) ascend.
    """
    truth = sorted(truth)
    open_truths: list[int] = []
    true_frames, predicted_frames = [], []
    t = 0
    for frame in sorted(predicted):
        while t < len(truth) and truth[t] <= frame:
            open_truths.append(truth[t])
            t += 1
        if open_truths:
            true_frames.append(open_truths.pop())
            predicted_frames.append(frame)
    return list(zip(sorted(true_frames), predicted_frames, strict=True))


@dataclasses.dataclass(frozen=True)
class Matching:
    """The outcome of every predicted and every true step of a recording.

    Attributes:
        correct: (step id, true frame, predicted frame), the true positives.
        early: (step id, true frame, predicted frame), false positives that use up a later truth.
        wrong: (frame, step id), the other false positives.
        missed: (frame, step id), the false negatives.
    """

    correct: list[Pair]
    early: list[Pair]
    wrong: list[Step]
    missed: list[Step]

    def counts(self) -> tuple[int, int, int]:
        """Returns TP, FP, FN."""
        return len(self.correct), len(self.early) + len(self.wrong), len(self.missed)

    def delays(self) -> list[int]:
        """Returns the delay of each true positive in frames."""
        return [p - t for _, t, p in self.correct]


def match_steps(truth: Iterable[Step], predicted: Iterable[Step]) -> Matching:
    """Compares the steps of one recording: which are right, early, wrong or missed.

    A prediction at or after its truth is a true positive, one before it or without one a false
    positive. A truth is missed if it is neither matched nor used up by an early prediction of the
    same step; as the matching has as many matches as possible, every prediction left over is
    earlier than every truth left over, so each uses up one. The latest predictions use up the
    earliest truths, in time order: those nearest to each other, which changes no count.

    >>> match_steps([(100, 0), (200, 3)], [(112, 0), (190, 3), (300, 5)])
    Matching(correct=[(0, 100, 112)], early=[(3, 200, 190)], wrong=[(300, 5)], missed=[])

    Args:
        truth, predicted: rows (frame, step id, …) or an array (N, 2), in any order.

    Returns:
        `Matching`, whose `counts()` are TP, FP and FN and whose `delays()` are in frames.

    Raises:
        ValueError: what is no step, is there twice or has its columns exchanged.
    """
    return _match(*truth_and_predicted(truth, predicted))


def _match(truth: Iterable[Step], predicted: Iterable[Step]) -> Matching:
    true_frames = _by_step(truth)
    predicted_frames = _by_step(predicted)
    result = Matching([], [], [], [])
    for step_id in sorted(true_frames.keys() | predicted_frames.keys()):
        open_truths = true_frames.get(step_id, [])
        spare = predicted_frames.get(step_id, [])
        matched = match_times(open_truths, spare)
        result.correct.extend((step_id, *pair) for pair in matched)
        open_truths = without(open_truths, [true_frame for true_frame, _ in matched])
        spare = without(spare, [frame for _, frame in matched])
        num = min(len(spare), len(open_truths))
        first = len(spare) - num
        for true_frame, frame in zip(open_truths[:num], spare[first:], strict=True):
            result.early.append((step_id, true_frame, frame))
        result.wrong.extend((frame, step_id) for frame in spare[:first])
        result.missed.extend((frame, step_id) for frame in open_truths[num:])
    return result


def without(values: Iterable[int], taken: Iterable[int]) -> list[int]:
    """Returns the values, ascending, without as many of each as were taken."""
    return sorted((collections.Counter(values) - collections.Counter(taken)).elements())


def _by_step(steps: Iterable[Step]) -> dict[int, list[int]]:
    frames: dict[int, list[int]] = {}
    for frame, step_id in sorted(steps):
        frames.setdefault(step_id, []).append(frame)
    return frames


def f1_score(tp: int, fp: int, fn: int) -> float:
    """Returns 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall; 0 without TP."""
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


def tolerant_f1(truth: Sequence[Step], predicted: Sequence[Step], tolerance: float) -> float | None:
    """Returns F1 in which predictions that are early by at most a tolerance are correct too.

    A prediction then matches a truth at most `tolerance` after it; an early one counts as one with
    delay 0. The rest is as in `match_steps`: as many matches as possible, and a prediction that is
    earlier than that uses up a truth.

    `tolerance` is in frames; 0 gives the F1 of `score_recording`. None without ground-truth steps.
    """
    # Frames are whole: one at most at frame + tolerance is at most at the whole part of that.
    later = [(math.floor(frame + tolerance), step_id) for frame, step_id in predicted]
    return f1_score(*_match(truth, later).counts()) if truth else None


def scored_steps(events: Iterable[Sequence[Any]], with_errors: bool = False) -> list[Step]:
    """Returns the (frame, step id) of those events (frame, step id, …) that are scored.

    POS, F1 and delay are about steps that were completed correctly. Reports of wrong parts (3k+1)
    are left out, unless the truth was read with its incorrect installations; `wrong_parts` scores
    them. That a part reported as wrong was taken off (3k+2 after 3k+1) is left out in any case:
    labels have no step for it.
    """
    kept: list[Step] = []
    reported: dict[int, int] = {}
    for frame, step_id in sorted((event[:2] for event in events), key=lambda event: event[0]):
        k, kind = divmod(step_id, 3)
        of_wrong = kind == 2 and reported.get(k) == 1
        if not of_wrong and (with_errors or kind != 1):
            kept.append((frame, step_id))
        reported[k] = kind
    return kept


def score_recording(
    truth: Sequence[Step],
    predicted: Sequence[Step],
    fps: float,
    visible_from: Mapping[Step, int | None] | None = None,
) -> dict[str, float | int | None]:
    """Scores one recording: POS, F1 and delay of IndustReal (WACV 2024), by `match_steps`.

    >>> scores = score_recording([(100, 0), (200, 3)], [(112, 0), (190, 3), (300, 5)], fps=10)
    >>> scores["pos"], scores["f1"], scores["f1_tolerant"], scores["delay_s"]
    (0.5, 0.5, 0.8, 1.2)

    Args:
        truth, predicted: rows (frame, step id, …) or an array (N, 2), in any order.
        fps: frames per second.
        visible_from: of true steps, the first frame that shows whether they are done right. Steps
            without one count from their completion.

    Returns:
        "pos", "f1", "f1_tolerant" (with `TOLERANCE_S`), "delay_s" and "delay_frames" (τ: mean over
        true positives of predicted − true time), "precision", "recall", "tp", "fp", "fn"; with
        `visible_from` "delay_visible_s", which counts from there on. None is what is undefined:
        pos, both f1 and recall without ground-truth steps, precision without predictions, the
        delays without TP.

    Raises:
        ValueError: see `truth_and_predicted` and `check_pairs`.
    """
    fps = rate(fps)
    truth, predicted = truth_and_predicted(truth, predicted)
    check_pairs(len(truth), len(predicted))
    matching = _match(truth, predicted)
    tp, fp, fn = matching.counts()
    delay = sum(matching.delays()) / tp if tp else None
    further: dict[str, float | None] = {}
    if visible_from is not None:
        late = [p - (visible_from.get((t, step)) or t) for step, t, p in matching.correct]
        further["delay_visible_s"] = sum(late) / tp / fps if tp else None
    return {
        "pos": order_similarity(truth, predicted),
        "f1": f1_score(tp, fp, fn) if truth else None,
        "f1_tolerant": tolerant_f1(truth, predicted, TOLERANCE_S * fps),
        "delay_s": None if delay is None else delay / fps,
        "delay_frames": delay,
        "precision": tp / (tp + fp) if predicted else None,
        "recall": tp / (tp + fn) if tp + fn else (0.0 if truth else None),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        **further,
    }


def summarise(recordings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the figures of a stream from the scores of its recordings.

    The headline figures (`headline.FIGURES`): those that are means, over the recordings in which
    they are defined, of which "undefined" counts the others, and the sums of the counts.
    "pooled_f1", "pooled_precision" and "pooled_recall" follow from the sums of TP, FP and FN.

    >>> found = {"a": [(12, 0)], "b": []}
    >>> scores = summarise({name: score_recording([(10, 0)], found[name], 10) for name in found})
    >>> scores["f1"], scores["delay_s"], scores["undefined"]["delay_s"]
    (0.5, 0.2, 1)

    Args:
        recordings: by name, what `score_recording` returns; means weigh all alike.
    """
    rows = recordings.values()
    result = headline.over_recordings(rows, statistics.fmean)
    undefined = {
        figure.key: sum(row[figure.key] is None for row in rows) for figure in headline.means(rows)
    }
    tp, fp, fn = (result[key] for key in ("tp", "fp", "fn"))
    truths = any(row["f1"] is not None for row in rows)
    return {
        **result,
        "pooled_f1": f1_score(tp, fp, fn) if truths else None,
        "pooled_precision": tp / (tp + fp) if tp + fp else None,
        "pooled_recall": tp / (tp + fn) if tp + fn else (0.0 if truths else None),
        "undefined": undefined,
    }
