"""Videos of recordings, read with PyAV, which is imported only when there is a video to read."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Container, Iterator
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from absl import logging

from data_prep.reading.pictures import MAX_PIXELS
from data_prep.reading.trees import Tree, read_errors
from stormpsr_jax import installed

VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".3gp", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv"),
)
# A file was cut off if it ends earlier than its head says by more than so many frames, and by more
# than this share of its length or so many seconds, whichever is less. Heads are off by less.
ALLOWED_FRAMES, CUT_OFF_SHARE, CUT_OFF = 3, 0.01, 1.0
# Containers that hold their video themselves. They are told by content, so that a playlist or a
# session description, which makes FFmpeg open other files and addresses, is none under any name.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
# No protocol is called "none": nothing can be opened from within a container either.
_OPTIONS = {
    "format_whitelist": CONTAINERS,
    "protocol_whitelist": "none",
    "max_pixels": str(MAX_PIXELS),  # also of a picture that FFmpeg looks at while it opens the file
}
_DURATION_IN_HEAD = ("matroska,webm", "flv")
# Matroska rounds times to milliseconds.
TIME_TOLERANCE = 1e-3
# Seconds without a picture: a line in the log, and an error.
LOGGED_GAP, MAX_GAP = 2.0, 60.0
# Frame rates such as 11.988 pass for 12; labels count frames, not seconds.
RATE_TOLERANCE = 0.02

_CONVERT = "convert the video (ffmpeg -i IN -c:v libx264 -crf 18 OUT.mp4)"


@dataclasses.dataclass(frozen=True)
class Video:
    """The frames of a video of constant frame rate, numbered from first_frame on.

    Attributes:
        tree: folder or zip file.
        name: of the video file in it.
        first_frame: number of the first frame.
        num_frames: N.
    """

    tree: Tree
    name: str
    first_frame: int
    num_frames: int

    def first(self) -> tuple[str, np.ndarray]:
        """Returns (place, picture) of the first one; ValueError if it cannot be decoded."""
        return _first(self.tree, self.name)

    def fingerprint(self) -> int:
        """Returns a number that tells another file."""
        return self.tree.fingerprint(self.name)

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (place, picture) in order; ValueError if there are fewer than num_frames."""
        place, count = self.tree.show(self.name), 0
        for count, picture in enumerate(decode(self.tree, self.name), start=1):
            yield f"{place}: frame {self.first_frame + count - 1}", picture
        if count != self.num_frames:
            raise ValueError(
                f"{place}: {count} frames can be decoded, its index has {self.num_frames}; the "
                "file is damaged"
            )


