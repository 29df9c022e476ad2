"""A picture of each part in its place, which a page shows where it asks to see that part."""

import numpy as np

from stormpsr_jax.serving.files.overlay import thumbnail
from stormpsr_jax.stages.data import Data

_LONGEST = 240  # pixels of a side
_MARGIN = 1.2  # of the box


def of_training(data: Data) -> list[bytes | None]:
    """Returns a JPEG by component: of the training frames in which it was put on last, the best.

    That is the one with most of the product in view, then the largest. It is cut out with the
    product's box, so that a model tells nothing else of who and what was filmed; without a box, or
    where a part is incorrect, no frame counts. Without any all are None.
    """
    found: list[bytes | None] = [None] * data.procedure.num_components
    if "train" not in data.recordings():
        return found
    source = data.boxed_source("train")
    best: dict[int, tuple[float, str, int]] = {}
    for name, labelled in source.recordings.items():
        states = labelled.states
        put_on, changes = np.zeros(states.shape, bool), np.zeros(len(states), int)
        put_on[1:] = (states[1:] == 1) & (states[:-1] != 1)
        changes[1:] = (states[1:] != states[:-1]).any(axis=1)
        since = np.cumsum(changes)
        shows = put_on[np.searchsorted(since, since)]
        shows[(labelled.classes < 0) | (states < 0).any(axis=1)] = False
        area = np.nan_to_num(labelled.boxes[:, 2:].prod(axis=1))
        score = np.nan_to_num(labelled.visible) + area / 1000
        for k in np.flatnonzero(shows.any(axis=0)).tolist():
            row = int(np.where(shows[:, k], score, -1).argmax())
            best[k] = max(best.get(k, (-1.0, "", 0)), (float(score[row]), name, row))
    for k, (_, name, row) in best.items():
        labelled = source.recordings[name]
        picture = source.frames(name, [labelled.first_frame + row])[0]
        found[k] = thumbnail(_cut_out(picture, labelled.boxes[row]), _LONGEST)
    return found


def _cut_out(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    size = np.array(picture.shape[1::-1])
    middle, half = box[:2] * size, _MARGIN * box[2:] * size / 2
    x0, y0 = np.clip(np.floor(middle - half), 0, size - 1).astype(int)
    x1, y1 = np.clip(np.ceil(middle + half), (x0 + 1, y0 + 1), size).astype(int)
    return picture[y0:y1, x0:x1]
