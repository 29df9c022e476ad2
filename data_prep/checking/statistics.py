"""Statistics of labelled recordings, as papers report them. Functions of labels alone: no I/O."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stormpsr_jax.data.annotation import EMPTY, LabelledFrames
from stormpsr_jax.psr.files.labels import Step
from stormpsr_jax.psr.procedure import Procedure


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What one split holds.

    Attributes:
        frames_by_class: (S+2,) frames by class of their state: uncatalogued, 1…S, error.
        boxes_by_class: (S+2,) frames with a box by its class.
        rows: for people, what and how much of it.
    """

    frames_by_class: np.ndarray
    boxes_by_class: np.ndarray
    rows: dict[str, str]


def split_statistics(
    recordings: Sequence[LabelledFrames],
    procedure: Procedure,
    fps: float,
    steps: Mapping[str, Sequence[Step]],
) -> Statistics:
    """Counts what the recordings of a split hold.

    Args:
        steps: by recording, (frame, step id) with incorrect installations.
    """
    frames = sum(recording.num_frames for recording in recordings)
    num_classes = procedure.num_states + 2
    in_state, boxed, kinds = (
        np.zeros(num_classes, int),
        np.zeros(num_classes, int),
        np.zeros(3, int),
    )
    empty = 0
    of_recordings, durations, sizes, visible = [], [], [], []
    for recording in recordings:
        its = steps[recording.name]
        kinds += np.bincount([step % 3 for _, step in its], minlength=3)
        # Incorrect installations (3k+1) are no steps of the ground truth by themselves.
        completions = [frame for frame, step in its if step % 3 != 1]
        of_recordings.append(len(completions))
        times = np.unique(completions)
        durations += (np.diff(times, prepend=recording.first_frame) / fps).tolist()
        states, counts = np.unique(recording.states, axis=0, return_counts=True)
        np.add.at(in_state, procedure.state_classes(states), counts)
        there = recording.classes >= 0
        boxed += np.bincount(recording.classes[there], minlength=num_classes)
        empty += int((recording.classes == EMPTY).sum())
        sizes += np.sqrt(np.prod(recording.boxes[there, 2:], axis=1)).tolist()
        visible += recording.visible[~np.isnan(recording.visible)].tolist()
    never = ", ".join(map(str, np.flatnonzero(in_state[1:-1] == 0) + 1))
    installed, incorrect, removed = kinds.tolist()
    spread = f"{np.mean(of_recordings):.1f} ({min(of_recordings)}–{max(of_recordings)})"
    rows = {
        "Recordings": f"{len(recordings):,}",
        "Frames": f"{frames:,}",
        "Hours": f"{frames / fps / 3600:.2f}",
        "Steps": f"{installed + removed:,}",
        "· installed": f"{installed:,}",
        "· removed": f"{removed:,}",
        "Incorrect installations": f"{incorrect:,}",
        "Steps per recording": spread,
        "Seconds per step (median)": _of(np.median, durations, ".1f"),
        "Frames with a box": f"{boxed.sum():,}",
        "· of a catalogued state": f"{boxed[1:-1].sum():,}",
        "· uncatalogued (ignored)": f"{boxed[0]:,}",
        "· of an error state": f"{boxed[-1]:,}",
        "Frames annotated as empty": f"{empty / frames:.1%}",
        "Frames not annotated": f"{(frames - boxed.sum() - empty) / frames:.1%}",
        "Box size (median, of the side)": _of(np.median, sizes, ".0%"),
        "Frames in an uncatalogued state": f"{in_state[0] / frames:.1%}",
        "Frames in an error state": f"{in_state[-1] / frames:.1%}",
        "States never seen": never or "none",
        "Visible fraction (mean)": _of(np.mean, visible, ".0%"),
    }
    return Statistics(in_state, boxed, rows)


def _of(function: Callable[[Sequence[float]], np.floating], values: list[float], form: str) -> str:
    return format(float(function(values)), form) if values else "–"


def table(statistics: Mapping[str, Statistics]) -> list[tuple[str, list[str]]]:
    """Rows for people: (what, its value in each split)."""
    names = next(iter(statistics.values())).rows
    return [(name, [its.rows[name] for its in statistics.values()]) for name in names]
