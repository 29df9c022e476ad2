"""The page of `data_prep.check`: one HTML file with statistics, problems and pictures.

It opens without a network, and its size does not grow with the data: of each split only so many
completions are shown, as small pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.checking import boxes
from data_prep.checking.folder import Checked
from data_prep.checking.statistics import Statistics, table
from stormpsr_jax.base import files
from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.psr.agreement import clock
from stormpsr_jax.report import pages

MAX_RECORDINGS = 6  # shown of each split, evenly spread
MAX_COMPLETIONS = 10  # shown of each recording, evenly spread
MAX_VIEWS = 24  # shown of a split without completions
MAX_LINES = 200  # of problems and of warnings
AROUND = 2.0  # seconds before and after a completion
THUMBNAIL = 160  # pixels of the shorter side at least, if the pictures are as large


def write_page(path: Path, checked: Checked, numbers: Mapping[str, Statistics]) -> None:
    """Writes the page.

    Raises:
        OSError: the file cannot be written.
    """
    procedure = checked.procedure
    digits = ["", *("".join(map(str, state)) for state in procedure.states.tolist()), ""]
    names = [boxes.state_name(label, procedure) for label in range(len(digits))]
    text = pages.template("check.html", Path(__file__).parent / "templates").render(
        checked=checked,
        image_size=next(iter(checked.sources.values())).image_size,
        num_frames=sum(recording.num_frames for _, recording in checked.recordings()),
        numbers=numbers,
        table=table(numbers),
        splits={split: _sheets(checked, split) for split in checked.sources},
        agreement=boxes.agreement(checked),
        boxes=list(boxes.by_state(checked)),
        states=list(zip(names, digits, strict=True)),
        limits={
            "recordings": MAX_RECORDINGS,
            "completions": MAX_COMPLETIONS,
            "views": MAX_VIEWS,
            "lines": MAX_LINES,
            "boxes": boxes.SHOWN,
            "around": AROUND,
        },
    )
    files.write_text(path, text)


def _thinned(values: Sequence, count: int) -> list:
    """At most `count` of the values, evenly spread, the first and the last among them."""
    at = np.linspace(0, len(values) - 1, min(len(values), count)).round().astype(int)
    return [values[i] for i in at]


def _sheets(checked: Checked, split: str) -> dict[str, Any]:
    """The contact sheets of a split: completions by recording, or views if there are none."""
    recordings = checked.sources[split].recordings
    completions = {name: _completions(checked, split, r) for name, r in recordings.items()}
    names = [name for name in recordings if completions[name]]
    sheets = [
        {
            "name": name,
            "total": len(completions[name]),
            "frames": recordings[name].num_frames,
            "completions": [
                _completion(checked, split, recordings[name], frame, steps)
                for frame, steps in _thinned(completions[name], MAX_COMPLETIONS)
            ],
        }
        for name in _thinned(names, MAX_RECORDINGS)
    ]
    views = [] if names else [*_views(checked, split)]
    return {
        "recordings": len(recordings),
        "sheets": sheets,
        "with_completions": len(names),
        "views": views,
    }


def _completions(
    checked: Checked, split: str, recording: LabelledFrames
) -> list[tuple[int, list[int]]]:
    """(frame, step ids) of a recording, by frame."""
    found: dict[int, list[int]] = {}
    for frame, step in checked.steps[split][recording.name]:
        if 0 <= frame - recording.first_frame < recording.num_frames:
            found.setdefault(frame, []).append(step)
    return list(found.items())


def _completion(
    checked: Checked, split: str, recording: LabelledFrames, frame: int, steps: list[int]
) -> dict[str, Any]:
    """The steps completed in one frame, with pictures around it."""
    apart = max(1, round(AROUND * checked.fps))
    last = recording.first_frame + recording.num_frames - 1
    frames = [max(recording.first_frame, frame - apart), frame, min(last, frame + apart)]
    whens = [f"{(at - frame) / checked.fps:+.1f} s".replace("-", "−") for at in frames]
    whens[1] = "completed"
    kinds = ("install", "wrong", "remove")
    return {
        "time": clock((frame - recording.first_frame) / checked.fps),
        "steps": [(kinds[step % 3], checked.procedure.components[step // 3]) for step in steps],
        "pictures": [
            _picture(checked, split, recording, at, when)
            for at, when in zip(frames, whens, strict=True)
        ],
    }


def _views(checked: Checked, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(recording, picture): a frame with a box, if there is one, of recordings over the split."""
    recordings = list(checked.sources[split].recordings.values())
    for i, recording in enumerate(_thinned(recordings, MAX_VIEWS)):
        boxed = np.flatnonzero(recording.classes >= 0)
        indices = boxed if len(boxed) else np.arange(recording.num_frames)
        frame = recording.first_frame + int(indices[(i * 7) % len(indices)])
        yield recording.name, _picture(checked, split, recording, frame, "")


def _picture(
    checked: Checked, split: str, recording: LabelledFrames, frame: int, when: str
) -> dict[str, Any]:
    """A frame on the page; its box is left, top, width and height in percent of the picture."""
    i, procedure = frame - recording.first_frame, checked.procedure
    label = procedure.state_class(recording.states[i])
    box = None
    if recording.classes[i] >= 0 and not np.isnan(recording.boxes[i]).any():
        cx, cy, w, h = (100 * recording.boxes[i].astype(float)).tolist()
        box = (cx - w / 2, cy - h / 2, w, h)
    visible = float(recording.visible[i])
    return {
        "when": when,
        "frame": frame,
        "jpeg": boxes.in_page(checked.picture(split, recording, i, THUMBNAIL)),
        "box": box,
        "state": boxes.state_name(label, procedure),
        "error": label == procedure.error_class,
        "visible": None if np.isnan(visible) else visible,
    }
