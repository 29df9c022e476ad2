"""Recognition picture by picture, as they come: `model.live()`.

The clock decides which frame a picture is, so that the time axis of the decoder and of the window
is that of the video, whatever is late, dropped or lost in between.
"""

from __future__ import annotations

import collections
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from stormpsr_jax.base.files import fit, shorten
from stormpsr_jax.psr.events import LAST_FRAME, Event, OnlineDecoder
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.psr.monitor import Alert, Monitor
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.serving.content import check_checksum, with_checksum
from stormpsr_jax.serving.frames import RATE_OF, Frame, Frames, ProductShare, Views, stack

# Seconds by which a picture may be older than the one before it: it is passed over then. More is
# another clock.
LATE = 1.0


class Step(NamedTuple):
    """A step of the checklist.

    Its status is "done", "seen" (it is not known yet whether it is right), "next", "open",
    "missing" (what should come after it is done), "unsure" (it is not sure whether it is correct)
    or "wrong" (done, but not expected; with 3k + 1, component k is installed incorrectly).
    """

    step_id: int  # 3k (install component k), 3k + 1 (install it wrong), 3k + 2 (remove)
    name: str  # such as "Install left frame"
    status: str
    time_s: float | None  # when it was done or seen, of one that is done, wrong or seen
    likely: float | None = None  # that it still holds, in 0…1, with a time and beliefs


class PartBelief(NamedTuple):
    """How likely a component is correct, and incorrect, in 0…1."""

    component: str
    right: float
    wrong: float


class SavedWindow(msgspec.Struct, forbid_unknown_fields=True):
    """The embeddings of the window, (frames, D)."""

    shape: tuple[int, int]
    float32: bytes


class LiveState(msgspec.Struct, forbid_unknown_fields=True):
    """What is saved of a `Live`, with a checksum."""

    format: Literal[8]
    model: str
    frame: int | None
    gaps: list[int]
    window: SavedWindow | None
    decoder: dict[str, Any]
    checklist: ChecklistState
    product: tuple[float, float]
    checksum: str = ""


