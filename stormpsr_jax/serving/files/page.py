"""The report of a recognised recording, about which no truth is known: one HTML file."""

from __future__ import annotations

import base64
import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.psr import streams
from stormpsr_jax.psr.events import Event, reports
from stormpsr_jax.psr.monitor import Alert
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.report import pages
from stormpsr_jax.report.pages import INK, MUTED, PALETTE, STRIPE, WRONG, clock
from stormpsr_jax.serving.files.overlay import thumbnail
from stormpsr_jax.serving.frames import Frame, ProductShare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PICTURES = 64
_BINS = 400  # of a curve


@dataclasses.dataclass
class Unsure:
    """That it is not sure whether an installation is right, from one frame until another."""

    step_id: int
    since: int
    until: int | None = None  # None to the end


class Report:
    """Gathers what the report of a recording shows."""

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        fps: float,
        first_frame: int,
        num_frames: int,
    ):
        """Times count from the frame `first_frame` on; the recording has `num_frames`."""
        self._procedure, self._variant, self._fps = procedure, variant, fps
        self._first, self._num_frames = first_frame, num_frames
        self._bins = min(_BINS, num_frames)
        self._changed: np.ndarray | None = None  # (bins, K), the highest probability
        self._seen: np.ndarray | None = None  # (bins,), the highest confidence of a detection
        self._events: list[Event] = []
        self._only_seen: list[Event] = []
        self._pictures: dict[int, bytes] = {}  # by frame
        self._every = 1  # of so many frames with events, one has its picture kept
        self._num_pictured = 0
        self._unsure: list[Unsure] = []
        self._asked: dict[int, list[str]] = {}  # by frame, steps that became not sure then
        self._alerts: list[Alert] = []

    def add(self, frame: Frame, alerts: Sequence[Alert]) -> None:
        """Takes the next frame, and what was alerted at it."""
        at = (frame.number - self._first) * self._bins // self._num_frames
        if frame.changed is not None:
            if self._changed is None:
                self._changed = np.zeros((self._bins, len(frame.changed)))
            self._changed[at] = np.maximum(self._changed[at], frame.changed)
        if frame.detected is not None:
            if self._seen is None:
                self._seen = np.zeros(self._bins)
            self._seen[at] = max(self._seen[at], frame.top[1] if frame.top else 0)
        for event in frame.events:
            if event.kind in ("report", "gone"):
                same = [one for one in self._unsure if one.step_id // 3 == event.step_id // 3]
                for one in same:
                    one.until = event.frame if one.until is None else one.until
            elif event.kind == "unsure":
                self._asked.setdefault(event.frame, []).append(event.name)
                self._unsure.append(Unsure(event.step_id, int(event.evidence["since"])))
        self._only_seen += [event for event in frame.events if event.kind == "seen"]
        self._events += reports(frame.events)
        self._alerts += alerts

    @property
    def num_events(self) -> int:
        """Of those in the table, how many there are."""
        return len(self._events)

    def show(self, frame: int, picture: np.ndarray) -> None:
        """Takes the picture of a frame with events."""
        if self._num_pictured % self._every == 0:
            self._pictures[frame] = thumbnail(picture)
        self._num_pictured += 1
        if len(self._pictures) > MAX_PICTURES:  # evenly thinned
            self._every *= 2
            self._pictures = dict(list(self._pictures.items())[::2])

    def write(
        self,
        path: Path,
        *,
        name: str,
        rows: Sequence[tuple[int, str]],
        stream: str,
        settings: Any,
        calibrated: bool,
        source: str,
        product: ProductShare,
        alerts: Sequence[Alert] = (),
    ) -> None:
        """Writes the page; `alerts` are those at the end. OSError: it cannot be written."""
        with pages.style():
            figure = self._timeline(stream)
        text = pages.svg(figure)
        page = pages.template("recognised.html").render(
            title=name,
            source=source,
            fits=product.fits,
            why=str(product),
            procedure=self._procedure,
            variant=self._variant.name,
            fps=self._fps,
            length=clock(self._num_frames / self._fps),
            stream=streams.find(stream).appearance,
            settings=settings,
            changed=self._changed is not None,
            detected=self._seen is not None,
            calibrated=calibrated,
            seen=bool(self._only_seen),
            unsure=[
                (
                    self._procedure.step_name(mark.step_id),
                    self._clock(mark.since),
                    None if mark.until is None else self._clock(mark.until),
                )
                for mark in self._unsure
            ],
            num_unsure=sum(mark.until is None for mark in self._unsure),
            num_events=self.num_events,
            events=[self._row(event) for event in self._events],
            checklist=[(self._procedure.step_name(step), status) for step, status in rows],
            believes=streams.find(stream).fitted,
            done=sum(status == "done" for _, status in rows),
            num_expected=len(self._variant.expected),
            alerts=[
                (self._clock(alert.frame), alert.message) for alert in [*self._alerts, *alerts]
            ],
            num_pictured=self._num_pictured,
            cards=self._cards(),
            timeline=pages.inline(text, f"Timeline of recording {name}", "t"),
        )
        files.write_text(path, page)

    def _clock(self, frame: int) -> str:
        return clock((frame - self._first) / self._fps)

    def _row(self, event: Event) -> dict[str, Any]:
        time = f"{(event.frame - self._first) / self._fps:.1f}"
        return {"clock": self._clock(event.frame), "seconds": time, **event._asdict()}

    def _cards(self) -> list[dict[str, Any]]:
        cards = []
        for frame, jpeg in self._pictures.items():
            names: list[tuple[str, float | None]] = [
                (e.name, e.confidence) for e in self._events if e.frame == frame
            ]
            names += [(name, None) for name in self._asked.get(frame, ())]
            picture = base64.b64encode(jpeg).decode()
            cards.append({"frame": frame, "time": self._clock(frame), "jpeg": picture})
            cards[-1]["steps"] = names
        return [card for card in cards if card["steps"]]

    def _timeline(self, stream: str) -> Figure:
        from matplotlib.figure import Figure

        marked = sorted([*self._events, *self._only_seen], key=lambda event: event.frame)
        steps = [mark.step_id for mark in marked] + [mark.step_id for mark in self._unsure]
        steps = list(dict.fromkeys(steps))
        steps += [step for step in self._variant.expected if step not in steps]
        curves = self._curves()
        heights = 0.3 * max(len(steps), 1), 0.26 * max(len(curves), 1)
        figure = Figure(figsize=(10.0, sum(heights) + 0.9), layout="constrained")
        axes, other = figure.subplots(2, 1, sharex=True, height_ratios=heights)
        announced = {*self._variant.expected, *(self._variant.allowed or ())}
        for row in range(0, len(steps), 2):
            axes.axhspan(row, row + 1, color=STRIPE, lw=0, zorder=0)
        names = [(self._procedure.step_name(s), INK if s in announced else WRONG) for s in steps]
        self._draw(axes, steps, PALETTE[streams.find(stream).appearance.colour])
        x = (np.arange(self._bins) + 0.5) * self._num_frames / self._bins / self._fps
        for row, (_, colour, values) in enumerate(curves):
            bottom = row + 0.94
            other.fill_between(x, bottom, bottom - 0.88 * values, color=colour, alpha=0.55, lw=0)
            other.axhline(bottom, color=MUTED, lw=0.5)
        other.set_title("Confidences of the networks, 0 to 1", fontsize=7.5, color=MUTED, pad=4)
        end = self._num_frames / self._fps
        for part, rows in ((axes, names), (other, [(name, INK) for name, *_ in curves])):
            part.grid(axis="y", visible=False)
            part.spines["left"].set_visible(False)
            part.set_ylim(max(len(rows), 1), 0)
            texts = [textwrap.shorten(name, 36, placeholder="…") for name, _ in rows]
            part.set_yticks(np.arange(len(rows)) + 0.5, texts)
            for label, (_, colour) in zip(part.get_yticklabels(), rows, strict=True):
                label.set_color(colour)
            part.tick_params(length=0)
        axes.tick_params(labelbottom=False)
        axes.set_xlim(-0.008 * end, 1.05 * end)
        pages.time_ticks(axes, 0, end)
        return figure

    def _draw(self, axes: Axes, steps: Sequence[int], colour: str) -> None:
        for one in self._unsure:
            end = self._num_frames + self._first if one.until is None else one.until
            at = (one.since - self._first) / self._fps, (end - one.since) / self._fps
            y = steps.index(one.step_id) + 0.25
            axes.broken_barh(
                [at], (y, 0.5), facecolor="none", edgecolor=PALETTE["amber"], hatch="////"
            )
        for event in [*self._only_seen, *self._events]:
            x, y = (event.frame - self._first) / self._fps, steps.index(event.step_id) + 0.5
            ink = WRONG if event.step_id % 3 == 1 else colour
            fill = "none" if event.kind == "seen" else ink
            axes.plot([x], [y], "o", ms=5.5, color=ink, mfc=fill, clip_on=False, zorder=4)
            if event.kind == "seen":
                continue
            text, beside = f"{event.confidence:.2f}", "offset points"
            axes.annotate(text, (x, y), (6, 0), textcoords=beside, fontsize=6.5, va="center")

    def _curves(self) -> list[tuple[str, str, np.ndarray]]:
        curves = []
        if self._changed is not None:
            for component, values in zip(self._procedure.components, self._changed.T, strict=True):
                curves.append((f"{component} changed", PALETTE["orange"], values))
        if self._seen is not None:
            curves.append(("State detected", PALETTE["blue"], self._seen))
        return curves
