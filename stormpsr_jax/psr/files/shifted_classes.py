"""A sign that the classes of detections are one too low or too high, as where 0 is the first state.

Decoded, such detections recognise all steps but the last, late, and with high figures. A detector
that is merely slow says the state before in many frames too, but shows the last one in the end.
"""

from collections.abc import Mapping

import numpy as np

from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure

_MANY, _FEW = 0.5, 0.25  # shares of frames that fit when shifted, and of these that fit as they are


def check(procedure: Procedure, recordings: Mapping[str, LabelledPredictions]) -> list[str]:
    """Returns a warning if classes one higher, or one lower, fit the labels, and these do not."""
    pairs = [_classes(procedure, r) for r in recordings.values() if r.detections is not None]
    detected, true = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
    if len(np.unique(true)) < 2:
        return []
    fitting = int((detected == true).sum())
    for by, word, end in ((1, "higher", true.max()), (-1, "lower", true.min())):
        shifted = int((detected + by == true).sum())
        never = fitting < _FEW * shifted and (detected[true == end] == end).mean() < _FEW
        if shifted > _MANY * len(true) and never:
            return [
                f"of {len(true):,} frames whose state is labelled, --asd has {fitting:,} right, "
                f"and would have {shifted:,} if each class were one {word}: class 0 is background "
                "and class 1 the first state of the procedure; write the classes anew "
                "(python -m stormpsr_jax.psr.convert coco and yolo have --offset)"
            ]
    return []


def _classes(procedure: Procedure, r: LabelledPredictions) -> np.ndarray:
    """The detected and the true classes (2, N) of a recording's N frames where both are states.

    Background is left out: what nobody sees has a state too.
    """
    assert r.detections is not None
    top = r.detections.tops()
    frames, detected = r.detections.frames[top], r.detections.classes[top]
    known = r.frames, r.states
    if not len(r.frames):  # labels that are steps alone
        known = labels.steps_to_states(r.truth, r.variant.initial_state, -1)
    rows = np.maximum(np.searchsorted(known[0], frames, "right") - 1, 0)
    true = procedure.state_classes(known[1][rows])
    both = (detected > 0) & (true > 0) & (true < procedure.error_class)
    return np.stack([detected[both], true[both]])