class Live:
    """Recognition of one procedure after the other, picture by picture. Memory does not grow.

    Attributes:
        alerts: those of the last picture (`psr.Alert`).
        shown: what was seen in it, also by `look`; None before the first one.
        product: knows whether the last minutes show the model's product.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[np.ndarray], Views],
        frames: Callable[[OnlineDecoder | None], Frames],
        decoder: Callable[[], OnlineDecoder],
        product: ProductShare,
        fps: float,
        of_model: str,
    ):
        """Is made by `Model.live`; `frames` and `decoder` make one at its start."""
        self._prepare, self._make_frames, self._make_decoder = prepare, frames, decoder
        self.fps, self.product = fps, product
        self._of_model = of_model
        self.reset()

    def reset(self) -> None:
        """Starts anew, for the next unit: the variant's initial state, an empty window.

        Times may go on or start from 0 again. Whether the product is shown stays known.
        """
        decoder = self._make_decoder()
        self._begin(decoder, self._make_frames(decoder), self._make_checklist(decoder))
        # Steps that a person has confirmed since the last picture; other threads add to them.
        self._confirmed: collections.deque[int] = collections.deque()

    def _make_checklist(self, decoder: OnlineDecoder) -> Checklist:
        return Checklist(decoder.procedure, decoder.variant, decoder.floor, self.fps)

    def _begin(self, decoder: OnlineDecoder, frames: Frames, steps: Checklist) -> None:
        self.decoder, self._frames, self._checklist = decoder, frames, steps
        self.alerts: list[Alert] = []
        self.shown: Frame | None = None

    @property
    def frame(self) -> int | None:
        """The number of the last picture's frame, or None before the first one."""
        return self._frames.last

    def frame_at(self, time: float) -> int:
        """The number of the frame nearest to a time in seconds: round(time · fps), halves up."""
        if not isinstance(time, numbers.Real) or not 0 <= time * self.fps <= LAST_FRAME:
            raise ValueError(f"time={time!r} is not a number of seconds from 0 up")
        return math.floor(time * self.fps + 0.5)

    def update(self, picture: np.ndarray, time: float) -> list[Event]:
        """Takes the next picture and returns the steps that complete at it, by step id.

        They are reported at once, whether the pictures show the model's product or not (`fits`).

        Of several pictures of one frame (`frame_at`) the first counts. A frame without a picture is
        one without evidence: what was summed up decays, and in the window it repeats the frame
        before it.

        Args:
            picture: uint8 RGB (H, W, 3) of any size.
            time: when it was taken, in seconds from any instant on that lies before.

        Raises:
            ValueError: it is no such array, or the time is more than `LATE` seconds before that of
                the picture before. It is not taken then.
        """
        number, last = self.frame_at(time), self.frame
        if last is not None and last - number > LATE * self.fps + 1:
            raise ValueError(
                f"time={time:g}: the picture before was at {last / self.fps:g}; reset() "
                "starts a new clock"
            )
        if last is not None and number <= last:
            self.alerts = []
            return []
        frame = self._see(self._frames, number, picture)
        events = self._with_confirmed(number, frame.events)
        self.alerts = self._checklist.update(frame._replace(events=events))
        return events

    def _see(self, frames: Frames, number: int, picture: np.ndarray) -> Frame:
        ((frame,),) = frames.over([([number], stack([self._prepare(picture)]))])
        self.product.update(frame)
        self.shown = frame
        return frame

    def confirm(self, step: int) -> None:
        """Takes it from a person that an installation is right (3k), or incorrect (3k + 1).

        The part is one that is not sure, or was reported as incorrect. With the next picture it is
        an event of stream "person", with confidence 1, unless that picture, or one that came before
        the tap, has settled it. Any thread may call this.
        """
        self._confirmed.append(step)

    def _with_confirmed(self, frame: int, events: Sequence[Event]) -> list[Event]:
        settled = {event.step_id // 3 for event in events if event.kind != "seen"}
        name, at = self.decoder.procedure.step_name, frame / self.fps
        while self._confirmed:
            step = self._confirmed.popleft()
            k, how = divmod(step, 3)
            if k not in settled and self._checklist.asks(k, how):
                settled.add(k)
                self.decoder.confirm(k, how == 0)
                events = [*events, Event(frame, step, 1.0, PERSON, {}, name(step), at)]
        return sorted(events, key=lambda event: event.step_id)

    @property
    def unsure(self) -> list[int]:
        """The installations (3k) of which nobody knows whether they are right, the oldest first."""
        return self._checklist.unsure

    @property
    def fits(self) -> bool | None:
        """Whether the last minutes show the model's product; None where that cannot be told."""
        return self.product.fits

    def look(self, picture: np.ndarray) -> None:
        """Sets `shown` from a picture that is no part of the assembly."""
        self._see(self._make_frames(None), 0, picture)

    def finish(self) -> list[Alert]:
        """Alerts for the expected steps that are missing if the procedure ends now."""
        return self._checklist.finish()

    @property
    def progress(self) -> list[Step]:
        """The expected steps, and then the wrong ones."""
        name, steps = self.decoder.procedure.step_name, []
        belief = None if self.decoder.belief is None else self.decoder.belief.probabilities()
        for step, status in self._checklist.rows():
            frame = self._checklist.frame(step)
            time = None if frame is None else round(frame / self.fps, 6)
            holds = None
            if frame is not None and belief is not None:
                holds = round(likely(step, belief), 4)
            steps.append(Step(step, name(step), status, time, holds))
        return steps

    @property
    def beliefs(self) -> list[PartBelief] | None:
        """What is believed of each component since the last picture; None without beliefs."""
        belief = self.decoder.belief
        if belief is None:
            return None
        shares = belief.probabilities()
        rows = self.decoder.procedure.components, shares.right.tolist(), shares.wrong.tolist()
        return [PartBelief(*row) for row in zip(*rows, strict=True)]

    @property
    def detects(self) -> bool:
        """Whether the stream looks for the object."""
        return self._frames.detects

    # --- State ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        kept = self._frames.window
        window = kept if kept is None else SavedWindow(kept.shape, kept.astype("<f4").tobytes())
        state = LiveState(
            format=8,
            model=self._of_model,
            frame=self.frame,
            gaps=list(self._frames.gaps),
            window=window,
            decoder=self.decoder.state(),
            checklist=self._checklist.state(),
            product=self.product.counts,
        )
        return with_checksum(msgspec.to_builtins(state))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state. Nothing in it is executed.

        Raises:
            ValueError: it was saved by another model, stream, variant or settings, it is damaged,
                or none. Everything stays as it is then.
        """
        saved = fit(state, LiveState, "the saved state")
        if saved.model != self._of_model:
            raise ValueError(
                f"the saved state is of a model of {shorten(saved.model)}, this one is of "
                f"{self._of_model}"
            )
        check_checksum(state)
        decoder = self._make_decoder()
        decoder.restore(saved.decoder)
        frames, steps = self._make_frames(decoder), self._make_checklist(decoder)
        steps.restore(saved.checklist)
        if (kept := saved.window) is not None:
            window = np.frombuffer(kept.float32, "<f4").reshape(kept.shape)
            frames.window = window.astype(np.float32)
        frames.last, frames.gaps = saved.frame, collections.deque(saved.gaps, RATE_OF)
        self._begin(decoder, frames, steps)
        self.product.counts = saved.product


PERSON = "person"  # in place of a stream, of an event that somebody has confirmed


def likely(step: int, belief: Belief) -> float:
    """How likely a step holds, by beliefs in 0…1: its part is right, incorrect, absent."""
    k, kind = divmod(step, 3)
    return float((belief.right[k], belief.wrong[k], 1 - belief.present[k])[kind])


class ChecklistState(msgspec.Struct, forbid_unknown_fields=True):
    """What is saved of a checklist: the monitor's state, and (step id, frame) of the others."""

    monitor: dict[str, Any]
    seen: list[tuple[int, int]]
    done: list[tuple[int, int]]
    wrong: list[tuple[int, int]]
    unsure: list[tuple[int, int]]


class Checklist:
    """The expected steps of a variant while it is carried out; frames in, alerts out."""

    def __init__(self, procedure: Procedure, variant: Variant, confidence: float, fps: float):
        """`confidence`: a detection at or below it is no clear view (see `Monitor`)."""
        self._procedure, self._variant = procedure, variant
        self._monitor = Monitor(procedure.at(fps), variant, confidence=confidence)
        self._expected = set(variant.expected)
        # By step, the frame at which it was seen, or completed, last.
        self._seen: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._wrong: dict[int, int] = {}  # those that should not have happened and still hold
        self._unsure: dict[int, int] = {}  # installations of which it is asked whether they are

    def update(self, frame: Frame) -> list[Alert]:
        """Takes the next frame."""
        number, events = frame.number, frame.events
        steps = [event.step_id for event in events if event.kind == "report"]
        for event in events:
            if event.kind == "report":
                self._unsure.pop(3 * (event.step_id // 3), None)
            elif event.kind == "unsure":
                self._unsure[event.step_id] = number
            elif event.kind == "gone":
                self._unsure.pop(event.step_id - 2, None)
            if event.kind in ("seen", "report"):  # the last one counts
                for other in range(3 * (event.step_id // 3), 3 * (event.step_id // 3) + 3):
                    self._seen.pop(other, None)
                if event.kind == "seen":
                    self._seen[event.step_id] = number
        for step in steps:
            corrects = step % 3 == 2 and step - 1 in self._wrong
            for other in {3 * (step // 3) + i for i in range(3)} - {step}:
                self._wrong.pop(other, None)
                # Where both are expected, a part is put on for a while: both stay done.
                if not (step in self._expected and other in self._expected):
                    self._done.pop(other, None)
            if step in self._expected:
                self._done[step] = number
            elif not corrects and (step % 3 == 1 or step not in (self._variant.allowed or ())):
                self._wrong[step] = number
        wrong = None if frame.belief is None else frame.belief.wrong.tolist()
        clear = [] if frame.top is None else [frame.top[:2]]
        alerts = self._monitor.update(number, steps, clear, wrong)
        return list(map(self._as_known, alerts))

    def finish(self) -> list[Alert]:
        """Alerts for the steps that are missing, or not sure, if the recording ends now."""
        return list(map(self._as_known, self._monitor.finish()))

    def _as_known(self, alert: Alert) -> Alert:
        """An alert, which does not call missing what may be there."""
        step = alert.step_id
        if alert.kind not in ("missed", "missing") or step is None or step % 3:
            return alert
        if step not in self._unsure and step not in self._seen:
            return alert
        part = self._procedure.components[step // 3]
        message = f"not sure whether {part} is installed correctly: check"
        kind = "unsure" if alert.kind == "missing" else alert.kind
        return alert._replace(kind=kind, message=message)

    @property
    def unsure(self) -> list[int]:
        """The installations (3k) that nobody knows to be right or wrong, the oldest first."""
        return list(self._unsure)

    def asks(self, component: int, how: int) -> bool:
        """Whether a person may say that a component is right (`how` 0), or incorrect (1)."""
        step = 3 * component
        return how < 2 and (step in self._unsure or (how == 0 and step + 1 in self._wrong))

    def rows(self) -> list[tuple[int, str]]:
        """Returns (step id, status) of the expected steps, and then of wrong ones.

        "next" is one step: the first that is open and whose precedence rules hold.
        """
        missing = self._monitor.missing()
        before: dict[int, list[int]] = {}
        for first, second in self._variant.precedence:
            before.setdefault(second, []).append(first)
        rows, is_next = [], False
        for step in self._variant.expected:
            status = "done" if step in self._done else "missing" if step in missing else "open"
            if step in self._seen and step not in self._done:
                status = "seen"
            if step in self._unsure:
                status = "unsure"
            ready = all(map(self._in_place, before.get(step, ())))
            if status == "open" and ready and not is_next:
                status, is_next = "next", True
            rows.append((step, status))
        rows += [(step, "unsure") for step in self._unsure if step not in self._expected]
        return rows + [(step, "wrong") for step in sorted(self._wrong)]

    def _in_place(self, step: int) -> bool:
        """Whether a step counts for those that it precedes, as in `Monitor`, or was seen.

        Where a part is expected to be put on and taken off, how it was at the start says nothing.
        """
        k = step // 3
        both = {3 * k, 3 * k + 2} <= self._expected
        held = step in self._done if both else self._monitor.holds(step)
        return held or step in self._seen or step in self._unsure

    def frame(self, step: int) -> int | None:
        """The frame at which a step was completed that is done or wrong, or else was seen."""
        known = self._done.get(step, self._wrong.get(step, self._seen.get(step)))
        return None if step in self._unsure else known

    def state(self) -> ChecklistState:
        """Returns all that `restore` needs to go on from here."""
        kept = (self._seen, self._done, self._wrong, self._unsure)
        of_steps = (list(steps.items()) for steps in kept)
        return ChecklistState(self._monitor.state(), *of_steps)

    def restore(self, state: ChecklistState) -> None:
        """Goes back to a saved state; ValueError if it is of another procedure or variant."""
        self._monitor.restore(state.monitor)
        self._seen, self._done = dict(state.seen), dict(state.done)
        self._wrong = dict(state.wrong)
        self._unsure = dict(state.unsure)