@dataclasses.dataclass(frozen=True)
class Resampled:
    """A video of any frame rate as N frames of a constant one, numbered from first_frame on.

    Attributes:
        tree: folder or zip file.
        name: of the video in it.
        fps: frames per second of the result.
        num_frames: N.
        first_frame: 0.
    """

    tree: Tree
    name: str
    fps: float
    num_frames: int
    first_frame: int = 0

    def first(self) -> tuple[str, np.ndarray]:
        """Returns (place, picture) of the first one; ValueError if it cannot be decoded."""
        return _first(self.tree, self.name)

    def fingerprint(self) -> int:
        """Returns a number that tells another file."""
        return self.tree.fingerprint(self.name)

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (place, picture) in order; ValueError if a frame cannot be decoded."""
        place = self.tree.show(self.name)
        shown = resample(read_times(self.tree, self.name), self.fps)
        wanted, repeats = np.unique(shown, return_counts=True)
        frame = 0
        decoded = decode(self.tree, self.name, set(wanted.tolist()))
        for picture, count in zip(decoded, repeats.tolist(), strict=False):
            for _ in range(count):
                yield f"{place}: {frame / self.fps:.2f} s", picture
                frame += 1
        if frame != self.num_frames:
            raise ValueError(
                f"{place}: can be decoded up to {frame / self.fps:.1f} s only, of "
                f"{self.num_frames / self.fps:.1f} s; the file is damaged"
            )


def any_encoding(av: ModuleType) -> dict[str, str]:
    """Options of av.open for names and notes in a container in any encoding; none of them is used.

    From PyAV 19 on that goes without saying, and the option is gone.
    """
    return {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


def is_video(name: str) -> bool:
    """Says whether a file name is that of a video."""
    return name.lower().endswith(VIDEO_ENDINGS)


def count_frames(tree: Tree, name: str) -> int:
    """Returns how many frames a video has, as its head says; where that is silent, by its index.

    Raises:
        ValueError: PyAV is missing, or it is no video that can be read.
    """
    with _open(tree, name) as (_, stream):
        declared = stream.frames
    return declared or len(read_times(tree, name))


def open_constant_rate(tree: Tree, name: str, first_frame: int, fps: float) -> Video:
    """Opens a video whose i-th frame is the one that the labels call first_frame + i.

    Raises:
        ValueError: PyAV is missing, it is no video, or its frame rate is not constant or not fps.
    """
    times = read_times(tree, name, warn=True)
    place = tree.show(name)
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
    return Video(tree, name, first_frame, len(times))


def open_resampled(tree: Tree, name: str, fps: float) -> Resampled:
    """Opens a video of any frame rate at a constant one.

    Raises:
        ValueError: PyAV is missing, it is no video, or its timestamps are broken.
    """
    place, times = tree.show(name), read_times(tree, name, warn=True)
    gaps = np.diff(times)
    if len(gaps) and gaps.max() > MAX_GAP:
        i = int(gaps.argmax())
        raise ValueError(
            f"{place}: timestamps jump from {times[i] - times[0]:.1f} s to "
            f"{times[i + 1] - times[0]:.1f} s, by more than {MAX_GAP:g} s; cut the video there, or "
            "give its pictures new times (ffmpeg -i IN -vf setpts=N/30/TB -r 30 OUT.mp4 for one of "
            "30 frames/s)"
        )
    for i in np.flatnonzero(gaps > LOGGED_GAP).tolist():
        start, end = times[i : i + 2] - times[0]
        logging.warning(
            "%s: no picture between %.1f s and %.1f s; the one before stays", place, start, end
        )
    num_frames = len(resample(times, fps))
    if len(times) < 0.9 * num_frames:
        rate = len(gaps) / (times[-1] - times[0])
        logging.warning(
            "%s: has %.1f pictures a second, fewer than %g: some are repeated", place, rate, fps
        )
    return Resampled(tree, name, fps, num_frames)


def resample(times: np.ndarray, fps: float) -> np.ndarray:
    """Returns which frame of a video each frame of constant rate shows.

    Args:
        times: (M,) seconds, ascending.
        fps: of the result.

    Returns:
        (N,) for each n the last m with times[m] - times[0] at or before n / fps, up to
        TIME_TOLERANCE; the last n is the last one before the end of the times.
    """
    times = times - times[0] - TIME_TOLERANCE
    num_frames = math.floor((times[-1] + 2 * TIME_TOLERANCE) * fps) + 1
    return np.searchsorted(times, np.arange(num_frames) / fps, "right") - 1


def read_times(tree: Tree, name: str, *, warn: bool = False) -> np.ndarray:
    """Returns the time of every frame in seconds, (N,) float64 ascending; decodes none.

    With `warn`, a line in the log says if most frames are trimmed, as phones do, or by mistake.

    Raises:
        ValueError: PyAV is missing, it is no video, it is empty or cut off, or its frames have no
            times or times that go back.
    """
    place = tree.show(name)
    with _open(tree, name) as (container, stream):
        times, end, latest, unit = [], 0, None, float(stream.time_base)
        trimmed = 0
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                trimmed += packet.size > 0
                continue
            time = packet.dts if packet.pts is None else packet.pts  # AVI has no pts
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
        if warn and trimmed > len(times):
            logging.warning(
                "%s: its edit list shows %d of %d pictures; if that is wrong, %s",
                *(place, len(times), trimmed + len(times), _CONVERT),
            )
        declared = _declared_end(container, stream, times)
        of_frames = ALLOWED_FRAMES * (end - min(times)) * unit / len(times)
        if end * unit < declared - max(of_frames, min(CUT_OFF, CUT_OFF_SHARE * declared)):
            raise ValueError(
                f"{place}: is cut off: it ends at {end * unit:.1f} s, its head says "
                f"{declared:.1f} s; copy it again from where it comes from, or {_CONVERT}"
            )
        return np.sort(np.array(times, np.float64)) * unit


def _declared_end(container: Any, stream: Any, times: list[int]) -> float:
    """Returns the time in seconds where the file says that the video ends; 0: it does not say.

    Which value says so depends on the format, as the others may follow from how long the file is
    (AVI) or may be those of a longer sound.
    """
    start = min(times) * float(stream.time_base)
    tag = stream.metadata.get("DURATION", "")  # Matroska
    if match := re.match(r"(\d+):(\d+):(\d+\.?\d*)", tag):
        hours, minutes, seconds = map(float, match.groups())
        return 3600 * hours + 60 * minutes + seconds
    if container.format.name == "avi" and stream.average_rate:
        return start + stream.frames / float(stream.average_rate)
    if container.format.name in _DURATION_IN_HEAD and len(container.streams) == 1:
        return (container.duration or 0) / 1e6
    # MP4. Missing frames alone are no sign: phones hide those that were trimmed.
    if stream.frames > len(times) and stream.duration:
        return start + stream.duration * float(stream.time_base)
    return 0.0


def decode(tree: Tree, name: str, wanted: Container[int] | None = None) -> Iterator[np.ndarray]:
    """Yields the frames as (H, W, 3) uint8 RGB, upright, in order of time.

    Args:
        tree: folder or zip file.
        name: of the video in it.
        wanted: only these of the frames, counted from 0.

    Raises:
        ValueError: PyAV is missing, or it is no video that can be decoded.
    """
    with _open(tree, name) as (container, stream):
        for i, frame in enumerate(container.decode(stream)):
            if wanted is not None and i not in wanted:
                continue
            yield upright(frame)


def upright(frame: Any) -> np.ndarray:
    """Returns the picture of PyAV's frame as (H, W, 3) uint8 RGB, upright."""
    picture = frame.to_ndarray(format="rgb24")
    if turns := round(frame.rotation / 90) % 4:  # phones store it
        picture = np.ascontiguousarray(np.rot90(picture, turns))
    return picture


