"""Whether the boxes of a folder of clip shards fit its step labels.

A class that is one off, or boxes of other frames, make no file that is wrong in itself. The step
labels tell it, and so does a look at a few boxes.
"""

import numpy as np

from data_prep.checking.folder import RENDERS, FolderCheck
from data_prep.notes import agree


def agreement(checked: FolderCheck) -> str:
    """How many boxes, but for those of renders, fit the step labels; "" without boxes."""
    of_boxes, of_states = _classes(checked)
    if not len(of_boxes):
        return ""
    fitting = int(agree(of_boxes, of_states, checked.procedure).sum())
    return f"{fitting:,} of {len(of_boxes):,} boxes agree with the step labels of their frames"


def find_shift(checked: FolderCheck) -> list[str]:
    """Returns the problem, if there is one: classes one higher or lower fit most labels better."""
    of_boxes, of_states = _classes(checked)
    fitting = agree(of_boxes, of_states, checked.procedure).sum()
    for by, word in ((1, "low"), (-1, "high")):
        shifted = agree(of_boxes + by, of_states, checked.procedure).sum()
        if shifted > max(fitting, len(of_boxes) / 2):
            return [
                f"{fitting:,} of {len(of_boxes):,} boxes agree with the step labels, and "
                f"{shifted:,} would if each class were one {'higher' if by > 0 else 'lower'}: the "
                f"classes are one too {word}: correct the file of boxes, then run the same "
                "data_prep command with --remake"
            ]
    return []


def _classes(checked: FolderCheck) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes (M,) of all boxes that are no renders, and of the states beside them."""
    pairs = [np.zeros((2, 0), np.int64)]
    for split, recording in checked.recordings():
        if split != RENDERS:
            boxed = recording.classes >= 0
            of_states = checked.procedure.state_classes(recording.states[boxed])
            pairs.append(np.stack([recording.classes[boxed], of_states]))
    of_boxes, of_states = np.concatenate(pairs, axis=1)
    return of_boxes, of_states
