"""True boxes in files: `<rec>_results_gt.csv` and `OD_labels.json`, both of IndustReal."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import first_of, raise_all
from stormpsr_jax.psr.files import coco, label_files, predictions
from stormpsr_jax.psr.files.predictions import Detections
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring.detection_scores import TrueBoxes

SUFFIX = "_results_gt.csv"
OD_LABELS = "OD_labels.json"
_ERRORS = ("error", "error_state")
_MAX_SHARE = 2  # a box wider or higher than this is in pixels


def load(
    procedure: Procedure,
    asd: str | os.PathLike,
    boxes: str | os.PathLike | None = None,
    *,
    split: str | None = None,
    picture: tuple[float, float] | None = None,
) -> dict[str, tuple[Detections, TrueBoxes]]:
    """Reads detections and true boxes, and brings both to one unit; by recording, for `score`.

    Args:
        boxes: folder or zip file of true boxes, or a folder of zip files; None if they lie beside
            the detections, as in IndustReal's published ones.
        split: of boxes below folders (or in zip files) of splits, only these.
        picture: width and height in pixels, where files do not say it.

    Raises:
        ValueError: every error in every file; recordings with boxes but without detections and the
            reverse; detections in shares of pictures of unknown size.
    """
    where = asd if boxes is None else boxes
    with contextlib.ExitStack() as stack:
        found = predictions.find(stack.enter_context(predictions.opened(asd, "--asd")))
        # Zip files of recordings lie beside those of detections, two of which have true boxes too.
        wanted = OD_LABELS.__eq__ if os.path.isdir(where) else _is_wanted
        true = _find(stack.enter_context(label_files.opened(where, split, wanted)), split)
        if not true:
            raise ValueError(
                f"{where}: has neither <rec>{SUFFIX} nor <rec>/{OD_LABELS}; see --boxes"
            )
        raise_all(
            [f"{where}: no true boxes of {name}, which {asd} has" for name in found.keys() - true]
            + [f"{asd}: no detections of {name}, which {where} has" for name in true.keys() - found]
        )
        result, errors = {}, []
        for name in sorted(true):
            try:
                pair = (
                    predictions.read_detections(found[name], procedure, found.keys() - {name}),
                    read(true[name], procedure),
                )
                result[name] = _in_one_unit(*pair, picture, found[name])
            except ValueError as error:
                errors += first_of(error, true[name])
        raise_all(errors)
    return result


def _is_wanted(name: str) -> bool:
    return name == OD_LABELS or name.endswith(SUFFIX)


def _find(folder: pathlib.Path, split: str | None) -> dict[str, pathlib.Path]:
    """The files of true boxes, by recording; of a recording with both kinds the CSV file."""
    places = [folder]
    places += [folder / name for name in label_files.SPLITS if split in (None, name)]
    of_coco = {
        path.parent.name: path
        for place in places
        if place.is_dir()
        for path in sorted(place.glob(f"*/{OD_LABELS}"))
    }
    return {**of_coco, **predictions.find(folder, SUFFIX)}


def read(path: pathlib.Path, procedure: Procedure) -> TrueBoxes:
    """Reads the true boxes of one recording, in pixels.

    `<rec>_results_gt.csv` has the columns of prediction files, but x, y are the box's upper left
    corner. `OD_labels.json` is COCO; `coco_classes` says what its categories are.

    Raises:
        ValueError: every error, with file and place.
    """
    if path.name == OD_LABELS:
        return _read_coco(path, procedure)
    rows = predictions.read_detections(path, procedure)
    boxes = np.concatenate([rows.boxes[:, :2] + rows.boxes[:, 2:] / 2, rows.boxes[:, 2:]], axis=1)
    return _known(rows.frames, rows.classes, boxes, None)


def coco_classes(
    names: Mapping[coco.Id, str], procedure: Procedure, place: str
) -> dict[coco.Id, int]:
    """Returns the class of each category id of a COCO file, given their names.

    A category is named after the digits of a state, "background" or "error_state". IndustReal's own
    files, though, name class n as n + 1 (1 "background" … S + 2 "error_state"), while the ids of
    their boxes are classes: with such a table a class is its id.

    Raises:
        ValueError: a name that is none of these, or a table that is shifted in part.
    """
    states = {state: c for c, state in enumerate(procedure.to_json()["states"], start=1)}
    classes = {}
    for key, name in names.items():
        if name in _ERRORS:
            classes[key] = procedure.error_class
        elif name == "background":
            classes[key] = 0
        elif len(name) == procedure.num_components and set(name) <= {"0", "1"}:
            classes[key] = states.get(name, 0)
        else:
            raise ValueError(
                f"{place}: categories: {files.shorten(name)} is neither a state of procedure "
                f"{procedure.name!r} nor background or error_state"
            )
    if names.get(1) == "background" and names.get(procedure.error_class + 1) in _ERRORS:
        if any(key != c + 1 for key, c in classes.items()):
            raise ValueError(
                f"{place}: categories: background is 1, but not every state is one above its "
                f"class in procedure {procedure.name!r}"
            )
        return {c: c for c in range(procedure.error_class + 1)}
    return classes


def _read_coco(path: pathlib.Path, procedure: Procedure) -> TrueBoxes:
    data = files.read_json(path)
    names = {key: name for key, (_, name) in coco.categories(data, path).items()}
    classes, images = coco_classes(names, procedure, str(path)), coco.images(data, path)

    def convert(box: coco.Box) -> tuple[float, ...]:
        box.shares()  # of a picture of known size
        x, y, w, h = box.corner
        return box.frame(), classes[box.category], x + w / 2, y + h / 2, w, h

    found = coco.boxes(data, path, images, classes, convert)
    rows = np.array(found, np.float64).reshape(-1, 6)
    sizes = {image.size for image in images.values()}
    if len(sizes) > 1:
        raise ValueError(f"{path}: images: pictures of several sizes, which no recording has")
    return _known(
        rows[:, 0].astype(np.int64),
        rows[:, 1].astype(np.int64),
        rows[:, 2:],
        sizes.pop() if sizes else None,
    )


def _known(
    frames: np.ndarray,
    classes: np.ndarray,
    boxes: np.ndarray,
    size: tuple[float, float] | None,
) -> TrueBoxes:
    """Leaves out frames with a box of class 0, which no detector can be right about."""
    known = classes > 0
    return TrueBoxes(frames[known], classes[known], boxes[known], np.unique(frames[~known]), size)


def _in_one_unit(
    found: Detections,
    true: TrueBoxes,
    picture: tuple[float, float] | None,
    path: pathlib.Path,
) -> tuple[Detections, TrueBoxes]:
    if not len(found.boxes) or not len(true.boxes) or found.boxes[:, 2:].max() > _MAX_SHARE:
        return found, true
    size = true.size or picture
    if size is None:
        raise ValueError(
            f"{path}: has boxes in shares of the picture, and the true ones are in pixels; give "
            "the size of the pictures with --picture, such as --picture=1280x720"
        )
    return found, dataclasses.replace(true, boxes=true.boxes / np.tile(size, 2))
