"""Recognition picture by picture, as they come: `model.live()`.

The clock decides which frame a picture is, so that the time axis of the decoder and of the window
is that of the video, whatever is late, dropped or lost in between.
"""

import collections
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from stormpsr_jax.base.files import fit, shorten
from stormpsr_jax.psr.events import LAST_FRAME, Event, OnlineDecoder
from stormpsr_jax.psr.monitor import Alert
from stormpsr_jax.serving import checklist
from stormpsr_jax.serving.checklist import Checklist
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
    checklist: checklist.ChecklistState
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
                events = [*events, Event(frame, step, 1.0, checklist.PERSON, {}, name(step), at)]
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
        name, found = self.decoder.procedure.step_name, []
        belief = None if self.decoder.belief is None else self.decoder.belief.probabilities()
        for step, status in self._checklist.rows():
            frame = self._checklist.frame(step)
            time = None if frame is None else round(frame / self.fps, 6)
            likely = None
            if frame is not None and belief is not None:
                likely = round(checklist.likely(step, belief), 4)
            found.append(Step(step, name(step), status, time, likely))
        return found

    @property
    def beliefs(self) -> list[PartBelief] | None:
        """What is believed of each component since the last picture; None without beliefs."""
        belief = self.decoder.belief
        if belief is None:
            return None
        likely = belief.probabilities()
        rows = self.decoder.procedure.components, likely.right.tolist(), likely.wrong.tolist()
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
