"""Recognition picture by picture, as they come: `model.live()`.

The clock decides which frame a picture is, so that the time axis of the decoder and of the window
is that of the video, whatever is late, dropped or lost in between.
"""

from __future__ import annotations

import base64
import collections
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base.files import shorten, whole
from stormpsr_jax.psr.monitor import Alert
from stormpsr_jax.psr.streams.rules import LAST_FRAME, Event, Seen
from stormpsr_jax.psr.streams.stream import OnlineDecoder
from stormpsr_jax.serving.checklist import Checklist
from stormpsr_jax.serving.product_gate_watch import Held, Watch
from stormpsr_jax.serving.recogniser import Recogniser, Rows, seen_in, stack

FORMAT = 3  # of a saved state
# Seconds by which a picture may be older than the one before it: it is passed over then. More is
# another clock.
LATE = 1.0
_LARGEST = 2**53  # of a number in a saved state


class Step(NamedTuple):
    """A step of the checklist.

    Attributes:
        step_id: 3k (install component k), 3k + 1 (install it wrong), 3k + 2 (remove).
        name: such as "Install left frame".
        status: "done", "next", "open", "missing" (what should come after it is done) or "wrong"
            (done, but not expected; with 3k + 1, component k sits wrong).
        time_s: when it was done, of one that is done or wrong; else None.
    """

    step_id: int
    name: str
    status: str
    time_s: float | None


class Part(NamedTuple):
    """How likely a component sits right, and wrong, in 0…1."""

    component: str
    right: float
    wrong: float


class Row(NamedTuple):
    """A picture that is still to be decoded: its frame, and what the networks say of it."""

    frame: int
    seen: Seen
    top: tuple[int, float, np.ndarray] | None  # as `Live.seen`


