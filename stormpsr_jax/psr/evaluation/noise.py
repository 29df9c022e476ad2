"""How detections are wrong: how often anything is seen, for how long nothing, and what then is.

Figures of steps hang on this. A threshold filters errors that are short and unsure, but not those
that are long and sure; so figures under one kind of noise say little about another. All that is
needed are detections and the true states.

A frame is seen if its most confident row is above the floor and is not background. It is judged if
the true state has a class (an uncatalogued one has none), and right if that is the row's class. A
incorrect part (-1) counts as absent where parts are compared.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure

GAP_S = 10.0  # a gap longer than this is a long one
RUN = 8  # wrong frames in a row that are a long run
NEAR_S = 2.0  # from a change of the state
CONFIDENCES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# What a wrong frame shows; each is of one kind.
KINDS = {
    "error_state": "the error state without an incorrect installation",
    "wrong_part_right": "an incorrect installation as correct",
    "too_many": "parts too many",
    "too_few": "parts too few",
    "too_many_and_few": "parts too many and parts too few",
    "wrong_part_absent": "an incorrect installation as absent, and no other error",
}
Share = dict[str, Any]


class _Frames(NamedTuple):
    """The most confident rows of a recording's frames; background is left out.

    Attributes:
        numbers, classes, confidences: (N,) of the rows.
        true: (N,) classes of the true states, 0 without one.
        near: (N,) whether the true state changes within NEAR_S of the frame.
        sits_wrong: (N,) whether a part does.
        shown_right: (N,) whether the row shows such a part as right.
        kinds: (N,) keys of KINDS, as if all were wrong.
    """

    numbers: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray
    true: np.ndarray
    near: np.ndarray
    sits_wrong: np.ndarray
    shown_right: np.ndarray
    kinds: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(N,) whether the true state has a class, and the row another one."""
        return (self.true > 0) & (self.true != self.classes)


def measure(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    confidence: float = 0.5,
) -> dict[str, Any]:
    """Measures the noise of detections.

    A recording lasts from the first to the last frame that its labels or detections name; what
    comes after these is not known.

    Args:
        confidence: floor; a row at or below it shows nothing.

    Returns:
        Shares are {"count", "of", "share"}, in frames unless said otherwise, with a share of None
        of nothing. "seen" is of all frames, "gaps" are the "time" in gaps of more than GAP_S
        seconds, their "number" and the "longest_s". Of seen frames: "uncatalogued" truths,
        "catalogued_right" of those whose true state is catalogued, "says_error" of all and
        "wrong_part_says_error" and "wrong_part_right" of those in which a part is incorrect. Of
        judged ones "wrong"; and of these "kinds", by key of `KINDS`, "long_runs" of RUN wrong
        frames in a row or more, "near_change" and the median "wrong_confidence".
        "wrong_confidence_any" and the rows of "by_confidence" are of frames at any confidence.

    Raises:
        ValueError: a confidence outside 0…1, a recording without states.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"--confidence={confidence} is not in 0…1")
    fps = procedure.fps
    found = {name: _frames(procedure, r, fps) for name, r in recordings.items()}
    seen = {
        name: _Frames(*(column[frames.confidences > confidence] for column in frames))
        for name, frames in found.items()
    }
    gaps = np.concatenate([_gaps(r, seen[name].numbers) for name, r in recordings.items()])
    runs = np.concatenate([_run_lengths(frames) for frames in seen.values()])
    num_frames = int(sum(gaps)) + sum(len(frames.numbers) for frames in seen.values())
    all_rows, rows = _joined(found.values()), _joined(seen.values())
    long_gaps = gaps[gaps > GAP_S * fps]
    says_error = rows.classes == procedure.error_class
    catalogued = (rows.true > 0) & (rows.true < procedure.error_class)
    wrong = rows.wrong
    return {
        "procedure": procedure.name,
        "fps": fps,
        "confidence": confidence,
        "recordings": len(recordings),
        "seen": _share(len(rows.numbers), num_frames),
        "gaps": {
            "time": _share(int(long_gaps.sum()), num_frames),
            "number": len(long_gaps),
            "longest_s": float(gaps.max()) / fps,
        },
        "uncatalogued": _of(rows.true == 0),
        "catalogued_right": _of((rows.true == rows.classes)[catalogued]),
        "says_error": _of(says_error),
        "wrong_part_says_error": _of(says_error[rows.sits_wrong]),
        "wrong_part_right": _of(rows.shown_right[rows.sits_wrong]),
        "wrong": _share(int(wrong.sum()), int((rows.true > 0).sum())),
        "kinds": {key: _of((rows.kinds == key)[wrong]) for key in KINDS},
        "long_runs": _share(int(runs[runs >= RUN].sum()), int(runs.sum())),
        "near_change": _of(rows.near[wrong]),
        "wrong_confidence": _median(rows.confidences[wrong]),
        "wrong_confidence_any": _median(all_rows.confidences[all_rows.wrong]),
        "by_confidence": _by_confidence(all_rows),
    }


def table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row per figure of `measure`, for `tables.format_rows`."""
    floor = f"{result['confidence']:g}"
    gaps = result["gaps"]
    shares = {
        f"frames with a detection above {floor}": result["seen"],
        f"time in gaps of more than {GAP_S:g} s without one": gaps["time"],
        "catalogued state, right": result["catalogued_right"],
        "state outside the catalogue": result["uncatalogued"],
        "error reported at all": result["says_error"],
        "error reported during an incorrect installation": result["wrong_part_says_error"],
        "incorrect installation shown as correct": result["wrong_part_right"],
        "wrong frames": result["wrong"],
        f"of these in runs of {RUN} or more": result["long_runs"],
        f"of these within {NEAR_S:g} s of a change": result["near_change"],
        **{f"of these show {KINDS[key]}": share for key, share in result["kinds"].items()},
    }
    rows = [
        {"figure": name, "value": share["share"], "frames": share["count"], "of": share["of"]}
        for name, share in shares.items()
    ]
    values = {
        "longest gap, seconds": gaps["longest_s"],
        f"median confidence when wrong, above {floor}": result["wrong_confidence"],
        "median confidence when wrong, at any": result["wrong_confidence_any"],
    }
    return rows + [
        {"figure": name, "value": value, "frames": None, "of": None}
        for name, value in values.items()
    ]


