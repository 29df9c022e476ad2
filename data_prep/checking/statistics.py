"""Statistics of labelled recordings, as papers report them. Functions of labels alone: no I/O."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from stormpsr_jax.data.annotation import EMPTY, LabelledFrames
from stormpsr_jax.psr.files.labels import Step
from stormpsr_jax.psr.procedure import Procedure


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What one split holds.

    Attributes:
        recordings: their number.
        frames: their number.
        hours: of video.
        installed: completions of steps 3k,
        removed: of steps 3k+2,
        incorrect: of steps 3k+1, which are no steps of the ground truth by themselves.
        steps_by_recording: (recordings,) installed and removed.
        frames_by_class: (S+2,) frames by class of their state: uncatalogued, 1…S, error.
        boxes_by_class: (S+2,) frames with a box by its class.
        empty: frames that somebody looked at and that have none.
        durations: (M,) seconds from a completion (or the first frame) to the next completion.
        box_sizes: (boxes,) square root of the share of the picture that a box takes.
        visible: visible fraction of the frames where it is known.
    """

    recordings: int
    frames: int
    hours: float
    installed: int
    removed: int
    incorrect: int
    steps_by_recording: np.ndarray
    frames_by_class: np.ndarray
    boxes_by_class: np.ndarray
    empty: int
    durations: np.ndarray
    box_sizes: np.ndarray
    visible: np.ndarray

    @property
    def steps(self) -> int:
        """Completed steps, as `PSR_labels.csv` lists them."""
        return self.installed + self.removed

    @property
    def boxes(self) -> int:
        """Frames with a box."""
        return int(self.boxes_by_class.sum())

    @property
    def never_seen(self) -> list[int]:
        """Catalogued states that no frame shows."""
        return (np.flatnonzero(self.frames_by_class[1:-1] == 0) + 1).tolist()


def split_statistics(
    recordings: Sequence[LabelledFrames],
    procedure: Procedure,
    fps: float,
    steps: Mapping[str, Sequence[Step]],
) -> Statistics:
    """Counts what the recordings of a split hold.

    Args:
        recordings: with their labels.
        procedure: of them.
        fps: frames per second.
        steps: by recording, (frame, step id) with incorrect installations.
    """
    of_recording = [steps[recording.name] for recording in recordings]
    kinds = np.array([step % 3 for of_one in of_recording for _, step in of_one], int)
    frames = sum(recording.num_frames for recording in recordings)
    num_classes = procedure.num_states + 2
    frames_by_class, boxes_by_class = np.zeros((2, num_classes), int)
    empty = 0
    durations, sizes, visible = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for recording, of_one in zip(recordings, of_recording, strict=True):
        states, counts = np.unique(recording.states, axis=0, return_counts=True)
        np.add.at(frames_by_class, procedure.state_classes(states), counts)
        boxed = recording.classes >= 0
        boxes_by_class += np.bincount(recording.classes[boxed], minlength=num_classes)
        empty += int((recording.classes == EMPTY).sum())
        times = np.unique([frame for frame, step in of_one if step % 3 != 1])
        durations.append(np.diff(times, prepend=recording.first_frame) / fps)
        sizes.append(np.sqrt(np.prod(recording.boxes[boxed, 2:], axis=1)))
        visible.append(recording.visible[~np.isnan(recording.visible)])
    return Statistics(
        recordings=len(recordings),
        frames=frames,
        hours=frames / fps / 3600,
        installed=int((kinds == 0).sum()),
        removed=int((kinds == 2).sum()),
        incorrect=int((kinds == 1).sum()),
        steps_by_recording=np.array(
            [sum(step % 3 != 1 for _, step in of_one) for of_one in of_recording], int
        ),
        frames_by_class=frames_by_class,
        boxes_by_class=boxes_by_class,
        empty=empty,
        durations=np.concatenate(durations),
        box_sizes=np.concatenate(sizes),
        visible=np.concatenate(visible),
    )


def table(statistics: Mapping[str, Statistics]) -> list[tuple[str, list[str]]]:
    """Rows for people: (what, its value in each split)."""
    rows = {
        "Recordings": lambda s: f"{s.recordings:,}",
        "Frames": lambda s: f"{s.frames:,}",
        "Hours": lambda s: f"{s.hours:.2f}",
        "Steps": lambda s: f"{s.steps:,}",
        "· installed": lambda s: f"{s.installed:,}",
        "· removed": lambda s: f"{s.removed:,}",
        "Incorrect installations": lambda s: f"{s.incorrect:,}",
        "Steps per recording": lambda s: _spread(s.steps_by_recording),
        "Seconds per step (median)": lambda s: _median(s.durations, ".1f"),
        "Frames with a box": lambda s: f"{s.boxes:,}",
        "· of a catalogued state": lambda s: f"{s.boxes_by_class[1:-1].sum():,}",
        "· uncatalogued (ignored)": lambda s: f"{s.boxes_by_class[0]:,}",
        "· of an error state": lambda s: f"{s.boxes_by_class[-1]:,}",
        "Frames annotated as empty": lambda s: _share(s.empty, s.frames),
        "Frames not annotated": lambda s: _share(s.frames - s.boxes - s.empty, s.frames),
        "Box size (median, of the side)": lambda s: _median(s.box_sizes, ".0%"),
        "Frames in an uncatalogued state": lambda s: _share(s.frames_by_class[0], s.frames),
        "Frames in an error state": lambda s: _share(s.frames_by_class[-1], s.frames),
        "States never seen": lambda s: ", ".join(map(str, s.never_seen)) or "none",
        "Visible fraction (mean)": lambda s: _mean(s.visible),
    }
    return [(name, [cell(s) for s in statistics.values()]) for name, cell in rows.items()]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _median(values: np.ndarray, form: str) -> str:
    return format(float(np.median(values)), form) if len(values) else "–"


def _mean(values: np.ndarray) -> str:
    return f"{np.mean(values, dtype=np.float64):.0%}" if len(values) else "–"


def _spread(values: np.ndarray) -> str:
    if not len(values):
        return "–"
    return f"{values.mean():.1f} ({values.min()}–{values.max()})"
