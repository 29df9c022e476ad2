"""Videos of recordings: their index, and their frames by number or by the clock, upright."""

import contextlib
import dataclasses
import itertools
import logging
import math
import re
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base import installed
from stormpsr_jax.base.folders import printable, read_errors
from stormpsr_jax.media.pictures import check_pixels, fingerprint
from stormpsr_jax.recordings.pictures import Timestamps

_LOG = logging.getLogger(__name__)

VIDEO_ENDINGS = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".3gp", ".mpg", ".mpeg",
    ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv",
)  # fmt: skip
# Containers that hold their video themselves. They are told by content, so that a playlist or a
# session description, which makes FFmpeg open other files and addresses, is none under any name.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
_DURATION_IN_HEAD = ("matroska,webm", "flv")
# A file was cut off if it ends earlier than its head says by more than so many frames, and by more
# than this share of its length or so many seconds, whichever is less. Heads are off by less.
ALLOWED_FRAMES, CUT_OFF_SHARE, CUT_OFF = 3, 0.01, 1.0
MAX_LATE = 0.2  # seconds that a sound may begin before the first picture without a line in the log
_CONVERT = "convert the video (ffmpeg -i IN -c:v libx264 -crf 18 OUT.mp4)"
# Matroska rounds times to milliseconds.
TIME_TOLERANCE = 1e-3
# Seconds without a picture: a line in the log, and an error.
LOGGED_GAP, MAX_GAP = 2.0, 60.0
# Frame rates such as 11.988 pass for 12; labels count frames, not seconds.
RATE_TOLERANCE = 0.02
# Pixels whose width : height is off by less pass for squares: encoders round sizes.
SQUARE = 0.02


# --- The index ------------------------------------------------------------------------------------


