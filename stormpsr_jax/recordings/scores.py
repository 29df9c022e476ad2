"""What the networks say of each frame before anything is thrown away, and the files of it.

The learned fusion (`learned_beliefs.py`) reads the whole distribution over states, and what the
networks say of each part. `scores/<rec>.npz` holds that of a recording: members `frames` (int64)
and, in float16, of `objectness`, `states`, `parts` and `temporal` those there are. Half precision
keeps three digits of a logit, which is far more than the networks know.

Dimension letters: N frames, K components, S catalogued states.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from stormpsr_jax.base import files, memory
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import Procedure

SUFFIX = ".npz"  # of a file's name, after the recording's
# What scores hold: all that the networks can say, what prediction files of both streams do, what
# those of the detector alone do, and what the temporal network says of clips without a detector.
KINDS = ("scores", "csv", "detections", "clips")
# Logits and log-probabilities farther out say nothing more, and half precision has to hold them.
BOUND = 60.0
# Of predictions that name no more than a top detection: P(its class | the object is there), and
# the objectness where there is none.
TOP = 0.9
ABSENT = -20.0
_EDGE = 1e-4  # prediction files have four decimals of a probability


class FrameScores(NamedTuple):
    """The scores of one frame; with an axis in front of each array, those of several.

    Attributes:
        objectness: logit that the object is there; None without a detector, as are `states`.
        states: (S + 1,) log-probabilities of the states given that it is there, the last of them
            the error state.
        parts: (2K,) logits from the picture, or None: of the components' being present, then of
            their being installed right given that they are present.
        temporal: (K,) or (3K,) logits from the clip that ends at the frame, or None: of a change
            inside the window, of presence at its end, of being right given presence there.
    """

    objectness: np.ndarray | None
    states: np.ndarray | None
    parts: np.ndarray | None = None
    temporal: np.ndarray | None = None

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> FrameScores:
        """Returns the scores with each array changed; one that is absent stays absent."""
        return FrameScores(*(None if array is None else change(array) for array in self))


@dataclasses.dataclass(eq=False)
class Scores:
    """The scores of a recording: the fields of `FrameScores` with an axis of N in front.

    Attributes:
        frames: (N,) int64, strictly ascending.
        objectness: (N,) or None.
        states: (N, S + 1) or None.
        parts: (N, 2K) or None.
        temporal: (N, K), (N, 3K) or None.
    """

    frames: np.ndarray
    objectness: np.ndarray | None
    states: np.ndarray | None
    parts: np.ndarray | None = None
    temporal: np.ndarray | None = None

    @property
    def arrays(self) -> FrameScores:
        """All but the frames."""
        return FrameScores(self.objectness, self.states, self.parts, self.temporal)

    @property
    def kind(self) -> str:
        """Of `KINDS`: "scores" with all that the networks can say, "csv" without some of it.

        "detections" are of the detector alone, without what it says of single parts; "clips" are
        without a detector.
        """
        if self.objectness is None:
            return "clips"
        if self.parts is None and self.temporal is None:
            return "detections"
        if self.parts is None or self.temporal is None:
            return "csv"
        return "scores" if self.temporal.shape[1] > self.parts.shape[1] else "csv"

    def per_frame(self) -> Iterator[tuple[int, FrameScores]]:
        """Iterates over (frame, scores of the frame), which `Observation` takes."""
        for n, frame in enumerate(self.frames.tolist()):
            yield frame, row(self.arrays, n)


def row(scores: FrameScores, n: int) -> FrameScores:
    """Returns the scores of one of several frames."""
    return scores.each(lambda a: a[n])


def as_written(scores: FrameScores) -> FrameScores:
    """Returns what a reader finds where these scores were written; float32."""
    return scores.each(lambda a: np.clip(a, -BOUND, BOUND).astype(np.float16).astype(np.float32))


def from_predictions(
    detections: Detections | None, temporal: TemporalPredictions | None, procedure: Procedure
) -> Scores:
    """Makes scores of prediction files, which name a top detection and probabilities alone.

    The top detection's confidence is taken for that of the object, and its class for one of
    probability `TOP`. A frame without temporal prediction has logits 0.

    Raises:
        ValueError: neither stream is there, or a class that the procedure does not have.
    """
    if detections is None and temporal is None:
        raise ValueError("scores need the predictions of a stream")
    none = np.zeros(0, np.int64)
    frames_s = none if detections is None else np.unique(detections.frames)
    frames_t = none if temporal is None else temporal.frames
    frames = np.union1d(frames_s, frames_t)
    num_states = procedure.num_states
    objectness = states = None
    if detections is not None:
        objectness = np.full(len(frames), ABSENT)
        states = np.full((len(frames), num_states + 1), -np.log(num_states + 1))
        first = detections.tops()
        classes, confidences = detections.classes[first], detections.confidences[first]
        if len(classes) and not 0 <= classes.min() <= classes.max() <= procedure.error_class:
            raise ValueError(
                f"a class is not in 0…{procedure.error_class} (procedure {procedure.name!r})"
            )
        seen = classes > 0
        rows = np.searchsorted(frames, frames_s)[seen]
        objectness[rows] = _logit(confidences[seen])
        states[rows] = np.log((1 - TOP) / num_states)
        states[rows, classes[seen] - 1] = np.log(TOP)
    logits = None
    if temporal is not None:
        logits = np.zeros((len(frames), procedure.num_components))
        logits[np.searchsorted(frames, frames_t)] = _logit(temporal.confidences)
    return Scores(frames, objectness, states, None, logits)


def _logit(probability: np.ndarray) -> np.ndarray:
    p = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.log(p) - np.log1p(-p)


# --- Files ----------------------------------------------------------------------------------------


def write_scores(path: str | os.PathLike, scores: Scores) -> None:
    """Writes the file that `read_scores` reads; OSError names it. Equal scores, equal bytes."""
    arrays = {"frames": np.asarray(scores.frames, "<i8")}
    for name, value in as_written(scores.arrays)._asdict().items():
        if value is not None:
            arrays[name] = value.astype("<f2")
    with files.replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in arrays.items():
            # A ZipInfo of its own has no time of writing in it.
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)


def read_scores(path: str | os.PathLike, procedure: Procedure) -> Scores:
    """Reads the scores of a recording; nothing is unpickled.

    Raises:
        ValueError: not a readable file, or not of this procedure; one line that names it.
    """
    files.check_regular(path, "give a file on a disk")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            total = sum(info.file_size for info in members.values())
            memory.check_fits(4 * total, "it")  # once more as float32, and the rule's inputs
            arrays = {}
            for name, info in members.items():
                with archive.open(info) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        _check(arrays, procedure)
    except files.UNREADABLE as error:
        reason = getattr(error, "strerror", None) or files.reason(error)
        raise ValueError(f"{path}: {reason}; write it again, or leave --scores out") from error
    frames = arrays.pop("frames").astype(np.int64)
    found = {name: array.astype(np.float32) for name, array in arrays.items()}
    return Scores(frames, **dict.fromkeys(FrameScores._fields) | found)


def _check(arrays: dict[str, np.ndarray], procedure: Procedure) -> None:
    """Raises ValueError if the members of a file are none that `write_scores` writes."""
    num = procedure.num_components
    widths = {
        "frames": ((),),
        "objectness": ((),),
        "states": ((procedure.num_states + 1,),),
        "parts": ((2 * num,),),
        "temporal": ((num,), (3 * num,)),
    }
    if unknown := [name for name in arrays if name not in widths]:
        raise ValueError(f"holds {files.shorten(unknown[0])}, which is none of {', '.join(widths)}")
    of_detector = ("objectness", "states")
    needed = of_detector if {*of_detector, "parts"} & arrays.keys() else ("temporal",)
    if missing := [name for name in ("frames", *needed) if name not in arrays]:
        raise ValueError(f"holds no {', '.join(missing)}")
    for name, array in arrays.items():
        wanted = [(arrays["frames"].size, *width) for width in widths[name]]
        kind = np.dtype("<i8" if name == "frames" else "<f2")
        if array.shape not in wanted or array.dtype != kind:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}, not {kind} "
                f"{' or '.join(map(str, wanted))} as procedure {procedure.name!r} has it"
            )
    if (np.diff(arrays["frames"]) <= 0).any():
        raise ValueError("frames do not ascend")
