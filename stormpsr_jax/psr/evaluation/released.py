"""Protocol `released`: what the published evaluation code computes, number for number.

The code that came with the STORM-PSR paper (arXiv 2510.12385) departs from the paper's equations.
Published figures came from it, so this module computes what it computes, quirks included;
`docs/psr.md` lists them beside protocol `paper` (`accumulate.py`, `metrics.py`). Nothing else
in the package may depend on this module's choices.

An event is (frame, step id, confidence), as `released_decoding.py` has it.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.evaluation.released_decoding import Event, decode
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure, Variant
from stormpsr_jax.psr.scoring import headline
from stormpsr_jax.psr.scoring.metrics import Step, check_pairs, edit_distance
from stormpsr_jax.psr.streams import streams
from stormpsr_jax.psr.streams.rules import Settings

# Stands for "no such event" in the matching of repeats. Nearer than infinity, so that it can win.
_FILLER = 1e9
_COMPUTED = ("pos", "f1", "delay_s", "tp", "fp", "fn")
# The headline figures that the released code does not compute.
_UNDEFINED = {figure.key: None for figure in headline.of(()) if figure.key not in _COMPUTED}


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
        raise ValueError("no ground-truth steps in PSR_labels.csv: take --protocol=paper")
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
    the other streams. The events are those before it.

    Raises:
        ValueError: as `decode` and `score_recording`.
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
