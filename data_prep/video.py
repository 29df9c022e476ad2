"""Videos of recordings, read with PyAV, which is imported only when there is a video to read."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_prep.trees import Tree

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
# Frame rates such as 11.988 pass for 12; labels count frames, not seconds.
RATE_TOLERANCE = 0.02


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


def is_video(name: str) -> bool:
    """Says whether a file name is that of a video."""
    return name.lower().endswith(VIDEO_ENDINGS)


def open_constant_rate(tree: Tree, name: str, first_frame: int, fps: float) -> Video:
    """Opens a video whose i-th frame is the one that the labels call first_frame + i.

    Raises:
        ValueError: PyAV is missing, it is no video, or its frame rate is not constant or not fps.
    """
    times = read_times(tree, name)
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


def read_times(tree: Tree, name: str) -> np.ndarray:
    """Returns the time of every frame in seconds, (N,) float64 ascending; decodes none.

    Raises:
        ValueError: PyAV is missing, it is no video, it is empty, or frames have no time.
    """
    with _open(tree, name) as (container, stream):
        times = []
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            time = packet.dts if packet.pts is None else packet.pts  # AVI has no pts
            if time is None:
                raise ValueError(
                    f"{tree.show(name)}: frame {len(times) + 1} of the file has no timestamp; "
                    "convert the video (ffmpeg -i IN -c:v libx264 -crf 18 OUT.mp4)"
                )
            times.append(time)
        if not times:
            raise ValueError(f"{tree.show(name)}: the video has no frames")
        return np.sort(np.array(times, np.float64)) * float(stream.time_base)


def decode(tree: Tree, name: str) -> Iterator[np.ndarray]:
    """Yields the frames as (H, W, 3) uint8 RGB, upright, in order of time.

    Raises:
        ValueError: PyAV is missing, or it is no video that can be decoded.
    """
    with _open(tree, name) as (container, stream):
        for frame in container.decode(stream):
            picture = frame.to_ndarray(format="rgb24")
            if turns := round(frame.rotation / 90) % 4:  # phones store it
                picture = np.ascontiguousarray(np.rot90(picture, turns))
            yield picture


@contextlib.contextmanager
def _open(tree: Tree, name: str) -> Iterator[tuple[Any, Any]]:
    """Opens a video: (container, its first video stream); errors are ValueErrors that name it."""
    place = tree.show(name)
    try:
        import av
    except ImportError as error:
        raise ValueError(
            f"{place}: reading a video needs PyAV: pip install 'stormpsr-jax[video]'"
        ) from error
    with tree.open(name) as file:
        if not file.read(1):
            raise ValueError(f"{place}: is empty (0 bytes)")
        file.seek(0)
        try:
            with av.open(file) as container:
                if not container.streams.video:
                    raise ValueError(f"{place}: there is no video in it")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                yield container, stream
        except av.error.FFmpegError as error:
            raise ValueError(
                f"{place}: is not a video that can be read ({error.strerror})"
            ) from error
