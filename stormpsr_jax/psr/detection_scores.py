"""How good detections are, frame by frame: average precision of each class, and a confusion matrix.

Average precision is COCO's (101 points of recall), as pycocotools computes it. Boxes are centre x,
centre y, width, height in any one unit. Classes are those of prediction files: 1…S catalogued
states, S + 1 the error state.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from stormpsr_jax.base.errors import for_each, raise_all
from stormpsr_jax.recordings import predictions
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.procedure import Procedure

IOU = 0.5  # intersection over union from which on a box is found
SUFFIX = "_results_gt.csv"
_MAX_SHARE = 2  # a box wider or higher than this is in pixels


@dataclasses.dataclass(frozen=True)
class TrueBoxes:
    """The true boxes of one recording.

    Attributes:
        frames: (N,) int64; several boxes of a frame are several rows.
        classes: (N,) int64 in 1…S+1.
        boxes: (N, 4) float64.
        left_out: (L,) int64, frames in which no detection counts: what they show is not known, or
            no class has it. In all other frames a detection that finds no box is wrong.
    """

    frames: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    left_out: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns intersection over union (N, M) of boxes (N, 4) and others (M, 4)."""
    half, other_half = boxes[:, None, 2:] / 2, others[None, :, 2:] / 2
    low = np.maximum(boxes[:, None, :2] - half, others[None, :, :2] - other_half)
    high = np.minimum(boxes[:, None, :2] + half, others[None, :, :2] + other_half)
    inner = np.maximum(high - low, 0).prod(-1)
    union = boxes[:, None, 2:].prod(-1) + others[None, :, 2:].prod(-1) - inner
    return np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)


def average_precisions(detections: Detections, true: TrueBoxes) -> dict[int, float]:
    """Returns the average precision, in 0…1, of each class that occurs among the true boxes.

    Both are of all recordings, whose frames have numbers of their own; class 0 is none. `left_out`
    is left to the caller. A detection overlaps the true box of its class by `IOU` at least.
    """
    result = {}
    for label in np.unique(true.classes).tolist():
        own = np.flatnonzero(detections.classes == label)
        own = own[np.argsort(-detections.confidences[own], kind="stable")]
        boxes = np.flatnonzero(true.classes == label)
        hits = np.array([box is not None for box in _match(detections, true, own, boxes)], bool)
        right = hits.cumsum()
        recall = right / len(boxes)
        precision = right / np.arange(1, len(right) + 1)
        # Precision at a recall: the best reached there or beyond; 0 where it is never reached.
        beyond = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        points = np.searchsorted(recall, np.linspace(0, 1, 101))
        result[label] = float(beyond[points].mean())
    return result


def _match(
    detected: Detections, true: TrueBoxes, detections: np.ndarray, boxes: np.ndarray
) -> list[int | None]:
    """The box that each detection finds, in their order; a box is found once. All are rows."""
    left: dict[int, list[int]] = {}
    for box in boxes.tolist():
        left.setdefault(int(true.frames[box]), []).append(box)
    result = []
    for detection in detections.tolist():
        free, best = left.get(int(detected.frames[detection]), []), None
        if free:
            shares = overlaps(detected.boxes[detection][None], true.boxes[free])[0]
            last = len(free) - 1 - int(shares[::-1].argmax())  # of equals, as in pycocotools
            if shares[last] >= IOU:
                best = free.pop(last)
        result.append(best)
    return result


def confusion(
    detected: Detections, true: TrueBoxes, num_classes: int, confidence: float = 0.5
) -> np.ndarray:
    """Counts what was said of each true box: the surest detection on it, of whatever class.

    Arguments are as of `average_precisions`; only detections above `confidence` count, and
    `num_classes` is S + 1.

    Returns:
        (S + 2, S + 2) int64: true class by detected class; row 0 are detections of nothing, column
        0 boxes that were missed.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    sure = np.flatnonzero((detected.confidences > confidence) & (detected.classes > 0))
    sure = sure[np.argsort(-detected.confidences[sure], kind="stable")]
    matched = _match(detected, true, sure, np.arange(len(true.frames)))
    for detection, box in zip(sure.tolist(), matched, strict=True):
        counts[0 if box is None else true.classes[box], detected.classes[detection]] += 1
    missed = np.setdiff1d(np.arange(len(true.frames)), [box for box in matched if box is not None])
    np.add.at(counts[:, 0], true.classes[missed], 1)
    return counts


def score(
    procedure: Procedure,
    recordings: Mapping[str, tuple[Detections, TrueBoxes]],
    confidence: float = 0.5,
) -> dict[str, Any]:
    """Scores the detections of a set of recordings.

    Frames of a recording that its true boxes leave out do not count at all.

    Args:
        procedure: says what the classes are.
        recordings: by name, detections and true boxes in one unit.
        confidence: floor of the confusion matrix.

    Returns:
        The content of detections.json: `iou`, `confidence`, names of the `recordings`, number of
        `boxes`; `map`, the mean
        average precision over the classes that occur in the frames that have a box, `map_all` in
        all frames (None without boxes); `classes`, for each with its `class`, `name`, number of
        `boxes`, `ap` and `ap_all` (None where it does not occur), and `right`, the share of its
        boxes of which the class was said; `confusion`, lists of `confusion`, and its `names`.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence={confidence} is not in 0…1")
    detected, true = _joined(recordings)
    boxed = np.isin(detected.frames, true.frames)
    near = average_precisions(predictions.take_rows(detected, boxed), true)
    everywhere = average_precisions(detected, true)
    counts = confusion(detected, true, procedure.error_class, confidence)
    names = ["none", *procedure.to_json()["states"], "error state"]
    classes = []
    for label in range(1, procedure.error_class + 1):
        num = int((true.classes == label).sum())
        classes.append(
            {
                "class": label,
                "name": names[label],
                "boxes": num,
                "ap": near.get(label),
                "ap_all": everywhere.get(label),
                "right": int(counts[label, label]) / num if num else None,
            }
        )
    return {
        "iou": IOU,
        "confidence": confidence,
        "recordings": sorted(recordings),
        "boxes": len(true.frames),
        "map": float(np.mean(list(near.values()))) if near else None,
        "map_all": float(np.mean(list(everywhere.values()))) if everywhere else None,
        "classes": classes,
        "names": names,
        "confusion": counts.tolist(),
    }


