"""The boxes of a folder of clip shards by state: counted, and shown with the parts of the state.

A class that is one off, or boxes of other frames, make no file that is wrong in itself. The step
labels tell it, and so does a look at a few boxes beside the parts that their state has.
"""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import simplejpeg

from data_prep.checking.folder import RENDERS, Checked
from data_prep.reading.recording_labels import agree
from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.psr.procedure import Procedure

SHOWN = 3  # boxes of each state
MARGIN = 0.1  # of the larger side of a box, shown around it
QUALITY = 80


def agreement(checked: Checked) -> str:
    """Returns a line that says how many boxes fit the step labels; '' without boxes.

    Renders are left out, whose boxes have no other source.
    """
    of_boxes, of_states = _classes(checked)
    if not len(of_boxes):
        return ""
    fitting = int(agree(of_boxes, of_states, checked.procedure).sum())
    return f"{fitting:,} of {len(of_boxes):,} boxes agree with the step labels of their frames"


def find_shift(checked: Checked) -> list[str]:
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


def _classes(checked: Checked) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes (M,) of all boxes that are no renders, and of the states beside them."""
    pairs = [np.zeros((2, 0), np.int64)]
    for split, recording in checked.recordings():
        if split != RENDERS:
            boxed = recording.classes >= 0
            of_states = checked.procedure.state_classes(recording.states[boxed])
            pairs.append(np.stack([recording.classes[boxed], of_states]))
    of_boxes, of_states = np.concatenate(pairs, axis=1)
    return of_boxes, of_states


def by_state(checked: Checked) -> Iterator[dict[str, Any]]:
    """Yields each catalogued state, then error states, of which there are boxes.

    Each with its name ("state 3"), its vector (digits, '' of error states), its parts (component,
    whether it has that), how many boxes there are in total, and some of them as pictures, evenly
    spread over all recordings.
    """
    procedure = checked.procedure
    places: dict[int, list[tuple[str, LabelledFrames, int]]] = {}
    for split, recording in checked.recordings():
        known = (recording.classes > 0) & ~np.isnan(recording.boxes).any(axis=1)
        for i in np.flatnonzero(known).tolist():
            places.setdefault(int(recording.classes[i]), []).append((split, recording, i))
    for label, found in sorted(places.items()):
        digits = procedure.states[label - 1].tolist() if label <= procedure.num_states else []
        # The middles of equal shares: boxes at either end of a state may show the next one already.
        at = np.unique(((np.arange(SHOWN) + 0.5) * len(found) / SHOWN).astype(int))
        yield {
            "name": state_name(label, procedure),
            "vector": "".join(map(str, digits)),
            "parts": [(k, on == 1) for k, on in zip(procedure.components, digits, strict=False)],
            "total": len(found),
            "pictures": [_box_picture(checked, label, *found[i]) for i in at],
        }


def state_name(label: int, procedure: Procedure) -> str:
    """Returns what the page calls the class of a state."""
    if label == procedure.error_class:
        return "error state"
    return f"state {label}" if label else "uncatalogued"


def _box_picture(
    checked: Checked, label: int, split: str, recording: LabelledFrames, i: int
) -> dict[str, Any]:
    """A box on the page; `other` is the state by the step labels, where the box does not fit it."""
    of_state = checked.procedure.state_classes(recording.states[i : i + 1])
    fits = agree(np.array([label]), of_state, checked.procedure)[0]
    image = checked.picture(split, recording, i)
    return {
        "recording": recording.name,
        "frame": recording.first_frame + i,
        "jpeg": in_page(None if image is None else _cut_out(image, recording.boxes[i])),
        "other": "" if fits else state_name(int(of_state[0]), checked.procedure),
    }


def in_page(image: np.ndarray | None) -> str | None:
    """Returns a picture (H, W, 3) as a JPEG in base64; None remains None."""
    if image is None:
        return None
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(image), QUALITY, "RGB", "444")
    return base64.b64encode(jpeg).decode()


def _cut_out(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the part (h, w, 3) of a picture in a box (cx, cy, w, h in 0…1), and some around."""
    height, width = image.shape[:2]
    centre = box[:2].astype(float) * (width, height)
    size = box[2:].astype(float) * (width, height)
    half = size / 2 + MARGIN * size.max()
    x0, y0 = np.clip(np.rint(centre - half), 0, (width - 1, height - 1)).astype(int)
    x1, y1 = np.clip(np.rint(centre + half), (x0 + 1, y0 + 1), (width, height)).astype(int)
    return image[y0:y1, x0:x1]
