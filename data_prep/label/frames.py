"""Any frame of a recording at once, the very picture that `data_prep.own` stores under its number.

A frame is found by the index of its video (`video.read_index`): decoding begins at the last
key frame before it. Decoded pictures are kept as the decoder gives them, up to `KEPT_BYTES`, so
that stepping back costs no more than stepping on.
"""

import collections
import contextlib
import gc
from pathlib import Path
from typing import Any

import numpy as np

from stormpsr_jax.media import video

# 43 pictures of 1080p. Each thread of a decoder may hold on to as much memory besides.
KEPT_BYTES = 2**27
_COLLECTED = 16  # frames that are gone
# What browsers play themselves. The page finds out whether it is so.
_PLAYED = {"h264": ("yuv420p", "yuvj420p"), "vp8": ("yuv420p",), "vp9": ("yuv420p",)}
_PLAYED |= {"av1": ("yuv420p", "yuv420p10le")}
_PLAYED_IN = ("mov,", "matroska,")


class Video:
    """The frames of a video at a constant rate, in any order; for one thread at a time.

    The file is open from the first picture on, until `close`.
    """

    _container: Any = None  # while the file is closed

    def __init__(self, place: Path, fps: float):
        """Builds the index of a video; ValueError: `data_prep.own` would not take it either."""
        self._place, self._index = place, video.read_index(place)
        index = self._index
        video.count_resampled(place, index.times, fps)
        repeats = video.resample(index.times, fps)
        self._pictures = np.repeat(np.arange(len(repeats)), repeats)  # by frame
        self._shown = repeats > 0  # by picture
        self.num_frames, self.timestamps = len(self._pictures), video.timestamps(index.times, fps)
        # (N,) seconds of the picture that each frame shows, by the clock of a player.
        self.times = (index.times - index.times[0] + index.late)[self._pictures]
        self._kept: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._kept_bytes = self._gone = 0
        self._stack = contextlib.ExitStack()
        self._shift: int | None = None
        self.height, self.width = self.picture(0).shape[:2]
        codec = self._stream.codec_context
        inside = self._container.format.name.startswith(_PLAYED_IN)
        # Whether browsers are likely to play it.
        self.playable = inside and codec.pix_fmt in _PLAYED.get(codec.name, ())
        self.close()

    def _open(self) -> None:
        self._stack.close()
        opened = video.open_video(self._place)
        self._container, self._stream = self._stack.enter_context(opened)
        self._frames: Any = self._container.decode(self._stream)
        unit = float(self._stream.time_base)
        self._ticks = np.rint(self._index.times / unit).astype(np.int64)
        self._in_order = self._container.format.name == "avi"  # its times are of decoding alone
        # Places among the pictures: what the decoder gives next, or one before it; the first that
        # is whole since the last seek.
        self._next = self._start = 0

    def close(self) -> None:
        """Closes the file, and forgets the pictures."""
        self._stack.close()
        self._container = self._stream = self._frames = None  # with which its memory goes
        self._kept.clear()
        self._kept_bytes = 0

    def picture(self, frame: int, scale: float = 1.0) -> np.ndarray:
        """A picture, (H, W, 3) uint8 RGB, upright, its sides times `scale` if below 1.

        Raises:
            ValueError: it cannot be decoded.
        """
        decoded = self._decoded(int(self._pictures[frame]))
        return video.upright(decoded, str(self._place), self._stream.sample_aspect_ratio, scale)

    def _decoded(self, wanted: int) -> Any:
        """The decoder's frame of a picture; where it shows none, of the last one before it."""
        if self._container is None:
            self._open()
        if wanted in self._kept:
            self._kept.move_to_end(wanted)
            return self._kept[wanted]
        # Behind a seek, times of an MPEG program stream are guesses: decoded from its beginning.
        keys = self._index.keys[: 0 if self._container.format.name == "mpeg" else None]
        key = max(int(np.searchsorted(keys, wanted, "right")) - 1, 0)
        picture = None
        if self._next <= wanted and (not len(keys) or keys[key] <= self._next):
            picture = self._decode_to(wanted, False)
        back = 0
        while picture is None:
            self._seek(key - back)
            # What follows a key frame may need others still, and some containers seek roughly.
            picture = self._decode_to(wanted, key <= back)
            back = 2 * back + 1
        return picture

    def _seek(self, key: int) -> None:
        """Goes to a key frame, or to where the container has it; the first is the beginning."""
        import av

        if key > 0:
            start = int(self._index.starts[key])
            with contextlib.suppress(av.error.FFmpegError):
                self._container.seek(start, stream=self._stream)
                self._frames = self._container.decode(self._stream)
                self._next = self._start = int(self._index.keys[key])
                return
        self._open()

    def _decode_to(self, wanted: int, first: bool) -> Any:
        """Decodes until a picture; None if the decoder begins behind it, unless at the `first`."""
        last = None
        for frame in self._frames:
            place, tick = self._next, frame.dts if self._in_order else frame.pts
            if tick is not None:
                if self._in_order:  # the order of decoding is later by so many as wait for others
                    self._shift = tick - self._ticks[0] if self._shift is None else self._shift
                    tick -= self._shift
                place = max(int(np.searchsorted(self._ticks, tick, "right")) - 1, 0)
            if place < self._start:  # leads up to the key frame, and needs what comes before it
                continue
            self._next = place + 1
            if self._shown[min(place, len(self._shown) - 1)]:
                self._keep(place, frame)
            if place > wanted and last is None and not first:
                return None
            if place >= wanted:
                found = frame if place == wanted or last is None else last
                self._keep(wanted, found)
                return found
            last = frame
        self._next = len(self._ticks)
        if last is None and first:
            raise ValueError(f"{self._place}: picture {wanted} cannot be decoded")
        return last

    def _keep(self, place: int, frame: Any) -> None:
        if place not in self._kept:
            self._kept[place] = frame
            self._kept_bytes += _size(frame)
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._kept_bytes -= _size(gone)
            self._gone += 1
            if self._gone % _COLLECTED == 0:
                gc.collect()  # a frame of PyAV and what it says of its side data hold each other


def _size(frame: Any) -> int:
    return sum(plane.buffer_size for plane in frame.planes)
