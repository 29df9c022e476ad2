"""The page of `data_prep.check`: one HTML file with pictures, histograms, statistics and problems.

It opens without a network, and its size does not grow with the data: of each split only so many
completions are shown, as small pictures.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import simplejpeg

from data_prep.checking import boxes, thumbnails
from data_prep.checking.checked import Checked
from data_prep.checking.statistics import Statistics, completed_steps, table
from stormpsr_jax.base import files
from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.psr.label_doubts import clock
from stormpsr_jax.report import pages
from stormpsr_jax.report.pages import INK, MUTED, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_RECORDINGS = 6  # shown of each split, evenly spread
MAX_COMPLETIONS = 10  # shown of each recording, evenly spread
MAX_VIEWS = 24  # shown of a split without completions
MAX_LINES = 200  # of problems and of warnings
AROUND = 2.0  # seconds before and after a completion
THUMBNAIL = 160  # pixels of the shorter side at least, if the pictures are as large
QUALITY = 70
WIDTH = 10.0  # inches of a figure over the whole page


@dataclasses.dataclass(frozen=True)
class Picture:
    """A frame on the page.

    Attributes:
        when: in words, relative to the completion; may be empty.
        frame: its number.
        jpeg: base64; None if it cannot be read.
        box: left, top, width and height in percent of the picture; None without a box.
        state: the state's name.
        error: whether the state is an error state.
        visible: visible fraction, None if unknown.
    """

    when: str
    frame: int
    jpeg: str | None
    box: tuple[float, float, float, float] | None
    state: str
    error: bool
    visible: float | None


@dataclasses.dataclass(frozen=True)
class Completion:
    """The steps completed in one frame, with pictures around it."""

    time: str
    steps: list[tuple[str, str]]  # "install" | "wrong" | "remove", name of the component
    pictures: list[Picture]


def write_page(path: Path, checked: Checked, numbers: Mapping[str, Statistics]) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        checked: with a procedure and at least one split.
        numbers: the statistics of its splits.

    Raises:
        OSError: the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("check.html").render(
        checked=checked,
        numbers=numbers,
        table=table(numbers),
        splits={split: _sheets(checked, split) for split in checked.splits},
        figures=[
            (title, caption, pages.inline(pages.svg(figure), title, f"f{i}"))
            for i, (title, caption, figure) in enumerate(_figures(checked, numbers))
        ],
        agreement=boxes.agreement(checked),
        boxes=list(boxes.by_state(checked)),
        states=["".join(map(str, state)) for state in checked.procedure.states.tolist()],
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
    recordings = checked.splits[split]
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
    return {"sheets": sheets, "with_completions": len(names), "views": views}


def _completions(
    checked: Checked, split: str, recording: LabelledFrames
) -> list[tuple[int, list[int]]]:
    """(frame, step ids) of a recording, by frame."""
    steps = checked.steps[split].get(recording.name, completed_steps(recording))
    found: dict[int, list[int]] = {}
    for frame, step in sorted(steps):
        if 0 <= frame - recording.first_frame < recording.num_frames:
            found.setdefault(frame, []).append(step)
    return list(found.items())


def _completion(
    checked: Checked, split: str, recording: LabelledFrames, frame: int, steps: list[int]
) -> Completion:
    apart = max(1, round(AROUND * checked.fps))
    last = recording.first_frame + recording.num_frames - 1
    frames = [max(recording.first_frame, frame - apart), frame, min(last, frame + apart)]
    whens = [f"{(at - frame) / checked.fps:+.1f} s".replace("-", "−") for at in frames]
    whens[1] = "completed"
    kinds = ("install", "wrong", "remove")
    return Completion(
        clock((frame - recording.first_frame) / checked.fps),
        [(kinds[step % 3], checked.procedure.components[step // 3]) for step in steps],
        [
            _picture(checked, split, recording, at, when)
            for at, when in zip(frames, whens, strict=True)
        ],
    )


def _views(checked: Checked, split: str) -> Iterator[tuple[str, Picture]]:
    """(recording, picture): a frame with a box, if there is one, of recordings over the split."""
    for i, recording in enumerate(_thinned(list(checked.splits[split].values()), MAX_VIEWS)):
        boxed = np.flatnonzero(recording.classes >= 0)
        indices = boxed if len(boxed) else np.arange(recording.num_frames)
        frame = recording.first_frame + int(indices[(i * 7) % len(indices)])
        yield recording.name, _picture(checked, split, recording, frame, "")


def _picture(
    checked: Checked, split: str, recording: LabelledFrames, frame: int, when: str
) -> Picture:
    i = frame - recording.first_frame
    procedure = checked.procedure
    state = recording.states[i]
    label = procedure.state_class(state)
    box = None
    if recording.classes[i] >= 0 and not np.isnan(recording.boxes[i]).any():
        cx, cy, w, h = (100 * recording.boxes[i].astype(float)).tolist()
        box = (cx - w / 2, cy - h / 2, w, h)
    visible = float(recording.visible[i])
    return Picture(
        when,
        frame,
        _thumbnail(checked, checked.shards[split, recording.name], i),
        box,
        boxes.state_name(label, procedure),
        label == procedure.error_class,
        None if np.isnan(visible) else visible,
    )


def _thumbnail(checked: Checked, shard: Path, index: int) -> str | None:
    """A small JPEG of frame `index` of a recording in base64; None if it cannot be read."""
    image = thumbnails.decode(checked, shard, index, THUMBNAIL)
    if image is None:
        return None
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(image), QUALITY, "RGB", "420")
    return base64.b64encode(jpeg).decode()


def _figures(
    checked: Checked, numbers: Mapping[str, Statistics]
) -> Iterator[tuple[str, str, Figure]]:
    """(title, caption, figure) of each histogram that has something to show."""
    colours = dict(zip(numbers, [*PALETTE.values(), MUTED, INK] * len(numbers), strict=False))
    in_motion = {split: s for split, s in numbers.items() if s.steps}
    if in_motion:
        caption = (
            "Share of each split's frames by the class of their state: ? uncatalogued, "
            f"1…{checked.procedure.num_states} catalogued, E error state."
        )
        shares = {split: s.frames_by_class / s.frames for split, s in in_motion.items()}
        yield "States", caption, _class_figure(shares, colours, "Frames")
    boxed = {split: s for split, s in in_motion.items() if s.boxes}
    if boxed:
        shares = {split: s.boxes_by_class / s.boxes for split, s in boxed.items()}
        caption = "Share of each split's boxes by their class, in the same order."
        yield "States of the boxes", caption, _class_figure(shares, colours, "Boxes")
    durations = {split: s.durations for split, s in numbers.items() if len(s.durations)}
    if durations:
        longest = max(float(d.max()) for d in durations.values())
        shortest = max(min(float(d.min()) for d in durations.values()), 1 / checked.fps)
        bins = np.geomspace(shortest, max(longest, 2 * shortest), 25)
        caption = "Seconds from one completion, or the beginning, to the next."
        yield "Step durations", caption, _histogram(durations, colours, bins, "Seconds", "log")
    bins = np.linspace(0, 1, 26)
    sizes = {split: s.box_sizes for split, s in numbers.items() if s.boxes}
    if sizes:
        caption = "Square root of the share of the picture that a box takes."
        yield "Box sizes", caption, _histogram(sizes, colours, bins, "Part of the picture's side")
    visible = {split: s.visible for split, s in in_motion.items() if len(s.visible)}
    if visible:
        caption = "Over the frames where it is known."
        yield "Visible fraction", caption, _histogram(visible, colours, bins, "Visible fraction")


def _axes(width: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(width, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(length=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure, axes


def _class_figure(
    shares: Mapping[str, np.ndarray], colours: Mapping[str, str], what: str
) -> Figure:
    """Bars of a share per class (S+2,) and split."""
    with pages.style():
        figure, axes = _axes(WIDTH)
        width = 0.8 / len(shares)
        for i, (split, share) in enumerate(shares.items()):
            at = np.arange(len(share)) + (i - (len(shares) - 1) / 2) * width
            axes.bar(at, share, 0.92 * width, color=colours[split], label=split)
            unseen = np.flatnonzero(share[1:-1] == 0) + 1
            axes.plot(at[unseen], np.zeros(len(unseen)), "x", color=colours[split], ms=4)
        names = ["?", *map(str, range(1, len(share) - 1)), "E"]
        axes.set_xticks(range(len(names)), names)
        axes.set(xlabel="State (× never)", ylabel=what, xlim=(-0.6, len(names) - 0.4))
        axes.grid(False, axis="x")
        figure.legend(frameon=False, loc="outside upper right", ncols=len(shares))
    return figure


def _histogram(
    values: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
    bins: np.ndarray,
    label: str,
    scale: str = "linear",
) -> Figure:
    """Shares of each split's values (M,) in bins."""
    with pages.style():
        figure, axes = _axes(WIDTH / 2)
        for split, of_split in values.items():
            share = np.histogram(np.clip(of_split, bins[0], bins[-1]), bins)[0] / len(of_split)
            entry, colour = f"{split} ({len(of_split):,})", colours[split]
            axes.stairs(share, bins, label=entry, color=colour, linewidth=1.3)
            axes.stairs(share, bins, fill=True, alpha=0.08, color=colour)
        axes.set(xlabel=label, xscale=scale)
        if scale == "log":
            from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        figure.legend(frameon=False, loc="outside upper right", ncols=len(values), fontsize=7.5)
    return figure
