"""Opens videos with PyAV, and finds out when their frames are shown.

A small file can make FFmpeg take any memory and any time while it opens it: a list of edits that
each show all of the video unfolds to their product. So a video is first read, without decoding it,
in a process with a limit of both.
"""

import array
import contextlib
import json
import logging
import math
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple

import numpy as np

from stormpsr_jax.base import installed
from stormpsr_jax.base.folders import printable, read_errors
from stormpsr_jax.media.pictures import MAX_FRAME_PIXELS, check_pixels

_LOG = logging.getLogger(__name__)

# Containers that hold their video themselves. They are told by content, so that a playlist or a
# session description, which makes FFmpeg open other files and addresses, is none under any name.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
# No protocol is called "none": nothing can be opened from within a container either.
_OPTIONS = {
    "format_whitelist": CONTAINERS,
    "protocol_whitelist": "none",
    # Also of a picture that FFmpeg looks at while it opens the file.
    "max_pixels": str(MAX_FRAME_PIXELS),
}
_DURATION_IN_HEAD = ("matroska,webm", "flv")
# A file was cut off if it ends earlier than its head says by more than so many frames, and by more
# than this share of its length or so many seconds, whichever is less. Heads are off by less.
ALLOWED_FRAMES, CUT_OFF_SHARE, CUT_OFF = 3, 0.01, 1.0
# Of a video, the frames that there may be: some, and more by the size of the file. A picture in
# which nothing moves takes some 20 bytes with its place in the index.
FREE_FRAMES, BYTES_OF_FRAME, MAX_FRAMES = 10_000, 10, 10**7
MAX_LATE = 0.2  # seconds that a sound may begin before the first picture without a line in the log
# What reading a video once may take: a million samples take 36 MiB, and a gigabyte some seconds.
MAX_MEMORY = 3 * 2**27
MAX_SECONDS, BYTES_OF_SECOND = 3, 2**23  # of a processor: some, and more by the size of the file
# Larger pictures are decoded one at a time, as each thread would hold some more of them.
_MAX_AT_ONCE = 2**23

_CONVERT = "convert the video (ffmpeg -i IN -c:v libx264 -crf 18 OUT.mp4)"


