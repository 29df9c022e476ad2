"""Live recognition at a work station: pictures in, lines of JSON out, a state that is saved."""

import collections
import datetime
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from stormpsr_jax.base import errors, files
from stormpsr_jax.live.capture import Capture, Clock, TimedPicture
from stormpsr_jax.live.receivers import Outbox
from stormpsr_jax.live.serve import Page
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.psr import cli
from stormpsr_jax.serving.content import check_checksum, with_checksum
from stormpsr_jax.serving.files import overlay, results
from stormpsr_jax.serving.files.overlay import Clips, reduced, thumbnail
from stormpsr_jax.serving.files.unit import Reset, Unit, UnitHistory, UnitState
from stormpsr_jax.serving.online import Live

STATUS_EVERY, SAVE_EVERY = 10.0, 5.0  # seconds
_WAIT = 0.2  # seconds for a picture, after which other things are looked at


class StationState(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a state file; `live` is that of `Live`."""

    source: str
    start: float
    frame: int | None
    dropped: int
    unit: UnitState
    live: dict[str, Any]
    past: UnitHistory
    format: Literal[6] = 6
    checksum: str = ""


class Station:
    """Recognises the pictures of one source until it ends or somebody ends it."""

    def __init__(
        self,
        live: Live,
        name: str,
        *,
        clock: Clock,
        reset: Reset,
        framing: Framing | None = None,
        calibrated: bool = True,
        state: Path | None = None,
        part_pictures: Sequence[bytes | None] = (),
        clips: Clips | None = None,
        tell: Callable[[str], None] | None = None,
    ):
        """Makes one at the start of a unit.

        Args:
            framing: of the model, which says where in the picture a box is; for a screen.
            calibrated: whether confidences are probabilities.
            state: file to save the state in.
            part_pictures: by component a JPEG of it in its place, or None; for a screen.
            clips: writes a video of each alert.
            tell: takes a line; None prints it.

        Raises:
            ValueError: `reset` does not go with the stream.
        """
        self._live, self._name, self._clock = live, name, clock
        self._unit, self._reset = Unit(live, reset), reset
        self._framing, self._calibrated = framing, calibrated
        self._path, self._tell = state, tell or _print
        self._outputs: Sequence[Outbox | Page] = ()
        self._screen: Screen | None = None
        self._asked = threading.Event()
        # To be told: records, when their pictures came, by `time.monotonic()`, and their JPEGs.
        self._lines: list[tuple[dict[str, Any], float | None, bytes | None]] = []
        self._history = UnitHistory()
        self._part_pictures, self._clips = part_pictures, clips
        self._dropped = 0  # before this process
        self.frame: int | None = None  # the last one that was taken, of any unit
        self._latencies: list[float] = []
        self._latency: float | None = None  # the last one
        self._since = self._saved = time.monotonic()
        self._saves = True  # whether the last save was one

    def ask_reset(self) -> None:
        """Ends the unit before the next picture; may be called by any thread."""
        self._asked.set()

    def run(
        self,
        capture: Capture,
        stop: Sequence,
        outputs: Sequence[Outbox | Page] = (),
        screen: Page | None = None,
    ) -> None:
        """Takes the pictures of a source until it ends, or `stop` is not empty any more.

        Args:
            outputs: are told the same as stdout.

        Raises:
            Exception: what ended the source.
        """
        self._outputs = outputs
        if screen is not None:
            self._screen = Screen(screen, self._live, self._framing, self._part_pictures)
        self._show_past()
        connected = False
        while not stop:
            ended = capture.ended  # before its last picture is asked for
            taken = capture.get(_WAIT)
            if self._asked.is_set():
                self._asked.clear()
                if self._unit.waiting:
                    self._unit.begin()
                else:
                    self._add("unit", self._unit.end("key"))
            if taken is not None:
                self._take(taken)
            self._flush(capture)
            if taken is not None:
                self._latency = time.monotonic() - taken.at
                self._latencies.append(self._latency)
            self._show(capture, taken)
            changed = capture.connected != connected and not capture.ended
            if changed or time.monotonic() > self._since + STATUS_EVERY:
                connected = capture.connected
                self._status(capture)
            if time.monotonic() > self._saved + SAVE_EVERY:
                self._save(capture)
            if taken is None and ended:
                break
        if capture.error is not None:
            raise capture.error
        if self._unit.began and (not stop or self._path is None):
            self._add("unit", self._unit.end("stopped" if stop else "end"))
        self._flush(capture)
        self._status(capture)
        self._show(capture, None)
        self._save(capture)

    def _take(self, taken: TimedPicture) -> None:
        live, unit = self._live, self._unit
        self.frame = live.frame_at(taken.time)
        if unit.waiting:
            live.look(taken.picture)
            unit.wait(self.frame)
            return
        events = live.update(taken.picture, taken.time)
        jpeg = None
        reported = [event for event in events if event.kind in ("report", "unsure")]
        if (reported or live.alerts) and self._screen is not None:
            jpeg = thumbnail(taken.picture)
        for event in events:
            kind = results.kind_of(event)
            procedure, fits = live.decoder.procedure, live.fits
            content = results.of_event(event, procedure, self._calibrated, fits)
            self._add(kind, content, taken.at, event.frame, jpeg if event in reported else None)
            if kind == "event" and event.state == "right" and self._screen is not None:
                self._screen.right_at[event.step_id] = event.frame
        for alert in live.alerts:
            self._add("alert", results.of_alert(alert), taken.at, alert.frame, jpeg)
        if self._clips is not None and live.shown is not None:
            moment = re.sub(r"\D", "", _wall_time(taken.at)[:19])
            kinds = [alert.kind.replace(" ", "_") for alert in live.alerts]
            names = [f"{moment}_{self.frame}_{kind}" for kind in kinds if kind != "withdrawn"]
            rows = [(step.step_id, step.status) for step in live.progress]
            drawn = overlay.Shown(self.frame / live.fps, rows, live.shown, live.decoder.floor)
            self._clips.add(self.frame, reduced(taken.picture), drawn, names[:1])
        why = unit.take(self.frame, events, _wall_time(taken.at))
        if why is not None:
            self._add("unit", unit.end(why))

    def _add(
        self,
        kind: str,
        content: Mapping[str, Any],
        at: float | None = None,
        frame: int | None = None,
        jpeg: bytes | None = None,
    ) -> None:
        self._lines.append(({**self._record(kind, at, frame), **content}, at, jpeg))

    def _record(self, kind: str, at: float | None, frame: int | None = None) -> dict[str, Any]:
        frame = self.frame if frame is None else frame
        seconds = None if frame is None else round(frame / self._live.fps, 6)
        return {
            "type": kind,
            "recording": self._name,
            "time_s": seconds,
            "wall_time": _wall_time(at),
            "frame": frame,
        }

    def _flush(self, capture: Capture) -> None:
        """Saves the state and then tells the lines.

        Killed in between, a line is missing; the other way round it would be told twice whenever
        somebody kills the process on seeing it.
        """
        lines, self._lines = self._lines, []
        if not lines:
            return
        for record, *_ in lines:
            self._history.add(record)
        self._save(capture)
        for record, at, jpeg in lines:
            if at is not None:
                record["latency_ms"] = _milliseconds(time.monotonic() - at)
            self._say({**record, "dropped": self._dropped + capture.dropped}, jpeg)
        self._show_past()

    def _status(self, capture: Capture) -> None:
        passed, self._since = time.monotonic() - self._since, time.monotonic()
        latencies, self._latencies = self._latencies, []
        p50, p99 = np.percentile(latencies, (50, 99)) if latencies else (None, None)
        content = {
            "unit": self._unit.state.count,
            "connected": capture.connected,
            "fps": round(len(latencies) / passed, 2) if passed else 0.0,
            "latency_p50_ms": _milliseconds(p50),
            "latency_p99_ms": _milliseconds(p99),
            "dropped": self._dropped + capture.dropped,
            "reconnections": capture.reconnections,
            "trouble": "" if capture.connected else capture.trouble,
            **results.of_product(self._live.product),
        }
        self._say(self._record("status", None) | content)

    def _say(self, record: Mapping[str, Any], jpeg: bytes | None = None) -> None:
        self._tell(json.dumps(record, ensure_ascii=False, allow_nan=False))
        if jpeg is not None and self._screen is not None:
            self._screen.page.snapshot(record["frame"], jpeg)
        for output in self._outputs:
            output.send(record)

    # --- Screen -----------------------------------------------------------------------------------

    def _show(self, capture: Capture, taken: TimedPicture | None) -> None:
        """Shows the picture that was just taken, or, without one, what has changed."""
        if self._screen is None:
            return
        live, unit = self._live, self._unit
        content = {
            "recording": self._name,
            "time_s": None if self.frame is None else round(self.frame / live.fps, 6),
            "unit": unit.state.count,
            "waiting": unit.waiting,
            "checklist": [step._asdict() for step in live.progress],
            "latency_ms": _milliseconds(self._latency),
            "dropped": self._dropped + capture.dropped,
        }
        self._screen.show(capture, taken, content)

    def _show_past(self) -> None:
        if self._screen is not None:
            now = {"unit": self._unit.state.count, "steps": self._unit.steps}
            self._screen.page.past(self._history.until(self._record("now", None) | now))

    # --- State ------------------------------------------------------------------------------------

    def _save(self, capture: Capture) -> None:
        """Saves the state; where that fails, as on a full disk, it says so and goes on."""
        self._saved = time.monotonic()
        if self._path is None:
            return
        saved = StationState(
            source=self._name,
            start=self._clock.start or 0.0,
            frame=self.frame,
            dropped=self._dropped + capture.dropped,
            unit=self._unit.state,
            live=self._live.state(),
            past=self._history,
        )
        try:
            files.write_json(self._path, with_checksum(msgspec.to_builtins(saved)))
            self._saves = True
        except OSError as error:
            if self._saves:  # told once, until it works again
                what = "recognition goes on, and the next start goes on from the last state"
                errors.tell("warning", f"{errors.message_of(error)}; {what}")
            self._saves = False

    def restore(self) -> None:
        """Goes on from the state in the file, if there is one.

        Raises:
            ValueError: it is damaged, or of another source, model, stream, variant or threshold.
        """
        if (path := self._path) is None or not path.exists():
            return
        try:
            content = files.read_json(path)
            saved = files.fit(content, StationState, "state")
            check_checksum(content)
            if saved.source != self._name:
                known, own = files.shorten(saved.source), files.shorten(self._name)
                raise ValueError(f"is the state of another source, {known}; this one is {own}")
            self._live.restore(saved.live)
        except ValueError as error:
            text = f"{path}: {str(error).removeprefix(f'{path}: ')}"
            raise ValueError(f"{text}; remove it to start anew, or give another --state") from error
        self.frame, self._dropped, self._unit.state = saved.frame, saved.dropped, saved.unit
        self._history = saved.past
        if self.frame is not None:
            # Never back, though the clock of the machine may have been set.
            latest = time.time() - (self.frame + 1) / self._live.fps
            self._clock.start = min(saved.start, latest)


def _print(line: str) -> None:
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError as error:
        cli.drop_output()
        raise OSError(error.errno, f"cannot be written ({error.strerror})", "stdout") from error


def _wall_time(at: float | None) -> str:
    """When that was, of `time.monotonic()`; None is now."""
    ago = 0.0 if at is None else time.monotonic() - at
    moment = datetime.datetime.fromtimestamp(time.time() - ago, datetime.UTC)
    return moment.isoformat(timespec="milliseconds")


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * float(seconds), 1)


_SHOWN = 1280  # pixels of the longer side of a picture, at most
_RATE_SECONDS = 3.0  # that the pictures per second are of


class Screen:
    """Shows the pictures of a station on its page."""

    def __init__(
        self,
        page: Page,
        live: Live,
        framing: Framing | None,
        part_pictures: Sequence[bytes | None] = (),
    ):
        """Shows nothing yet; for the others see `Station`."""
        self.page, self._live, self._framing = page, live, framing
        self._part_pictures = part_pictures
        self.right_at: dict[int, int] = {}  # by installation, the frame of its last report
        self._pictures_shown: set[int] = set()  # components that are asked for with one
        self._done_at: collections.deque[float] = collections.deque()  # of the last seconds

    def show(
        self, capture: Capture, taken: TimedPicture | None, content: Mapping[str, Any]
    ) -> None:
        """Shows the picture that was just taken, or, without one, what has changed."""
        jpeg = box = None
        if taken is not None:
            self._done_at.append(time.monotonic())
            if self.page.wants_picture:
                jpeg, box = thumbnail(taken.picture, _SHOWN), self._box(taken.picture)
        self.page.frame(jpeg, {**content, **self._view(capture), "box": box})

    def _view(self, capture: Capture) -> dict[str, Any]:
        live, now = self._live, time.monotonic()
        live_as = "playing" if capture.is_file else "live"
        source = live_as if capture.connected else "lost" if capture.trouble else "opening"
        recent = self._done_at
        while recent and now - recent[0] > _RATE_SECONDS:
            recent.popleft()
        unsure = live.unsure
        self._pictures_shown &= {step // 3 for step in unsure}
        view = {
            "source": "ended" if capture.ended else source,
            "fits": live.fits,
            "product": str(live.product),
            "fps": round((len(recent) - 1) / (now - recent[0]), 1) if len(recent) > 1 else None,
            "unsure": [self._asked_of(step) for step in unsure],
        }
        if (beliefs := live.beliefs) is not None:
            view["beliefs"] = [part._asdict() for part in beliefs]
        return view

    def _asked_of(self, step: int) -> dict[str, Any]:
        """What a page asks about an installation that is not sure.

        "like": the frame at which it was right last, in this unit or one before; if there was none,
        a number below 0 of the model's picture of it, or None.
        """
        k, like = step // 3, self.right_at.get(step)
        picture = self._part_pictures[k] if self._part_pictures else None
        if like is None and picture is not None:
            like = -1 - k
            if k not in self._pictures_shown:
                self.page.snapshot(like, picture)
                self._pictures_shown.add(k)
        component = self._live.decoder.procedure.components[k]
        return {"step_id": step, "component": component, "like": like}

    def _box(self, picture: np.ndarray) -> dict[str, Any] | None:
        latest, decoder = self._live.shown, self._live.decoder
        if latest is None or self._framing is None:
            return None
        if (seen := latest.clear(decoder.floor)) is None:
            return None
        detected, confidence, box = seen
        framing = latest.framed(self._framing)
        corners = framing.place(*picture.shape[:2]).source_box(box)
        return dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True)) | {
            "label": overlay.seen_as(decoder.procedure, detected, confidence),
            "error": detected == decoder.procedure.error_class,
        }