def _first(tree: Tree, name: str) -> tuple[str, np.ndarray]:
    place = tree.show(name)
    with contextlib.closing(decode(tree, name)) as frames:
        for picture in frames:
            return place, picture
    raise ValueError(f"{place}: no frame of it can be decoded; the file is damaged")


class _Source:
    """A file as FFmpeg reads it: a seek to where nothing can be fails, without an exception.

    PyAV prints the traceback of an exception that another one follows.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.name, self.read, self.tell = file.name, file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError:
            return -1


@contextlib.contextmanager
def _open(tree: Tree, name: str) -> Iterator[tuple[Any, Any]]:
    """Opens a video: (container, its first video stream); errors are ValueErrors that name it."""
    place = tree.show(name)
    try:
        import av
    except ImportError as error:
        raise ValueError(
            f"{place}: reading a video needs PyAV: {installed.extra('video')}"
        ) from error
    with tree.open(name) as file, read_errors(place):
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
                if width * height > MAX_PIXELS:
                    raise ValueError(
                        f"{place}: {height}x{width} (HxW) is more than {MAX_PIXELS} pixels"
                    )
                # A picture in it may be larger than the head of the file says.
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                stream.thread_type = "AUTO"
                yield container, stream
        except av.error.FFmpegError as error:
            raise ValueError(
                f"{place}: is not a video that can be read ({error.strerror}); of containers, "
                f"{CONTAINERS} are; {_CONVERT}"
            ) from error