def confidence_table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row per interval of confidences: how many judged frames, and how many are right."""
    return [
        {
            "confidence": f"{one['low']:g}–{one['high']:g}",
            "mean": one["confidence"],
            "right": one["right"]["share"],
            "frames": one["right"]["of"],
        }
        for one in result["by_confidence"]
    ]


def _frames(procedure: Procedure, r: LabelledPredictions, fps: float) -> _Frames:
    rows = r.detections
    assert rows is not None  # nothing else is read
    tops = rows.tops()
    tops = tops[rows.classes[tops] > 0]
    numbers, classes = rows.frames[tops], rows.classes[tops]
    states = r.states_at(numbers)
    # Labels may have a row for each frame.
    changes = r.frames[1:][(r.states[1:] != r.states[:-1]).any(axis=1)]
    # The first change from NEAR_S before a frame on is no later than NEAR_S after it.
    reach = NEAR_S * fps
    before = np.searchsorted(changes, numbers - reach)
    near = before < np.searchsorted(changes, numbers + reach, "right")
    # The error state shows no part.
    catalogue = np.vstack([procedure.states, np.zeros_like(procedure.states[:1])])
    shown, there, sits_wrong = catalogue[classes - 1] == 1, states == 1, states == -1
    shown_right = (sits_wrong & shown).any(axis=1)
    many, few = (shown & ~there).any(axis=1), (there & ~shown).any(axis=1)
    conditions = {
        "error_state": classes == procedure.error_class,
        "wrong_part_right": shown_right,
        "too_many_and_few": many & few,
        "too_many": many,
        "too_few": few,
    }
    return _Frames(
        *(numbers, classes, rows.confidences[tops], procedure.state_classes(states), near),
        *(sits_wrong.any(axis=1), shown_right),
        np.select(list(conditions.values()), list(conditions), "wrong_part_absent"),
    )


def _gaps(r: LabelledPredictions, seen: np.ndarray) -> np.ndarray:
    """How many frames without a detection lie before, between and after the seen ones."""
    assert r.detections is not None
    named = [r.frames, r.detections.frames, np.array([f for f, _ in r.truth], np.int64)]
    every = np.concatenate(named)
    return np.diff(np.concatenate(([every.min() - 1], seen, [every.max() + 1]))) - 1


def _run_lengths(frames: _Frames) -> np.ndarray:
    """Lengths of the runs of wrong frames without a frame between, seen or not."""
    numbers = frames.numbers[frames.wrong]
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    bounds = np.concatenate(([0], breaks, [len(numbers)]))
    return np.diff(bounds)


def _joined(parts: Iterable[_Frames]) -> _Frames:
    return _Frames(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _by_confidence(frames: _Frames) -> list[dict[str, Any]]:
    judged = frames.true > 0
    confidences = frames.confidences[judged]
    right = (frames.classes == frames.true)[judged]
    # Each interval holds its upper bound, the first also 0.
    places = np.maximum(np.searchsorted(CONFIDENCES, confidences), 1)
    rows = []
    for i, (low, high) in enumerate(itertools.pairwise(CONFIDENCES), start=1):
        inside = places == i
        mean = float(confidences[inside].mean()) if inside.any() else None
        rows.append({"low": low, "high": high, "confidence": mean, "right": _of(right[inside])})
    return rows


def _of(hits: np.ndarray) -> Share:
    return _share(int(hits.sum()), len(hits))


def _share(count: int, total: int) -> Share:
    return {"count": count, "of": total, "share": count / total if total else None}


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None