def any_encoding(av: ModuleType) -> dict[str, Any]:
    """Options of av.open for names and notes in a container in any encoding; none of them is used.

    From PyAV 19 on that goes without saying, and the option is gone.
    """
    return {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a video: (container, its first video stream).

    Raises:
        ValueError: PyAV is missing, or it cannot be read; also of what happens inside the block.
    """
    place = printable(path)
    installed.check_extra("video", ["av"], f"{place}: reading a video")
    import av

    with read_errors(path), path.open("rb") as file:
        if not file.read(1):
            raise ValueError(f"{place}: is empty (0 bytes)")
    try:
        with av.open(f"file:{path}", options=_OPTIONS, **any_encoding(av)) as container:
            if not container.streams.video:
                raise ValueError(f"{place}: there is no video in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ValueError(f"{place}: no decoder for its video is known; {_CONVERT}")
            stream.thread_type = "AUTO"
            yield container, stream
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{place}: is not a video that can be read ({error.strerror}): if it is cut off, copy "
            f"it again; of containers, {CONTAINERS} are read: {_CONVERT}"
        ) from error


def read_times(path: Path, *, warn: bool = False) -> np.ndarray:
    """Returns the time of every frame in seconds, (N,) float64 ascending; decodes none.

    With `warn`, a line in the log says if most frames are trimmed, as phones do, or by mistake, and
    if a sound begins so long before them that a player's clock is not that of the frames.

    Raises:
        ValueError: PyAV is missing, it is no video, it is empty or cut off, or its frames have no
            times or times that go back.
    """
    index, place = read_index(path), printable(path)
    count = len(index.times)
    if warn and index.trimmed > count:
        _LOG.warning(
            "%s: its edit list shows %d of %d pictures; if that is wrong, %s",
            *(place, count, index.trimmed + count, _CONVERT),
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
    with open_video(path) as (container, stream):
        times, keys, starts = list[int](), list[int](), list[int]()
        end, latest, trimmed, unit = 0, None, 0, float(stream.time_base)
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
        start = min(times)
        declared = _declared_end(container, stream, start, len(times))
        of_frames = ALLOWED_FRAMES * (end - start) * unit / len(times)
        if end * unit < declared - max(of_frames, min(CUT_OFF, CUT_OFF_SHARE * declared)):
            raise ValueError(
                f"{place}: is cut off: it ends at {end * unit:.1f} s, its head says "
                f"{declared:.1f} s; copy it again from where it comes from, or {_CONVERT}"
            )
        late = start * unit - container.start_time / 1e6 if container.start_time is not None else 0
        times_shown = np.sort(np.array(times, np.float64))
        places = np.searchsorted(times_shown, np.array(keys, np.float64))
        order = np.argsort(places, kind="stable")
        seeks = np.array(starts, np.int64)[order]
        return Index(times_shown * unit, late, places[order], seeks, trimmed)


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


# --- Frames ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Video:
    """The frames of a video at a constant rate, numbered from first_frame on."""

    path: Path
    num_frames: int
    # (M,) seconds of its pictures as they are stored, see `read_times`.
    times: np.ndarray = dataclasses.field(repr=False, compare=False)
    first_frame: int = 0
    fps: float | None = None  # that it is resampled to; None for its own frames, one by one

    def first(self) -> tuple[str, np.ndarray]:
        """Returns (place, picture) of the first one; ValueError if it cannot be decoded."""
        place = printable(self.path)
        with contextlib.closing(decode(self.path)) as frames:
            for picture in frames:
                return place, picture
        raise ValueError(f"{place}: no frame of it can be decoded; the file is damaged")

    def fingerprint(self) -> int:
        """Returns a number that tells another file."""
        return fingerprint(self.path)

    def timestamps(self, fps: float) -> Timestamps:
        """Returns its pictures, by the frames that show them at a rate."""
        return timestamps(self.times, fps)

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (place, picture) in order; ValueError unless num_frames can be decoded."""
        place, counts = printable(self.path), itertools.repeat(1)
        decoded, number = decode(self.path), 0
        if self.fps is not None:
            repeats = resample(self.times, self.fps)
            counts = iter(repeats[repeats > 0].tolist())
            decoded = decode(self.path, self.times, repeats > 0)
        for picture, count in zip(decoded, counts, strict=False):
            for _ in range(count):
                where = f"frame {self.first_frame + number}"
                yield f"{place}: {where if not self.fps else f'{number / self.fps:.2f} s'}", picture
                number += 1
        if number != self.num_frames:
            raise ValueError(
                f"{place}: {number} frames can be decoded, its index has {self.num_frames}; the "
                "file is damaged"
            )


def is_video(name: str) -> bool:
    """Says whether a file name is that of a video."""
    return name.lower().endswith(VIDEO_ENDINGS)


def open_constant_rate(path: Path, first_frame: int, fps: float) -> Video:
    """Opens a video whose i-th frame is the one that the labels call first_frame + i.

    Raises:
        ValueError: PyAV is missing, it is no video, or its frame rate is not constant or not fps.
    """
    times = read_times(path, warn=True)
    place = printable(path)
    advice = (
        "labels count frames, and which these are is not certain here; extract the frames as the "
        "data set says, or use data_prep.own, which goes by time"
    )
    if len(times) > 1:
        step = (times[-1] - times[0]) / (len(times) - 1)
        late = np.abs(times - times[0] - step * np.arange(len(times)))
        steps = np.diff(times)
        uneven = (late[1:] > step / 2) | (np.abs(steps - step) > step / 2)
        if step <= 0 or uneven.any():
            where = int(uneven.argmax()) + 1
            raise ValueError(
                f"{place}: its frame rate is not constant (first seen at frame "
                f"{first_frame + where}, {times[where]:.3f} s): {advice}"
            )
        if abs(1 / step / fps - 1) > RATE_TOLERANCE:
            raise ValueError(f"{place}: has {1 / step:.3f} frames/s, not {fps:g}: {advice}")
    return Video(path, len(times), times, first_frame)


def open_resampled(path: Path, fps: float) -> Video:
    """Opens a video of any frame rate at a constant one.

    Raises:
        ValueError: PyAV is missing, it is no video, or its timestamps are broken.
    """
    times = read_times(path, warn=True)
    return Video(path, count_resampled(path, times, fps), times, fps=fps)


def count_resampled(path: Path, times: np.ndarray, fps: float) -> int:
    """Returns how many frames a video has at a constant rate; `times` are those of `read_times`.

    Raises:
        ValueError: they jump.
    """
    place, gaps = printable(path), np.diff(times)
    if len(gaps) and gaps.max() > MAX_GAP:
        i = int(gaps.argmax())
        raise ValueError(
            f"{place}: timestamps jump from {times[i] - times[0]:.1f} s to "
            f"{times[i + 1] - times[0]:.1f} s, by more than {MAX_GAP:g} s; cut the video there, or "
            "give its pictures new times (ffmpeg -i IN -vf setpts=N/30/TB -r 30 OUT.mp4 for one of "
            "30 frames/s)"
        )
    num_frames = int(resample(times, fps).sum())
    long = np.flatnonzero(gaps > LOGGED_GAP).tolist()
    if long:
        start, end = times[long[0] : long[0] + 2] - times[0]
        where = f"{start:.1f} s and {end:.1f} s" + f", and {len(long) - 1} more times" * (
            len(long) > 1
        )
        _LOG.warning("%s: no picture between %s; the one before stays", place, where)
    if len(times) < 0.9 * num_frames:
        rate = len(gaps) / (times[-1] - times[0])
        _LOG.warning(
            "%s: has %.1f pictures a second, fewer than %g: some are repeated", place, rate, fps
        )
    return num_frames


def resample(times: np.ndarray, fps: float) -> np.ndarray:
    """Returns how many frames of constant rate show each frame of a video.

    Frame n shows the last m with times[m] - times[0] at or before n / fps, up to TIME_TOLERANCE;
    the last n is the last one before the end of the times. They may be far more than can be listed.

    Args:
        times: (M,) seconds, ascending.

    Returns:
        (M,) int64, which add up to the number of frames.
    """
    times = times - times[0] - TIME_TOLERANCE
    num_frames = math.floor((times[-1] + 2 * TIME_TOLERANCE) * fps) + 1
    first = np.maximum(np.ceil(times * fps), 0)  # n that shows m, or one beside it
    first -= (first > 0) & ((first - 1) / fps >= times)
    first += first / fps < times
    return np.diff(np.minimum(first, num_frames), append=num_frames).astype(np.int64)


def timestamps(times: np.ndarray, fps: float) -> Timestamps:
    """Returns the pictures of a video by the frames of a rate that show them; see `resample`."""
    repeats = resample(times, fps)
    return Timestamps(times - times[0], np.cumsum(repeats) - repeats)


def decode(
    path: Path, times: np.ndarray | None = None, wanted: np.ndarray | None = None
) -> Generator[np.ndarray]:
    """Yields the frames as (H, W, 3) uint8 RGB, upright, in order of time.

    A video that was cut without being encoded anew may begin with frames that build upon others,
    which are gone: no decoder shows them. With `times`, the first one that is shown stands for
    each of them, so that all others come at their times.

    Args:
        times: (M,) of `read_times`; None for only those frames that a decoder shows.
        wanted: (M,) bool, which of the frames; None for all.

    Raises:
        ValueError: PyAV is missing, or it is no video that can be decoded, or not from MAX_GAP
            seconds after its beginning on.
    """
    place = printable(path)
    with open_video(path) as (container, stream):
        end = 0
        for frame in container.decode(stream):
            start, end = end, end + 1
            if not start and times is not None:
                end += _count_hidden(frame, float(stream.time_base), times, place)
            count = end - start if wanted is None else int(wanted[start:end].sum())
            if count:
                picture = upright(frame, place, stream.sample_aspect_ratio)
                yield from itertools.repeat(picture, count)


def _count_hidden(frame: Any, unit: float, times: np.ndarray, place: str) -> int:
    """Returns how many of the times come before that of the first frame that a decoder shows."""
    if frame.pts is None:  # as in AVI, whose frames go by their order alone
        return 0
    hidden = min(int(np.searchsorted(times, frame.pts * unit)), len(times) - 1)
    if (seconds := times[hidden] - times[0]) > MAX_GAP:
        raise ValueError(
            f"{place}: no frame of its first {seconds:.1f} s can be decoded, more than "
            f"{MAX_GAP:g} s; cut the video there"
        )
    if seconds > LOGGED_GAP:
        _LOG.warning(
            "%s: no frame of its first %.1f s can be decoded; the next one stands for them",
            place,
            seconds,
        )
    return hidden


def upright(
    frame: Any, place: str, pixel: Fraction | None = None, scale: float = 1.0
) -> np.ndarray:
    """Returns the picture of PyAV's frame as (H, W, 3) uint8 RGB, as it is meant to be seen.

    It is upright, and mirrored where the file says so, and its pixels are squares: `pixel` is their
    width : height in the frame, which old camcorders and DVDs have, as its stream says; None where
    it says nothing. `scale`, at most 1, is of its sides.

    Raises:
        ValueError: the picture is too large.
    """
    from av.video.reformatter import VideoReformatter

    height, width = frame.height, frame.width
    check_pixels(place, height, width)
    if pixel and abs(pixel - 1) > SQUARE:  # one side becomes longer, so that nothing is lost
        height, width = round(height / min(pixel, 1)), round(width * max(pixel, 1))
        check_pixels(place, height, width)
    if scale < 1:
        height, width = max(1, round(scale * height)), max(1, round(scale * width))
    # The reformatter of the frame itself would take memory for as long as the frame is kept.
    picture = VideoReformatter().reformat(frame, width, height, "rgb24").to_ndarray()
    try:
        matrix = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32)
    except KeyError:
        return picture
    except ValueError:  # of something else on the frame that PyAV does not know
        return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90) % 4))
    # A point (x, y) of the stored picture, y downwards, is shown at (a x + c y, b x + d y).
    a, b, c, d = matrix[[0, 1, 3, 4]].tolist()
    if abs(b) > abs(a):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
