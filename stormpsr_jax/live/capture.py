"""Pictures of a live source, read in a thread that keeps only the newest ones."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from stormpsr_jax.live.live_sources import PATIENCE, Device, PlayingFile, Shown

# Seconds before a lost source is opened again: the first, doubled up to the last.
FIRST_PAUSE, LAST_PAUSE = 0.25, 8.0
# Seconds by which a picture's own time may be ahead of the clock, and behind it.
_AHEAD, _BEHIND = 0.5, 5.0
_GRACE = 1.0  # seconds for a source to notice by itself that it is silent
_MAX_BURST = 2.0  # seconds of pictures that came while a source was opened


class TimedPicture(NamedTuple):
    """A picture."""

    time: float  # seconds since the beginning, by the clock
    picture: np.ndarray  # uint8 RGB (H, W, 3)
    at: float  # `time.monotonic()` when it came


# --- The clock ------------------------------------------------------------------------------------


class Clock:
    """Seconds since the first picture, which go on while the source or this process does not."""

    def __init__(self, fps: float, start: float | None = None):
        """`start`: the second of the epoch that is 0; None is when the first picture comes."""
        self._fps, self.start = fps, start
        self._offset = time.time() - time.monotonic()
        self._anchor: float | None = None  # what is added to a picture's own time

    def now(self, at: float) -> float:
        """Seconds since the first picture at an instant of `time.monotonic()`."""
        if self.start is None:
            self.start = at + self._offset
        return max(0.0, at + self._offset - self.start)

    def reopened(self) -> None:
        """Pictures have another time of their own from now on."""
        self._anchor = None

    def time(self, own: float | None, at: float) -> float:
        """When a picture was taken.

        It came at `at`, and has a time of its own unless that is None. Its own is the better one:
        pictures come as unevenly as the network lets them. The first one is put at a whole frame,
        so that those of a source with the model's frame rate do not lie between two of them.
        """
        now = self.now(at)
        if own is None:
            return now
        if self._anchor is None or not now - _BEHIND < self._anchor + own < now + _AHEAD:
            self._anchor = round(now * self._fps) / self._fps - own
        return max(0.0, self._anchor + own)


# --- The thread -----------------------------------------------------------------------------------


class Capture:
    """Reads a source; use it as a context."""

    def __init__(
        self,
        source: Device | PlayingFile,
        clock: Clock,
        frame_at: Callable[[float], int],
        *,
        depth: int,
        after: int | None = None,
    ):
        """Reads pictures from now on; a file plays from the one `after` this frame.

        Of several pictures of a frame the first is kept, and the newest `depth` until taken.
        """
        self._source, self._clock, self._frame_at = source, clock, frame_at
        self.is_file = source.is_file
        self._frame, self._resumed = after, after is not None
        self._kept: collections.deque[TimedPicture] = collections.deque()
        self._depth = depth
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._came = time.monotonic()  # when the last picture did
        self.dropped = 0  # pictures that would have been recognised if that were faster
        self.reconnections = 0
        self.connected, self.trouble = False, ""  # why it is not, or the last time was not
        self.ended = False
        self.error: Exception | None = None  # what ended it, unless that is the end of a file
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE + 1)

    def get(self, seconds: float) -> TimedPicture | None:
        """The oldest picture that is kept; None if none comes for so long, or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._kept or self.ended, seconds)
            # A camera may hang for ever in its driver, where nothing can interrupt it.
            silent = time.monotonic() - self._came
            if self.connected and not self.is_file and silent > PATIENCE + _GRACE:
                self.connected = False
                self.trouble = f"{self._source.name}: no picture for {silent:.0f} s"
            return self._kept.popleft() if self._kept else None

    def _work(self) -> None:
        read = self._play if self.is_file else self._watch
        try:
            read()
        except Exception as error:  # which the thread that takes the pictures raises
            self.error = error
        with self._changed:
            self.ended, self.connected = True, False
            self._changed.notify_all()

    def _play(self) -> None:
        start = None
        with self._source.open() as shown:
            for own, decode in shown:
                assert own is not None  # a file's pictures have times
                if not self._is_next(own):
                    continue
                start = time.monotonic() - own if start is None else start
                if self._stop.wait(max(0.0, start + own - time.monotonic())):
                    return
                self._keep(own, decode, time.monotonic())

    def _watch(self) -> None:
        pause, ever = FIRST_PAUSE, self._resumed
        while not self._stop.is_set():
            try:
                with self._source.open() as shown:
                    self._clock.reopened()
                    for own, decode in _from_now_on(shown):
                        if self._stop.is_set():
                            return
                        at = self._came = time.monotonic()
                        seconds = self._clock.time(own, at)
                        if self._is_next(seconds):
                            self._keep(seconds, decode, at)
                            pause, ever = FIRST_PAUSE, True
                raise ValueError(f"{self._source.name}: ended")
            except ValueError as error:
                self.connected, self.trouble = False, str(error)
                if not ever:
                    raise
            self._stop.wait(pause)
            pause = min(2 * pause, LAST_PAUSE)
            self.reconnections += 1

    def _is_next(self, seconds: float) -> bool:
        return self._frame is None or self._frame_at(seconds) > self._frame

    def _keep(self, seconds: float, decode: Callable[[], np.ndarray], at: float) -> None:
        self._frame = self._frame_at(seconds)
        taken = TimedPicture(seconds, decode(), at)
        with self._changed:
            if len(self._kept) == self._depth:
                self._kept.popleft()
                self.dropped += 1
            self._kept.append(taken)
            self.connected = True
            self._changed.notify_all()


def _from_now_on(shown: Iterator[Shown]) -> Iterator[Shown]:
    """Passes over what came while the source was opened: it comes faster than it was taken."""
    before, live, start = None, False, time.monotonic()
    for own, decode in shown:
        at = time.monotonic()
        if not live and before is not None:
            if own is None or at - start > _MAX_BURST:
                live = True
            elif before[0] is not None:
                live = at - before[1] > 0.5 * (own - before[0])
        before = own, at
        if live:
            yield own, decode
