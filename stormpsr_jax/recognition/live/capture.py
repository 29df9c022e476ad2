"""Pictures of a live source, read in a thread that keeps only the newest ones."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from stormpsr_jax.media import containers, sources, video
from stormpsr_jax.media.pictures import MAX_FRAME_PIXELS
from stormpsr_jax.media.trees import Tree
from stormpsr_jax.recognition.live import rtsp

# Seconds before a lost source is opened again: the first, doubled up to the last.
FIRST_PAUSE, LAST_PAUSE = 0.25, 8.0
PATIENCE = 5.0  # seconds without an answer or any data, after which a source is lost
# Seconds of data without a whole picture, after which it is lost too. Whole ones begin with a key
# picture, which some cameras send every twenty seconds only.
BLIND = 30.0
# Seconds by which a picture's own time may be ahead of the clock, and behind it.
_AHEAD, _BEHIND = 0.5, 5.0
_MAX_BURST = 2.0  # seconds of pictures that came while a source was opened
_RTSP = {
    # All over the one connection to the address that was given; no other protocol, no other port.
    "rtsp_transport": "tcp",
    "protocol_whitelist": "rtsp,rtp,tcp",
    "allowed_media_types": "video",
    "max_pixels": str(MAX_FRAME_PIXELS),
    "fflags": "nobuffer",
    "flags": "low_delay",
    # FFmpeg looks at what comes in for so many microseconds before it gives a picture.
    "analyzeduration": "500000",
    "fpsprobesize": "0",
}
PASSWORD = "STORMPSR_RTSP_PASSWORD"  # a password on the command line is seen by every user
# Also with a space or a quote in front, as may be secret what would be told of a file's name.
_ADDRESS = re.compile(r"\W*(rtsps?:|[a-z][a-z0-9+.-]+://)", re.IGNORECASE)
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}:none")}

_Shown = tuple[float | None, Callable[[], np.ndarray]]  # its own time in seconds; decodes it


class Taken(NamedTuple):
    """A picture.

    Attributes:
        time: seconds since the beginning, by the clock.
        picture: uint8 RGB (H, W, 3).
        at: `time.monotonic()` when it came.
    """

    time: float
    picture: np.ndarray
    at: float


# --- Sources --------------------------------------------------------------------------------------


class LiveSource(Protocol):
    """A camera, a stream, or a file that plays.

    Attributes:
        name: for people, without what may be secret.
        is_file: whether it has an end, and its own time from 0 on.
    """

    name: str
    is_file: bool

    def open(self) -> contextlib.AbstractContextManager[Iterator[_Shown]]:
        """Opens it; ValueError, also from the iterator, if it cannot be read."""


def is_live(word: str) -> bool:
    """Says whether a SOURCE is a camera or a stream.

    Raises:
        ValueError: it is an address of another kind, or none; what may be secret is not repeated.
    """
    if word.startswith("camera:"):
        return True
    return bool(_ADDRESS.match(word) and _parts(word))


def live_source(word: str) -> LiveSource:
    """Returns the source that a word names: camera:N, rtsp://…, or a video file.

    Raises:
        ValueError: it is none, or PyAV is missing.
    """
    camera = word.startswith("camera:")
    if is_live(word) and not camera:
        address, name = _address(word)
        sources.check_video_extra(f"{name}: reading it")
        return _Stream(name, address, "rtsp", _RTSP)
    sources.check_video_extra(f"{word}: reading it")
    if camera:
        if not re.fullmatch("camera:[0-9]{1,3}", word, re.ASCII):
            raise ValueError(f"{word}: cameras are camera:0, camera:1, …")
        if sys.platform not in _CAMERAS:
            raise ValueError(f"{word}: cameras can be read on Linux and macOS only")
        form, place = _CAMERAS[sys.platform]
        return _Device(word, place.format(int(word[7:])), form, {})
    source = sources.open_source(word)
    if not source.is_video:
        raise ValueError(f"{word}: --realtime plays a video file; a folder of pictures has no time")
    return _Playing(source.name, source.place)


def _parts(word: str) -> urllib.parse.SplitResult:
    """The parts of an address of a stream; ValueError if it is none."""
    try:
        parts = urllib.parse.urlsplit(word)
        good = parts.scheme == "rtsp" and parts.hostname and parts.port != 0
        host = "" if "@" in word else parts.hostname or ""  # what is before an @ may be secret
    except ValueError:
        good, host = False, ""
    if not good or not word.isascii() or not word.isprintable() or " " in word:
        kind = word.partition(":")[0].strip().lower()
        raise ValueError(
            f"{kind}://{host}…: addresses are rtsp://HOST/PATH or "
            "rtsp://USER:PASSWORD@HOST:PORT/PATH, with special characters percent-encoded"
        )
    return parts


def _address(word: str) -> tuple[str, str]:
    """The address to open, and what to call it: path and query may be as secret as a password.

    So the name has four digits in their place, by which two streams of a server differ, and which
    take a twentieth of a second to compute, that nobody may try many paths.
    """
    parts = _parts(word)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    name = f"rtsp://{host}" + (f":{parts.port}" if parts.port else "")
    what = urllib.parse.urlunsplit(parts._replace(scheme="", netloc=""))
    if what.strip("/"):
        cost = {"n": 2**14, "r": 8, "p": 1}
        name += f"/#{hashlib.scrypt(what.encode(), salt=name.encode(), dklen=2, **cost).hex()}"
    if parts.username and not parts.password and (password := os.environ.get(PASSWORD)):
        user, _, at = parts.netloc.rpartition("@")
        secret = urllib.parse.quote(password, safe="")
        parts = parts._replace(netloc=f"{user.rstrip(':')}:{secret}@{at}")
    return urllib.parse.urlunsplit(parts), name


class _Device:
    """What FFmpeg opens: a camera or a stream."""

    is_file = False

    def __init__(self, name: str, place: str, form: str, options: dict[str, str]):
        self.name, self._place, self._form, self._options = name, place, form, options

    def open(self) -> contextlib.AbstractContextManager[Iterator[_Shown]]:
        return self._opened(self._place)

    @contextlib.contextmanager
    def _opened(self, place: str) -> Iterator[Iterator[_Shown]]:
        import av

        try:
            with av.open(
                place,
                format=self._form,
                options=self._options,
                timeout=(PATIENCE, PATIENCE),
                **containers.any_encoding(av),
            ) as container:
                if not container.streams.video:
                    raise ValueError(f"{self.name}: there is no video in it")
                yield self._read(container, container.streams.video[0])
        except av.error.FFmpegError as error:
            raise ValueError(f"{self.name}: cannot be read ({error.strerror})") from error

    def _read(self, container, stream) -> Generator[_Shown]:
        if stream.codec_context is None:
            raise ValueError(f"{self.name}: no decoder for its video is known")
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        stream.thread_type = "SLICE"  # with a frame a thread, pictures come that much later
        seen = time.monotonic()
        for packet in container.demux():  # of all streams: one of them alone may go on for ever
            for frame in packet.decode() if packet.stream is stream else ():
                if not frame.is_corrupt:  # grey where what it builds upon was not seen
                    yield frame.time, lambda frame=frame: video.upright(frame, self.name)
                    seen = time.monotonic()
            if time.monotonic() > seen + BLIND:
                raise ValueError(f"{self.name}: no picture is in what came for {BLIND:g} s")


class _Stream(_Device):
    """An RTSP stream, whose server may not send to another one: FFmpeg would go there."""

    @contextlib.contextmanager
    def open(self) -> Iterator[Iterator[_Shown]]:
        try:
            relay = rtsp.Relay(self._place, PATIENCE)
        except OSError as error:
            raise ValueError(f"{self.name}: cannot be read ({error.strerror or error})") from error
        with contextlib.closing(relay):
            try:
                with self._opened(relay.url) as shown:
                    yield shown
            except ValueError as error:
                why = f"{self.name}: {relay.refused}" if relay.refused else str(error)
                raise ValueError(why) from error
        if relay.refused:
            raise ValueError(f"{self.name}: {relay.refused}")


class _Playing:
    """A video file that plays at its own pace."""

    is_file = True

    def __init__(self, name: str, place: Path):
        self.name, self._tree, self._file = name, Tree(str(place.parent)), place.name

    @contextlib.contextmanager
    def open(self) -> Iterator[Iterator[_Shown]]:
        times = containers.read_times(self._tree, self._file)
        with contextlib.closing(video.decode(self._tree, self._file)) as pictures:
            yield (
                (float(moment - times[0]), lambda picture=picture: picture)
                for moment, picture in zip(times, pictures, strict=False)
            )


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

    def wall(self, seconds: float) -> float:
        """The second of the epoch of a time."""
        return (self.start or 0.0) + seconds


# --- The thread -----------------------------------------------------------------------------------


class Capture:
    """Reads a source; use it as a context.

    Attributes:
        dropped: pictures that would have been recognised if that were faster.
        reconnections: how often the source was opened again.
        connected: whether pictures come.
        trouble: why they do not, or the last time did not.
        error: what ended it; None after the end of a file.
        ended: whether nothing will come any more.
    """

    def __init__(
        self,
        source: LiveSource,
        clock: Clock,
        frame_at: Callable[[float], int],
        *,
        depth: int,
        after: int | None = None,
    ):
        """Reads pictures from now on.

        Args:
            source: what to read.
            clock: gives the time of its pictures.
            frame_at: the frame of a time; of several pictures of a frame only the first is kept.
            depth: pictures that are kept until they are taken; then the oldest is dropped.
            after: goes on after this frame; a file plays from there on.
        """
        self._source, self._clock, self._frame_at = source, clock, frame_at
        self._frame, self._resumed = after, after is not None
        self._kept: collections.deque[Taken] = collections.deque()
        self._depth = depth
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self.dropped = self.reconnections = 0
        self.connected, self.ended, self.trouble = False, False, ""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join(PATIENCE + 1)

    def get(self, seconds: float) -> Taken | None:
        """The oldest picture that is kept; None if none comes for so long, or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._kept or self.ended, seconds)
            return self._kept.popleft() if self._kept else None

    def _work(self) -> None:
        read = self._play if self._source.is_file else self._watch
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
                        at = time.monotonic()
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
        taken = Taken(seconds, decode(), at)
        with self._changed:
            if len(self._kept) == self._depth:
                self._kept.popleft()
                self.dropped += 1
            self._kept.append(taken)
            self.connected = True
            self._changed.notify_all()


def _from_now_on(shown: Iterator[_Shown]) -> Iterator[_Shown]:
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
