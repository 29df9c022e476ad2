"""Segmental metrics and frame accuracy, for those who compare with action segmentation.

The class of a frame is the state of all components: that of the labels, and the one that a stream
has reported by then. Both begin in the variant's initial state, a class like any other; nothing is
background. Frames go from 0 to the last one of which labels or predictions say anything.

Accuracy is the share of frames with the true class. F1@k is that of Lea et al., "Temporal
Convolutional Networks for Action Segmentation and Detection" (CVPR 2017): a segment is right if its
overlap (intersection over union) with a true one of its class is at least k %, once for each true
one. The edit score is 1 less Levenshtein's distance of the orders of segments (substitution 1) by
the longer length. Over recordings accuracy and F1@k are pooled, and the edit score is a mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.scoring import headline

OVERLAPS = (10, 25, 50)  # per cent


def score_recording(
    truth: Iterable[labels.Step],
    predicted: Iterable[labels.Step],
    initial_state: Sequence[int] | str,
    last: int,
) -> dict[str, Any]:
    """Scores the frames 0…`last` of a recording.

    >>> from stormpsr_jax import psr
    >>> scores = psr.score_segments([(40, 0), (70, 3)], [(50, 0)], "00", 99)
    >>> scores["accuracy"], scores["edit"], scores["f1@25"]
    (0.6, 0.6666666666666667, 0.8)

    Args:
        truth, predicted: (frame, step id).
        initial_state: (K,) before the first step, or a text such as "01".

    Returns:
        "accuracy", "edit" and "f1@10", …, in 0…1, and what sums over recordings need: "frames",
        "correct" (frames), "tp" (for each of `OVERLAPS`), and "segments" (true and found).
    """
    (true, a), (predicted, b) = (_runs(steps, initial_state, last) for steps in (truth, predicted))
    same = (a[:, None] == b).all(axis=2)  # (true, found segments)
    ends = np.minimum(true[1:, None], predicted[1:])
    common = np.maximum(ends - np.maximum(true[:-1, None], predicted[:-1]), 0) * same
    share = common / (np.diff(true)[:, None] + np.diff(predicted) - common)
    best = share.argmax(axis=0)  # each goes by the true one that it overlaps most
    tp = [len(np.unique(best[share.max(axis=0) >= k / 100])) for k in OVERLAPS]
    row = {"frames": last + 1, "correct": int(common.sum()), "tp": tp, "segments": [*same.shape]}
    return {**_pooled([row]), "edit": 1 - _distance(same) / max(same.shape), **row}


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the figures of a stream from what `score_recording` gives for its recordings."""
    rows = list(rows)
    return {**_pooled(rows), "edit": headline.exact_mean([row["edit"] for row in rows])}


def table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per stream of metrics.json that has such figures."""
    streams = result["streams"].items()
    return [{"stream": stream, **s["segments"]} for stream, s in streams if "segments" in s]


def _runs(
    steps: Iterable[labels.Step], initial_state: Sequence[int] | str, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """The starts of the segments and the end of the last one (M + 1,), and the states (M, K)."""
    frames, states = labels.steps_to_states(steps, initial_state, -1)
    bounds = np.clip(np.append(frames, last + 1), 0, last + 1)
    kept = np.diff(bounds) > 0
    return np.append(bounds[:-1][kept], last + 1), states[kept]


def _pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    correct, frames = (sum(row[key] for row in rows) for key in ("correct", "frames"))
    tp = np.sum([row["tp"] for row in rows], axis=0).tolist()
    num = sum(sum(row["segments"]) for row in rows)
    f1 = {f"f1@{k}": 2 * right / num for k, right in zip(OVERLAPS, tp, strict=True)}
    return {"accuracy": correct / frames, **f1}


def _distance(same: np.ndarray) -> int:
    """Levenshtein's distance of two sequences, of which elements (M, N) are the same."""
    row = list(range(same.shape[1] + 1))
    for i, equal in enumerate(same.tolist(), 1):
        corner, row[0] = row[0], i
        for j, one in enumerate(equal, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (not one))
    return row[-1]