def any_encoding(av: ModuleType) -> dict[str, Any]:
    """Options of av.open for names and notes in a container in any encoding; none of them is used.

    From PyAV 19 on that goes without saying, and the option is gone.
    """
    return {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


def check_frames(place: str, count: int, size: int, how: str = "") -> None:
    """Raises ValueError if a file of `size` bytes cannot honestly show so many frames.

    `how` says how it comes to so many.
    """
    most = min(MAX_FRAMES, FREE_FRAMES + size // BYTES_OF_FRAME)
    if count > most:
        raise ValueError(
            f"{place}: has {count:,} frames{how}; of a file of {size:,} bytes, {most:,} are the "
            f"most that are read: {_CONVERT}, or cut it into parts"
        )


# --- Opening --------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a video: (container, its first video stream).

    `read_times` comes first: this has no limit of memory and time.

    Raises:
        ValueError: PyAV is missing, or it cannot be read; also of what happens inside the block.
    """
    place = printable(path)
    installed.check_extra("video", ["av"], f"{place}: reading a video")
    import av

    with read_errors(path), path.open("rb") as file:
        if not file.read(1):
            raise ValueError(f"{place}: is empty (0 bytes)")
        file.seek(0)
        try:
            with av.open(_Source(file), options=_OPTIONS, **any_encoding(av)) as container:
                if not container.streams.video:
                    raise ValueError(f"{place}: there is no video in it")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise ValueError(f"{place}: no decoder for its video is known; {_CONVERT}")
                width, height = stream.codec_context.width, stream.codec_context.height
                check_pixels(place, height, width, MAX_FRAME_PIXELS)
                # A picture in it may be larger than the head of the file says.
                stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
                stream.thread_type = "AUTO" if width * height <= _MAX_AT_ONCE else "SLICE"
                yield container, stream
        except MemoryError as error:  # of FFmpeg too
            raise ValueError(
                f"{place}: reading it takes more memory than {MAX_MEMORY >> 20} MiB, or than "
                f"there is; {_CONVERT}"
            ) from error
        except av.error.FFmpegError as error:
            raise ValueError(
                f"{place}: is not a video that can be read ({error.strerror}): if it is cut off, "
                f"copy it again; of containers, {CONTAINERS} are read, of frames those of up to "
                f"{MAX_FRAME_PIXELS:,} pixels: {_CONVERT}"
            ) from error
        except (EOFError, RuntimeError, OverflowError, UnicodeDecodeError) as error:
            raise ValueError(f"{place}: cannot be read ({error})") from error


class _Source:
    """A file as FFmpeg reads it: a seek to where nothing can be fails, without an exception.

    PyAV prints the traceback of an exception that another one follows.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.name, self.read, self.tell = file.name, file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError:
            return -1


# --- Times ----------------------------------------------------------------------------------------


def read_times(path: Path, *, warn: bool = False) -> np.ndarray:
    """Returns the time of every frame in seconds, (N,) float64 ascending; decodes none.

    It reads the video in a process of its own, which has a limit of memory (on Linux) and of time.
    With `warn`, a line in the log says if most frames are trimmed, as phones do, or by mistake, and
    if a sound begins so long before them that a player's clock is not that of the frames.

    Raises:
        ValueError: PyAV is missing, it is no video, it is empty or cut off, its frames have no
            times or times that go back, there are more of them than the file can have, or reading
            it takes more than that process may.
    """
    index, place = read_index(path), printable(path)
    shown = len(index.times)
    if warn and index.trimmed > shown:
        _LOG.warning(
            "%s: its edit list shows %d of %d pictures; if that is wrong, %s",
            *(place, shown, index.trimmed + shown, _CONVERT),
        )
    if warn and index.late > MAX_LATE:
        _LOG.warning(
            "%s: its first picture comes %.2f s after its beginning, which is where players count "
            "from; here times count from that picture, so that those of a player are as much less",
            *(place, index.late),
        )
    return index.times


class Index(NamedTuple):
    """The N frames of a video, and where a decoder can begin: at G key frames."""

    times: np.ndarray  # (N,) see `read_times`
    late: float  # seconds from the file's beginning, where players count from, to the first frame
    keys: np.ndarray  # (G,) int64 ascending, how many frames are shown before each key frame
    starts: np.ndarray  # (G,) int64, where to seek for each, in units of the stream
    trimmed: int  # how many other frames the file hides


def read_index(path: Path) -> Index:
    """Returns what it takes to decode any frame of a video; errors as of `read_times`."""
    place = printable(path)
    installed.check_extra("video", ["av"], f"{place}: reading a video")
    head, _, body = _in_limits(path, place).partition(b"\n")
    answer = json.loads(head)
    if "error" in answer:
        raise ValueError(answer["error"])
    count = answer["count"]
    times, numbers = np.frombuffer(body, count=count), np.frombuffer(body[8 * count :], np.int64)
    keys, starts = numbers.reshape(2, -1)
    return Index(times, answer["late"], keys, starts, answer["trimmed"])


def _read_index(path: Path) -> Index:
    """The same in this process, without its limits."""
    place = printable(path)
    with open_video(path) as (container, stream):
        times, end, latest, unit = array.array("q"), 0, None, float(stream.time_base)
        keys, starts = array.array("q"), array.array("q")
        trimmed, size = 0, path.stat().st_size
        by_time = container.format.name.startswith(("mov", "matroska"))
        for packet in container.demux(stream):
            time = packet.dts if packet.pts is None else packet.pts  # AVI has no pts
            if packet.size and packet.is_keyframe and time is not None:
                keys.append(time)
                # What a seek goes by: the order of decoding, or in these that of the pictures.
                starts.append(time if packet.dts is None or by_time else packet.dts)
            if not packet.size or packet.is_discard:
                trimmed += packet.size > 0
                continue
            if time is None:
                raise ValueError(
                    f"{place}: frame {len(times) + 1} of the file has no timestamp; {_CONVERT}"
                )
            if packet.dts is not None:
                if latest is not None and packet.dts < latest:
                    raise ValueError(
                        f"{place}: timestamps go back from {latest * unit:.3f} s to "
                        f"{packet.dts * unit:.3f} s (videos joined end to end?); {_CONVERT}"
                    )
                latest = packet.dts
            times.append(time)
            end = max(end, time + (packet.duration or 0))
        if not times:
            raise ValueError(f"{place}: the video has no frames")
        check_frames(place, len(times), size)
        start = min(times)
        declared = _declared_end(container, stream, start, len(times))
        of_frames = ALLOWED_FRAMES * (end - start) * unit / len(times)
        if end * unit < declared - max(of_frames, min(CUT_OFF, CUT_OFF_SHARE * declared)):
            raise ValueError(
                f"{place}: is cut off: it ends at {end * unit:.1f} s, its head says "
                f"{declared:.1f} s; copy it again from where it comes from, or {_CONVERT}"
            )
        late = start * unit - container.start_time / 1e6 if container.start_time is not None else 0
        shown = np.sort(np.array(times, np.float64))
        places = np.searchsorted(shown, np.array(keys, np.float64))
        order = np.argsort(places, kind="stable")
        seeks = np.array(starts, np.int64)[order]
        return Index(shown * unit, late, places[order], seeks, trimmed)


def _declared_end(container: Any, stream: Any, start: int, count: int) -> float:
    """Returns the time in seconds where the file says that the video ends; 0: it does not say.

    Which value says so depends on the format, as the others may follow from how long the file is
    (AVI) or may be those of a longer sound. `start` is the first time, `count` that of the frames.
    """
    seconds = start * float(stream.time_base)
    tag = stream.metadata.get("DURATION", "")  # Matroska
    if match := re.match(r"(\d+):(\d+):(\d+\.?\d*)", tag):
        hours, minutes, rest = map(float, match.groups())
        return 3600 * hours + 60 * minutes + rest
    if container.format.name == "avi" and stream.average_rate:
        return seconds + stream.frames / float(stream.average_rate)
    if container.format.name in _DURATION_IN_HEAD and len(container.streams) == 1:
        return (container.duration or 0) / 1e6
    # MP4. Missing frames alone are no sign: phones hide those that were trimmed.
    if stream.frames > count and stream.duration:
        return seconds + stream.duration * float(stream.time_base)
    return 0.0


# --- The process ----------------------------------------------------------------------------------


def _in_limits(path: Path, place: str) -> bytes:
    """What `_main` answers; ValueError: its process was ended, by its limits or otherwise."""
    # Without -P, a program in the folder where a user happens to be would be found first.
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
        capture_output=True,
    )
    if not done.returncode:
        return done.stdout
    if done.returncode > 0:
        raise RuntimeError(f"{place}: {done.stderr.decode(errors='replace')}")
    if done.returncode == -signal.SIGXCPU:
        raise ValueError(
            f"{place}: reading it takes longer than a file of its size may; {_CONVERT}"
        )
    how = signal.Signals(-done.returncode).name
    raise ValueError(f"{place}: reading it ended a process by {how}; {_CONVERT}")


def _limit(seconds: int) -> None:
    """Limits what this process takes from now on: memory (on Linux), seconds of a core."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = math.ceil(usage.ru_utime + usage.ru_stime)
    limits = {resource.RLIMIT_CPU: used + seconds}
    if sys.platform == "linux":  # elsewhere it does not count what is mapped
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limits[resource.RLIMIT_DATA] = pages * resource.getpagesize() + MAX_MEMORY
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))


def _main() -> None:
    """Writes the index of a video, or the error in reading it, to stdout for `read_index`."""
    path = Path(sys.argv[1])
    try:
        with read_errors(path):
            size = path.stat().st_size
        _limit(MAX_SECONDS + size // BYTES_OF_SECOND)
        index = _read_index(path)
        answer = dict[str, Any](count=len(index.times), trimmed=index.trimmed, late=index.late)
        body = b"".join(array.tobytes() for array in (index.times, index.keys, index.starts))
    except ValueError as error:
        answer, body = {"error": str(error)}, b""
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + body)
    sys.stdout.flush()
    os._exit(0)  # what a library does at exit would count to the limits


if __name__ == "__main__":
    _main()
