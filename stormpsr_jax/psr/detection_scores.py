"""How good detections are, frame by frame: average precision of each class, and a confusion matrix.

Average precision is COCO's (101 points of recall), as pycocotools computes it. Boxes are centre x,
centre y, width, height in any one unit. Classes are those of prediction files: 1…S catalogued
states, S + 1 the error state.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import Errors, first_of, for_each, raise_all
from stormpsr_jax.recordings import box_files, find, predictions
from stormpsr_jax.recordings.boxes import Id, with_frame_numbers
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.procedure import Procedure

IOU = 0.5  # intersection over union from which on a box is found
SUFFIX = "_results_gt.csv"
OD_LABELS = "OD_labels.json"
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
        size: width and height of the pictures where boxes are in pixels and it is known.
    """

    frames: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    left_out: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    size: tuple[float, float] | None = None


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
    start = 0
    empty = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4))
    detected, true = [empty], [(empty[0], empty[1], empty[3])]
    for _, (detections, of_one) in sorted(recordings.items()):
        kept = predictions.take_rows(detections, ~np.isin(detections.frames, of_one.left_out))
        rows = ~np.isin(of_one.frames, of_one.left_out)
        detected.append((kept.frames + start, kept.classes, kept.confidences, kept.boxes))
        true.append((of_one.frames[rows] + start, of_one.classes[rows], of_one.boxes[rows]))
        start += 1 + max(int(its.frames.max(initial=-1)) for its in (kept, of_one))
    frames, classes, boxes = map(np.concatenate, zip(*true, strict=True))
    return (
        Detections(*map(np.concatenate, zip(*detected, strict=True))),
        TrueBoxes(frames, classes, boxes),
    )


# --- Files ----------------------------------------------------------------------------------------


def load(
    procedure: Procedure,
    asd: str | os.PathLike,
    true: str | os.PathLike | None = None,
    *,
    split: str | None = None,
    picture: tuple[float, float] | None = None,
) -> dict[str, tuple[Detections, TrueBoxes]]:
    """Reads detections and true boxes, and brings both to one unit; by recording, for `score`.

    Args:
        true: folder of true boxes; None if they lie beside the detections, as in IndustReal's
            published ones.
        split: of boxes below folders of splits, only these.
        picture: width and height in pixels, where files do not say it.

    Raises:
        ValueError: every error in every file; recordings with boxes but without detections and the
            reverse; detections in shares of pictures of unknown size.
    """
    where = os.fspath(asd if true is None else true)
    detection_files = predictions.find(asd, "--asd")
    box_files = _find(where, split)
    if not box_files:
        raise ValueError(f"{where}: has neither <rec>{SUFFIX} nor <rec>/{OD_LABELS}; see --boxes")
    raise_all(
        [
            f"{where}: no true boxes of {name}, which {asd} has"
            for name in detection_files.keys() - box_files
        ]
        + [
            f"{asd}: no detections of {n}, which {where} has"
            for n in box_files.keys() - detection_files
        ]
    )

    def pair(name: str) -> tuple[Detections, TrueBoxes]:
        place, others = detection_files[name], detection_files.keys() - {name}
        try:
            detected = predictions.read_detections(place, procedure, others)
            boxes_of = read(box_files[name], procedure)
            shares = len(detected.boxes) and detected.boxes[:, 2:].max() <= _MAX_SHARE
            if shares and len(boxes_of.boxes):
                if (size := boxes_of.size or picture) is None:
                    raise ValueError(
                        f"{place}: has boxes in shares of the picture, and the true ones are in "
                        "pixels; give the size of the pictures with --picture, such as "
                        "--picture=1280x720"
                    )
                boxes_of = dataclasses.replace(boxes_of, boxes=boxes_of.boxes / np.tile(size, 2))
            return detected, boxes_of
        except ValueError as error:
            raise Errors(first_of(error, box_files[name])) from error

    names = sorted(box_files)
    return dict(zip(names, for_each([(name,) for name in names], pair), strict=True))


def _find(path: str, split: str | None) -> dict[str, pathlib.Path]:
    """The files of true boxes, by recording; of a recording with both kinds the CSV file."""
    top, paths = folders.require(path, "--boxes"), dict[str, pathlib.Path]()
    for place in (folder / name for folder, _, names in folders.walk(top) for name in names):
        if place.name.endswith(SUFFIX):
            before = paths.get(name := place.name.removesuffix(SUFFIX))
            if before is not None and before.name.endswith(SUFFIX):
                raise ValueError(f"{place}: is in {before} too; keep one")
            paths[name] = place
        elif place.name == OD_LABELS and place.parent != top:
            if find.is_of(split, place.parent, top):
                paths.setdefault(place.parent.name, place)
    return paths


def read(path: pathlib.Path, procedure: Procedure) -> TrueBoxes:
    """Reads the true boxes of one recording, in pixels.

    `<rec>_results_gt.csv` has the columns of prediction files, but x, y are the box's upper left
    corner. `OD_labels.json` is COCO; `box_files.coco_classes` says what its categories are. A frame
    with a box of class 0 is left out: no detector can be right about it. ValueError has every
    error, with file and place.
    """
    size = None
    if path.name == OD_LABELS:
        data = files.read_json(path)
        classes = box_files.coco_classes(data, path, procedure)

        def translate(category: Id, place: str) -> int:
            if category not in classes:
                raise ValueError(f"{place}: {files.shorten(category)} is not in categories")
            return classes[category]

        pictures = box_files.coco(data, path, translate)
        if len(sizes := {picture.size for picture in pictures}) > 1:
            raise ValueError(f"{path}: images: pictures of several sizes, which no recording has")
        (size,) = sizes or (None,)
        rows = [(f, box) for f, picture in with_frame_numbers(pictures) for box in picture.boxes]
        if rows and size is None:
            raise ValueError(f"{path}: images: have no width and height")
        table = np.array([(f, box.category, *box.at) for f, box in rows]).reshape(-1, 6)
        frames, labels, at = table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:]
    else:
        given = predictions.read_detections(path, procedure)
        frames, labels, at = given.frames, given.classes, given.boxes.copy()
        at[:, :2] += at[:, 2:] / 2
    known = labels > 0
    return TrueBoxes(frames[known], labels[known], at[known], np.unique(frames[~known]), size)
