"""The sources of live recognition: a camera, an RTSP stream, a file that plays."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.media import sources, video

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

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

_DEVICES, _NAMES = Path("/dev"), Path("/sys/class/video4linux")

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
            raise ValueError(f"{word}: cameras are camera:0, camera:1, …{_here()}")
        if sys.platform not in _CAMERAS:
            raise ValueError(f"{word}: cameras can be read on Linux and macOS only")
        form, place = _CAMERAS[sys.platform]
        return Device(word, place.format(int(word[7:])), form, {})
    source = sources.open_source(word)
    if not source.is_video:
        raise ValueError(f"{word}: --realtime plays a video file; a folder of pictures has no time")
    return PlayingFile(source.name, source.place)


def _here() -> str:
    """What a message says of the cameras that are there; on Linux alone they are files."""
    if sys.platform != "linux":
        return ""
    numbers = sorted(int(p.name[5:]) for p in _DEVICES.glob("video*") if p.name[5:].isdecimal())
    if not numbers:
        return f"; there is none here (no {_DEVICES}/video*)"
    found = []
    for number in numbers:
        try:
            name = one_line((_NAMES / f"video{number}" / "name").read_text("utf-8", "replace"), 40)
        except OSError:
            name = "unnamed"
        found.append(f"camera:{number} ({name})")
    return f"; here are {', '.join(found)}"


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