def tables_of(result: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Returns the rows of three tables of a result: the means, the classes, what was confused.

    The last has a row for each count of the confusion matrix beside its diagonal, largest first.
    """
    means = {"recordings": len(result["recordings"])}
    means |= {key: result[key] for key in ("boxes", "map", "map_all")}
    classes = [row for row in result["classes"] if row["boxes"]]
    names, counts = result["names"], np.array(result["confusion"])
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")
    pairs = [np.unravel_index(i, counts.shape) for i in order[: np.count_nonzero(counts)]]
    confused = [{"true": names[t], "said": names[s], "boxes": int(counts[t, s])} for t, s in pairs]
    return [[means], classes, confused]


def _joined(
    recordings: Mapping[str, tuple[Detections, TrueBoxes]],
) -> tuple[Detections, TrueBoxes]:
    """All recordings as one, frames counted on; without the frames that are left out."""
    start, none = 0, np.zeros(0, np.int64)
    detected, true = [(none, none, np.zeros(0), np.zeros((0, 4)))], [(none, none, np.zeros((0, 4)))]
    for _, (detections, boxes) in sorted(recordings.items()):
        kept, rows = (~np.isin(its.frames, boxes.left_out) for its in (detections, boxes))
        frames, *others = vars(predictions.take_rows(detections, kept)).values()
        detected.append((frames + start, *others))
        true.append((boxes.frames[rows] + start, boxes.classes[rows], boxes.boxes[rows]))
        start += 1 + max(int(its.frames.max(initial=-1)) for its in (detections, boxes))
    return (
        Detections(*map(np.concatenate, zip(*detected, strict=True))),
        TrueBoxes(*map(np.concatenate, zip(*true, strict=True))),
    )


# --- Files ----------------------------------------------------------------------------------------


def load(
    procedure: Procedure,
    asd: str | os.PathLike,
    true: str | os.PathLike | None = None,
    *,
    picture: tuple[float, float] | None = None,
) -> dict[str, tuple[Detections, TrueBoxes]]:
    """Reads detections and true boxes, by recording, for `score`.

    `<rec>_results_gt.csv` has the columns of prediction files, but x, y are the box's upper left
    corner. A frame with a box of class 0 is left out: no detector can be right about it.

    Args:
        true: folder of true boxes; None if they lie beside the detections, as in IndustReal's
            published ones.
        picture: width and height in pixels, where detections are in shares of the picture.

    Raises:
        ValueError: every error in every file; recordings with boxes but without detections and the
            reverse; detections in shares of pictures of unknown size.
    """
    where = os.fspath(asd if true is None else true)
    detection_files = predictions.find(asd, "--asd")
    box_files = predictions.find(where, "--boxes", SUFFIX)
    if not box_files:
        raise ValueError(f"{where}: has no <rec>{SUFFIX}; see --boxes")
    raise_all(
        [
            f"{where}: no true boxes of {name}, which {asd} has"
            if name in detection_files
            else f"{asd}: no detections of {name}, which {where} has"
            for name in sorted(detection_files.keys() ^ box_files.keys())
        ]
    )

    def read(name: str) -> tuple[Detections, TrueBoxes]:
        others = box_files.keys() - {name}
        detected = predictions.read_detections(detection_files[name], procedure, others)
        given = predictions.read_detections(box_files[name], procedure, others)
        boxes = given.boxes + np.pad(given.boxes[:, 2:] / 2, ((0, 0), (0, 2)))
        shares = len(detected.boxes) and detected.boxes[:, 2:].max() <= _MAX_SHARE
        if shares and len(boxes):
            if picture is None:
                raise ValueError(
                    f"{detection_files[name]}: has boxes in shares of the picture, and the true "
                    "ones are in pixels; give the size of the pictures with --picture, such as "
                    "--picture=1280x720"
                )
            boxes /= np.tile(picture, 2)
        rows = given.classes > 0
        left_out = np.unique(given.frames[~rows])
        return detected, TrueBoxes(given.frames[rows], given.classes[rows], boxes[rows], left_out)

    names = sorted(box_files)
    return dict(zip(names, for_each([(name,) for name in names], read), strict=True))
