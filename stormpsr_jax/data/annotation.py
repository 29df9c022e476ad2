"""Frames without a box: looked at and empty, or not looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stormpsr_jax.data.clips import LabelledFrames

# Classes of frames without a box: somebody looked at them, and there is no whole object; or nobody
# did, so that nothing is known.
EMPTY, NOT_ANNOTATED = -1, -2


def tells_empty(settings: Mapping[str, Any], name: str) -> bool:
    """Whether a recording's class EMPTY means that somebody looked at the frame.

    Where label files were read before there was NOT_ANNOTATED, -1 stands for both kinds of frames.

    Args:
        settings: of settings.json.
        name: of the recording.
    """
    sources = settings.get("sources")
    made_from = sources.get(name) if isinstance(sources, Mapping) else None
    keys = made_from if isinstance(made_from, Mapping) else ()
    return "boxes" not in keys or "annotated frames" in keys


def as_annotated(recording: LabelledFrames, settings: Mapping[str, Any]) -> LabelledFrames:
    """Returns the recording with nothing taken for empty that nobody may have looked at."""
    if tells_empty(settings, recording.name):
        return recording
    classes = np.where(recording.classes == EMPTY, NOT_ANNOTATED, recording.classes)
    return dataclasses.replace(recording, classes=classes.astype(recording.classes.dtype))