class Live:
    """Recognition of one procedure after the other, picture by picture. Memory does not grow.

    Attributes:
        alerts: those of the last picture (`psr.Alert`).
        seen: its most confident detection, (class, confidence, box cx, cy, w, h in 0…1 of the
            prepared picture), or None.
        changed: (K,) probabilities of the temporal stream at it, or None.
        frame: the number of the last picture's frame, or None before the first one.
        watch: knows whether the pictures fit the model.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[np.ndarray], Rows],
        recogniser: Callable[[], Recogniser],
        decoder: Callable[[], OnlineDecoder],
        watch: Watch,
        fps: float,
        frame_step: int,
        window: tuple[int, int] | None,
        of_model: str,
    ):
        """Is made by `Model.live`.

        Args:
            prepare: a picture → a row for the recogniser.
            recogniser, decoder: make one at its start.
            watch: at its start.
            fps: of the model.
            frame_step: frames from one row to the next.
            window: (frames, D) of the embeddings that are kept; None where none are.
            of_model: tells the model from others.
        """
        self._prepare, self._make_recogniser, self._make_decoder = prepare, recogniser, decoder
        self.fps, self._step = fps, frame_step
        self.watch = watch
        self._window, self._of_model = window, of_model
        # To be decoded now, and None where a unit ends.
        self._rows: collections.deque[Row | None] = collections.deque()
        self.reset()

    def reset(self) -> None:
        """Starts anew, for the next unit: the variant's initial state, an empty window.

        Times may go on or start from 0 again. Whether the pictures fit stays known. What is held
        back is forgotten.
        """
        self._decoder = self._make_decoder()
        self._checklist = self._make_checklist()
        self.alerts: list[Alert] = []
        if self._rows:
            return  # they are of the next unit, as is what was seen after them
        self._held = Held[Row | None](self.watch)
        self._recogniser = self._make_recogniser()
        self.seen: tuple[int, float, np.ndarray] | None = None
        self.changed: np.ndarray | None = None
        self.frame: int | None = None

    def _make_checklist(self) -> Checklist:
        decoder = self._decoder
        return Checklist(decoder.procedure, decoder.variant, decoder.floor, self.fps)

    def frame_at(self, time: float) -> int:
        """The number of the frame nearest to a time in seconds: round(time · fps), halves up.

        Of a model on embeddings of every s-th frame, a multiple of s.
        """
        if not 0 <= time * self.fps < _LARGEST:
            raise ValueError(f"time={time} is not a number of seconds from 0 up")
        return self._step * math.floor(time * self.fps / self._step + 0.5)

    def update(self, picture: np.ndarray, time: float) -> list[Event]:
        """Takes the next picture and returns the steps that complete at it, by step id.

        Until it is known whether the pictures fit the model, steps are held back; then all of them
        come at once, each with its own frame. While the pictures do not fit, there are none.

        Of several pictures of one frame (`frame_at`) the first counts. A frame without a picture is
        one without evidence: what was summed up decays, and in the window it repeats the frame
        before it.

        Args:
            picture: uint8 RGB (H, W, 3) of any size; for a model on ready-made embeddings, (D,).
            time: when it was taken, in seconds from any instant on that lies before.

        Raises:
            ValueError: it is no such array, or the time is more than `LATE` seconds before that of
                the picture before. It is not taken then.
        """
        return self._decoded(self.take(picture, time))

    def take(self, picture: np.ndarray, time: float) -> Iterator[Row | None]:
        """As `update`, but yields what is to be decoded now, for `decode`, row by row.

        So a unit may end between two of them: after `reset` the others are of the next one. None
        stands where `mark` was called.
        """
        frame = self.frame_at(time)
        if self.frame is not None and frame <= self.frame:
            if self.frame - frame > LATE * self.fps + self._step:
                raise ValueError(
                    f"time={time:g}: the picture before was at {self.frame / self.fps:g}; reset() "
                    "starts a new clock"
                )
            return iter(())
        row = self._prepare(picture)
        passed = 1  # pictures, were none missing
        if self.frame is not None:
            passed = (frame - self.frame) // self._step
            self._recogniser.miss(passed - 1)
        recognised = self._recogniser(stack([row]))
        self.frame, self.seen = frame, recognised.top(0)
        probabilities = recognised.probabilities
        self.changed = None if probabilities is None else probabilities[0]
        (value,) = self.watch.of(recognised)
        new = Row(frame, seen_in(recognised, 0), self.seen)
        # One of a slow source stands for those up to it; what was lost with a source does not.
        stands_for = min(passed, max(1, round(self.fps / self._step)))
        self._rows.extend(self._held.add(new, value, stands_for))
        return self._taken()

    def _taken(self) -> Iterator[Row | None]:
        while self._rows:
            yield self._rows.popleft()

    def decode(self, row: Row) -> list[Event]:
        """Returns the steps that complete at a row of `take` or `rest`, and sets `alerts`."""
        events = self._decoder.observe(row.frame, row.seen, self._step)
        belief = self._decoder.belief
        likely = None if belief is None else belief.probabilities()
        top = [] if row.top is None else [row.top[:2]]
        self.alerts = self._checklist.update(row.frame, events, top, likely)
        return events

    def _decoded(self, rows: Iterator[Row | None]) -> list[Event]:
        events: list[Event] = []
        alerts: list[Alert] = []
        for row in rows:
            if row is not None:
                events += self.decode(row)
                alerts += self.alerts
        self.alerts = alerts
        return events

    def mark(self) -> None:
        """Notes among what is held back that a unit ends here."""
        self._held.put(None)

    def rest(self) -> Iterator[Row | None]:
        """Yields what is still held back, as `take` does, where the source has ended."""
        self.watch.finish()
        self._rows.extend(self._held.release())
        return self._taken()

    def end(self) -> list[Event]:
        """Returns the steps that are still held back, where the source has ended."""
        return self._decoded(self.rest())

    @property
    def fits(self) -> bool | None:
        """Whether the pictures fit the model; None if that is not known, or it cannot tell."""
        return self.watch.fits

    @property
    def holding(self) -> bool:
        """Whether steps are held back until that is known."""
        return self.watch.holding

    def look(self, picture: np.ndarray) -> None:
        """Sets `seen` from a picture that is no part of the assembly: nothing else changes."""
        self.seen = self._recogniser.look(stack([self._prepare(picture)])).top(0)

    def finish(self) -> list[Alert]:
        """Alerts for the expected steps that are missing if the procedure ends now."""
        return self._checklist.finish()

    @property
    def progress(self) -> list[Step]:
        """The expected steps, and then the wrong ones."""
        name, found = self._decoder.procedure.step_name, []
        for step, status in self._checklist.rows():
            frame = self._checklist.frame(step)
            time = None if frame is None else round(frame / self.fps, 6)
            found.append(Step(step, name(step), status, time))
        return found

    @property
    def beliefs(self) -> list[Part] | None:
        """What is believed of each component since the last picture; None without beliefs."""
        belief = self._decoder.belief
        if belief is None:
            return None
        likely = belief.probabilities()
        rows = self._decoder.procedure.components, likely.right.tolist(), likely.wrong.tolist()
        return [Part(*row) for row in zip(*rows, strict=True)]

    @property
    def decoder(self) -> OnlineDecoder:
        """Says what the assembly is like (`decoder.assembly`), the variant and the stream."""
        return self._decoder

    @property
    def detects(self) -> bool:
        """Whether the stream looks for the object (else `seen` is always None)."""
        return self._recogniser.detects

    # --- State ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs to go on from here, as plain values for JSON."""
        window = self._recogniser.window
        return {
            "format": FORMAT,
            "model": self._of_model,
            "frame": self.frame,
            "window": None if window is None else _packed(window),
            "decoder": self._decoder.state(),
            "checklist": self._checklist.state(),
            "fits": self.watch.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state. Nothing in it is executed.

        Raises:
            ValueError: it was saved by another model, stream, variant or settings, or it is none.
                Everything stays as it is then.
        """
        decoder, recogniser = self._make_decoder(), self._make_recogniser()
        checklist = self._make_checklist()
        if not isinstance(state, Mapping) or state.get("format") != FORMAT:
            raise ValueError(f"not a state of format {FORMAT}, which `Live.state` returns")
        if state.get("model") != self._of_model:
            raise ValueError(
                f"the saved state is of a model of {shorten(state.get('model'))}, this one is of "
                f"{self._of_model}"
            )
        check_alike(state.get("decoder"), decoder.state(), "decoder")
        check_alike(state.get("checklist"), checklist.state(), "checklist")
        frame = state.get("frame")
        if frame is not None:
            whole(frame, "frame: the saved state is damaged", 0, LAST_FRAME)
        try:
            decoder.restore(state["decoder"])
            checklist.restore(state["checklist"])
        except (TypeError, IndexError, KeyError) as error:
            raise ValueError(f"the saved state is damaged ({error})") from error
        # A row of embeddings stands for several frames.
        last = -1 if frame is None else frame + self._step - 1
        for part in (state["decoder"], state["checklist"]["monitor"]):
            whole(part["frame"], "frame: the saved state is damaged", -1, last)
        shape = None if frame is None else self._window
        recogniser.window = _unpacked(state.get("window"), shape)
        self.watch.restore(state.get("fits"))
        self._held = Held(self.watch)
        self._recogniser, self._decoder, self._checklist = recogniser, decoder, checklist
        self.alerts, self.seen, self.changed, self.frame = [], None, None, frame


def _packed(array: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(array, "<f4")
    return {"shape": list(data.shape), "float32": base64.b64encode(data.tobytes()).decode()}


def _unpacked(packed: Any, shape: tuple[int, int] | None) -> np.ndarray | None:
    """Returns the finite numbers that `_packed` has packed, which have to be of this shape."""
    if packed is None and shape is None:
        return None
    try:
        if shape is None or tuple(packed["shape"]) != shape:
            raise ValueError(f"{shorten(packed['shape'])} instead of {shape}")
        data = np.frombuffer(base64.b64decode(packed["float32"], validate=True), "<f4")
        array = data.reshape(shape).astype(np.float32)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"window: the saved state is damaged ({error})") from error
    if not np.isfinite(array).all():
        raise ValueError("window: the saved state is damaged (not finite)")
    return array


def check_alike(value: Any, like: Any, place: str) -> None:
    """Checks that a saved value has the form of a fresh one, in which empty lists may grow.

    What they hold then are numbers, and lists of them. In place of None may be a whole number.

    Raises:
        ValueError: it has not; names the place.
    """
    if isinstance(like, Mapping):
        good = isinstance(value, Mapping) and value.keys() == like.keys()
        if good:
            for key in like:
                check_alike(value[key], like[key], f"{place}: {key}")
    elif isinstance(like, list):
        good = isinstance(value, list) and (not like or len(value) == len(like))
        for i, item in enumerate(value if good else []):
            form = like[i] if like else [] if isinstance(item, list) else 0.0
            check_alike(item, form, f"{place}: {i}")
    elif isinstance(like, str | bool):
        good = type(value) is type(like)
    else:
        kinds = int | float if isinstance(like, float) else int
        number = isinstance(value, kinds) and not isinstance(value, bool)
        good = (number and abs(value) <= _LARGEST) or (value is None and like is None)
    if not good:
        raise ValueError(f"{place}: the saved state is damaged ({shorten(value)})")
