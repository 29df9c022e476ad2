"""Pictures of a live source, read in a thread that keeps only the newest ones."""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import hashlib
import os
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.media import sources, video

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

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

    def time(self, stamp: float | None, at: float) -> float:
        """When a picture was taken.

        It came at `at`, and has a time of its own unless that is None. Its own is the better one:
        pictures come as unevenly as the network lets them. The first one is put at a whole frame,
        so that those of a source with the model's frame rate do not lie between two of them.
        """
        now = self.now(at)
        if stamp is None:
            return now
        if self._anchor is None or not now - _BEHIND < self._anchor + stamp < now + _AHEAD:
            self._anchor = round(now * self._fps) / self._fps - stamp
        return max(0.0, self._anchor + stamp)


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
            for stamp, decode in shown:
                assert stamp is not None  # a file's pictures have times
                if not self._is_next(stamp):
                    continue
                start = time.monotonic() - stamp if start is None else start
                if self._stop.wait(max(0.0, start + stamp - time.monotonic())):
                    return
                self._keep(stamp, decode, time.monotonic())

    def _watch(self) -> None:
        pause, ever = FIRST_PAUSE, self._resumed
        while not self._stop.is_set():
            try:
                with self._source.open() as shown:
                    self._clock.reopened()
                    for stamp, decode in _from_now_on(shown):
                        if self._stop.is_set():
                            return
                        at = self._came = time.monotonic()
                        seconds = self._clock.time(stamp, at)
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
    for stamp, decode in shown:
        at = time.monotonic()
        if not live and before is not None:
            if stamp is None or at - start > _MAX_BURST:
                live = True
            elif before[0] is not None:
                live = at - before[1] > 0.5 * (stamp - before[0])
        before = stamp, at
        if live:
            yield stamp, decode


PATIENCE = 5.0  # seconds without an answer or any data, after which a source is lost
# Seconds of data without a whole picture, after which it is lost too. Whole ones begin with a key
# picture, which some cameras send every twenty seconds only.
BLIND = 30.0
_MAX_PIXELS = 2**24  # of a frame; 5.7K is just smaller
_RTSP = {
    # All over the one connection to the address that was given. Without rtsp on the list, which the
    # format of the address itself does not need, FFmpeg does not follow a server elsewhere.
    "rtsp_transport": "tcp",
    "protocol_whitelist": "tcp",
    "allowed_media_types": "video",
    "max_pixels": str(_MAX_PIXELS),
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

Shown = tuple[float | None, Callable[[], np.ndarray]]  # its own time in seconds; decodes it


def is_live(word: str) -> bool:
    """Says whether a SOURCE is a camera or a stream.

    Raises:
        ValueError: it is an address of another kind, or none; what may be secret is not repeated.
    """
    if word.startswith("camera:"):
        return True
    return bool(_ADDRESS.match(word) and _parts(word))


def live_source(word: str) -> Device | PlayingFile:
    """Returns the source that a word names: camera:N, rtsp://…, or a video file.

    Raises:
        ValueError: it is none, or PyAV is missing.
    """
    camera = word.startswith("camera:")
    if is_live(word) and not camera:
        address, name = _address(word)
        check_extra("video", ["av"], f"{name}: reading it")
        return Device(name, address, "rtsp", _RTSP)
    check_extra("video", ["av"], f"{word}: reading it")
    if camera:
        if not re.fullmatch("camera:[0-9]{1,3}", word, re.ASCII):
            raise ValueError(f"{word}: cameras are camera:0, camera:1, …")
        if sys.platform not in _CAMERAS:
            raise ValueError(f"{word}: cameras can be read on Linux and macOS only")
        form, place = _CAMERAS[sys.platform]
        return Device(word, place.format(int(word[7:])), form, {})
    source = sources.open_source(word)
    if not source.is_video:
        raise ValueError(f"{word}: --realtime plays a video file; a folder of pictures has no time")
    return PlayingFile(source.name, source.place)


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
    host = parts.hostname or ""
    name = f"rtsp://[{host}]" if ":" in host else f"rtsp://{host}"
    name += f":{parts.port}" if parts.port else ""
    what = urllib.parse.urlunsplit(parts._replace(scheme="", netloc=""))
    if what.strip("/"):
        cost = {"n": 2**14, "r": 8, "p": 1}
        name += f"/#{hashlib.scrypt(what.encode(), salt=name.encode(), dklen=2, **cost).hex()}"
    if parts.username and not parts.password and (password := os.environ.get(PASSWORD)):
        user, _, at = parts.netloc.rpartition("@")
        secret = urllib.parse.quote(password, safe="")
        parts = parts._replace(netloc=f"{user.rstrip(':')}:{secret}@{at}")
    return urllib.parse.urlunsplit(parts), name


class Device:
    """A camera or a stream; its `name` is for people, without what may be secret."""

    is_file = False

    def __init__(self, name: str, place: str, form: str, options: dict[str, str]):
        self.name, self._place, self._form, self._options = name, place, form, options

    @contextlib.contextmanager
    def open(self) -> Iterator[Iterator[Shown]]:
        """Opens it; ValueError, also from the iterator, if it cannot be read."""
        import av

        how: dict[str, Any] = {"timeout": (PATIENCE, PATIENCE), **video.any_encoding(av)}
        try:
            with av.open(self._place, format=self._form, options=self._options, **how) as container:
                if not container.streams.video:
                    raise ValueError(f"{self.name}: there is no video in it")
                yield self._read(container, container.streams.video[0])
        except av.error.FFmpegError as error:
            why = error.strerror
            if self._form == "rtsp" and error.errno == errno.EINVAL:
                why = "its server sends to another address, which is not followed"
            raise ValueError(f"{self.name}: cannot be read ({why})") from error

    def _read(self, container: InputContainer, stream: VideoStream) -> Generator[Shown]:
        if stream.codec_context is None:
            raise ValueError(f"{self.name}: no decoder for its video is known")
        stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
        stream.thread_type = "SLICE"  # with a frame a thread, pictures come that much later
        seen = time.monotonic()
        for packet in container.demux():  # of all streams: one of them alone may go on for ever
            for frame in stream.decode(packet) if packet.stream is stream else ():
                if not frame.is_corrupt:  # grey where what it builds upon was not seen
                    pixel = stream.sample_aspect_ratio
                    yield frame.time, functools.partial(video.upright, frame, self.name, pixel)
                    seen = time.monotonic()
            if time.monotonic() > seen + BLIND:
                raise ValueError(f"{self.name}: no picture is in what came for {BLIND:g} s")


class PlayingFile:
    """A video file that plays at its own pace: it has an end, and its own time from 0 on."""

    is_file = True

    def __init__(self, name: str, place: Path):
        self.name, self._place = name, place

    @contextlib.contextmanager
    def open(self) -> Iterator[Iterator[Shown]]:
        """As of `Device`."""
        times = video.read_times(self._place)
        with contextlib.closing(video.decode(self._place, times)) as pictures:
            yield (
                (float(moment - times[0]), functools.partial(np.asarray, picture))
                for moment, picture in zip(times, pictures, strict=False)
            )
