"""What shows pictures of a recording: the annotated video, a short one of each event, JPEGs.

On every frame of a video are box and state, checklist, confidences and time.

Pillow draws, in the font that matplotlib brings along, which has most scripts.
"""

import bisect
import collections
import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import message_of, tell
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.report.pages import clock
from stormpsr_jax.serving.frames import Frame

CODECS: tuple[Literal["libx264"], Literal["mpeg4"]] = ("libx264", "mpeg4")  # the first there is
_QUALITY = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
_INK, _MUTED, _PANEL = (255, 255, 255), (170, 176, 184), (12, 15, 20, 185)
# By status of a step: sign and colour. The sign says it without the colour.
_SIGNS = {
    "done": ("●", (94, 220, 160)),
    "seen": ("○", (94, 220, 160)),
    "next": ("▸", (255, 208, 92)),
    "missing": ("!", (255, 122, 133)),
    "unsure": ("?", (240, 192, 96)),
    "wrong": ("✗", (255, 122, 133)),
    "open": ("·", _MUTED),
}
_RIGHT = _SIGNS["done"][1]
_BOX, _ERROR, _BAR = (98, 184, 242), (255, 122, 133), (243, 155, 82)


class Shown(NamedTuple):
    """What is drawn on a frame."""

    seconds: float  # from the first frame on
    rows: Sequence[tuple[int, str]]  # (step id, status) of the checklist
    frame: Frame  # what was seen; its belief is shown in place of its changes
    floor: float  # a detection at or below this confidence is not drawn


@contextlib.contextmanager
def writing_video(
    path: Path, procedure: Procedure, framing: Framing, fps: float
) -> Iterator[Callable[[np.ndarray, Shown], None]]:
    """Gives a function that writes the next frame, of its picture and what to draw on it.

    The video is there, whole, once the block has ended without an error. It has the size of the
    first picture; an odd width or height gets one pixel more, as codecs need even ones. The model's
    `framing` says where in the picture a box is.

    Raises:
        ValueError: FFmpeg has no encoder for it.
        OSError: it cannot be written.
    """
    import av

    codec = next((name for name in CODECS if name in av.codecs_available), None)
    if codec is None:
        raise ValueError(f"a video: PyAV has none of the encoders {', '.join(CODECS)}")
    rate = Fraction(fps).limit_denominator(10_000)
    with files.replacing(path, path.with_suffix(".part.mp4")) as part:
        try:
            with av.open(str(part), "w", options={"movflags": "faststart"}) as container:
                stream = container.add_stream(codec, rate=rate, options=_QUALITY[codec])
                stream.pix_fmt = "yuv420p"
                drawer: list[_Drawer] = []

                def write(picture: np.ndarray, state: Shown) -> None:
                    if not drawer:
                        height, width = picture.shape[:2]
                        stream.height, stream.width = height + height % 2, width + width % 2
                        drawer.append(_Drawer(procedure, framing, height, width))
                    picture = drawer[0].draw(picture, state)
                    odd = [(0, n % 2) for n in picture.shape[:2]]
                    picture = np.pad(picture, (*odd, (0, 0)), "edge")
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    container.mux(stream.encode(frame))

                yield write
                if drawer:
                    container.mux(stream.encode())
        except av.error.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


class _Drawer:
    def __init__(self, procedure: Procedure, framing: Framing, height: int, width: int):
        import matplotlib

        self._procedure, self._framing = procedure, framing
        self._height, self._width = height, width
        size = max(9, round(min(height, width) / 36))
        font = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
        self._font, self._line = ImageFont.truetype(str(font), size), round(1.35 * size)
        self._margin = round(0.6 * size)

    def draw(self, picture: np.ndarray, state: Shown) -> np.ndarray:
        """Returns the picture uint8 (H, W, 3) with everything on it."""
        image = Image.fromarray(picture)
        if (top := state.frame.clear(state.floor)) is not None:  # below the panels
            place = state.frame.framed(self._framing).place(self._height, self._width)
            detected, confidence, box = top
            corners = place.source_box(box)
            self._draw_box(ImageDraw.Draw(image), detected, confidence, corners)
        panel = self._checklist(tuple(state.rows), clock(state.seconds))
        image.paste(panel, (self._margin, self._margin), panel)
        if state.frame.changed is not None:
            panel = self._bars(state.frame.changed, state.frame.belief)
            x = self._width - panel.width - self._margin
            image.paste(panel, (x, self._margin), panel)
        return np.asarray(image)

    def _draw_box(
        self,
        draw: ImageDraw.ImageDraw,
        detected: int,
        confidence: float,
        corners: tuple[float, float, float, float],
    ) -> None:
        size = self._width - 1, self._height - 1
        x0, y0, x1, y1 = np.multiply(corners, 2 * size).tolist()
        colour = _ERROR if detected == self._procedure.error_class else _BOX
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=max(2, self._line // 9))
        text = seen_as(self._procedure, detected, confidence)
        left, top, right, bottom = draw.textbbox((0, 0), text, self._font)
        x = min(max(0, x0), self._width - right)
        y = min(y1, self._height - bottom - 3)  # below the box, as the panels are at the top
        draw.rectangle((x + left - 2, y + top - 2, x + right + 2, y + bottom + 2), fill=colour)
        draw.text((x, y), text, (0, 0, 0), self._font)

    @functools.lru_cache(2)  # noqa: B019 (a drawer lives as long as its video)
    def _checklist(self, rows: tuple[tuple[int, str], ...], time: str) -> Image.Image:
        room = max(1, (self._height - 4 * self._margin) // self._line - 2)
        statuses = [status for _, status in rows]
        at = statuses.index("next") if "next" in statuses else len(rows)
        start = max(0, min(at - room // 2, len(rows) - room))
        done = statuses.count("done")
        lines = [("", f"{time}   {done} of {len(rows) - statuses.count('wrong')} done", _INK)]
        for step, status in rows[start : start + room]:
            sign, colour = _SIGNS[status]
            ink = _INK if status in ("next", "done", "seen") else colour
            lines.append((sign, self._procedure.step_name(step), ink))
        longest = max(self._font.getlength(text) for _, text, _ in lines) + self._line
        panel, draw = self._panel(min(longest + 2 * self._margin, 0.42 * self._width), len(lines))
        for i, (sign, text, ink) in enumerate(lines):
            y = self._margin + i * self._line
            indent = self._line if sign else 0
            if sign:
                colour = next(c for s, c in _SIGNS.values() if s == sign)
                draw.text((self._margin, y), sign, colour, self._font)
            text = self._cut(text, panel.width - indent - 2 * self._margin)
            draw.text((self._margin + indent, y), text, ink, self._font)
        return panel

    def _bars(self, changed: np.ndarray, belief: Belief | None) -> Image.Image:
        """A bar per component: how likely it changed in the window, or sits right or wrong."""
        room = max(1, (self._height - 4 * self._margin) // self._line)
        kept = sorted(np.argsort(-changed, kind="stable")[:room].tolist())  # the highest
        names = self._procedure.components
        longest = max(self._font.getlength(names[k]) for k in kept)
        bar = 0.11 * self._width
        wanted = longest + bar + 3 * self._margin
        panel, draw = self._panel(min(wanted, 0.36 * self._width), len(kept))
        right = max(0, panel.width - self._margin)
        left = max(0, min(right, round(right - bar)))
        for row, k in enumerate(kept):
            y = self._margin + row * self._line
            parts = [(float(changed[k]), _BAR)]
            if belief is not None:
                parts = [(float(belief.right[k]), _RIGHT), (float(belief.wrong[k]), _ERROR)]
            ink = _ERROR if belief is not None and belief.wrong[k] >= 0.5 else _INK
            text = self._cut(names[k], left - 2 * self._margin)
            draw.text((self._margin, y), text, ink, self._font)
            top, bottom = y + self._line // 4, y + self._line - self._line // 4
            draw.rectangle((left, top, right, bottom), outline=_MUTED)
            start = left
            for share, colour in parts:  # one behind the other; both may add up to more than 1
                end = min(right, start + round((right - left) * share))
                if end > start:
                    draw.rectangle((start, top, end, bottom), fill=colour)
                start = end
        return panel

    def _panel(self, width: float, lines: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        size = (math.ceil(width), lines * self._line + 2 * self._margin)
        panel = Image.new("RGBA", size, _PANEL)
        return panel, ImageDraw.Draw(panel)

    def _cut(self, text: str, width: float) -> str:
        if self._font.getlength(text) <= width:
            return text
        ends = range(len(text) + 1)
        kept = bisect.bisect_right(ends, width, key=lambda n: self._font.getlength(text[:n] + "…"))
        return text[: max(0, kept - 1)] + "…"


def seen_as(procedure: Procedure, detected: int, confidence: float) -> str:
    """The text at the box of a detection: how many parts its state has, and its confidence."""
    if detected == procedure.error_class:
        return f"error state {confidence:.2f}"
    count = int(procedure.states[detected - 1].sum())
    return f"{count} of {procedure.num_components} parts {confidence:.2f}"


THUMBNAIL = 320  # pixels of the longer side, at most
# Pixels of a picture that goes into a video. Of larger ones (4K becomes 1920 x 1080) an encoder
# holds some GiB, and a screen shows no more.
MAX_SHOWN = 2**22
_JPEG_QUALITY, _THUMBNAIL_QUALITY = 95, 85  # of pictures that wait for a video, and of a report's


def reduced(picture: np.ndarray) -> np.ndarray:
    """Returns a picture uint8 (H, W, 3) as a video shows it.

    One of more than MAX_SHOWN pixels is reduced to a half, a third and so on.
    """
    return _reduced(picture, math.ceil(math.sqrt(picture[..., 0].size / MAX_SHOWN)))


def thumbnail(picture: np.ndarray, longest: int = THUMBNAIL) -> bytes:
    """Returns a picture uint8 (H, W, 3) as a JPEG file of at most `longest` pixels a side."""
    factor = math.ceil(max(picture.shape[:2]) / longest)
    return simplejpeg.encode_jpeg(_reduced(picture, factor), _THUMBNAIL_QUALITY)


def _reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    if factor > 1:
        picture = np.asarray(Image.fromarray(picture).reduce(factor))
    return np.ascontiguousarray(picture)


# Seconds. An event comes after the completion, as evidence has to come together.
BEFORE, AFTER = 4.0, 1.0
MAX_WAITING = 4  # clips that are not written yet


class Clips:
    """Writes NAME.mp4 of what happens, in a thread; keeps the pictures of the last seconds."""

    def __init__(self, folder: Path, procedure: Procedure, framing: Framing, fps: float):
        """Makes the folder. See `writing_video`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._pool = ThreadPoolExecutor(1)
        self._writing: list[Future] = []
        self._before = math.ceil(BEFORE * fps)
        self._folder, self._procedure, self._framing, self._fps = folder, procedure, framing, fps
        self._after = math.ceil(AFTER * fps)
        kept = self._before + 1 + self._after
        self._shown: collections.deque[tuple[int, bytes, Shown]] = collections.deque(maxlen=kept)
        self._due: collections.deque[tuple[int, str]] = collections.deque()  # by frame

    def add(self, frame: int, picture: np.ndarray, shown: Shown, names: Sequence[str]) -> None:
        """Takes the next frame and the names of its clips."""
        jpeg = simplejpeg.encode_jpeg(picture, _JPEG_QUALITY, "RGB", "444")
        self._shown.append((frame, jpeg, shown))
        self._due += [(frame, name) for name in names]
        while self._due and frame >= self._due[0][0] + self._after:
            self._write(*self._due.popleft())

    def finish(self) -> None:
        """Writes those that the end of the recording cuts short."""
        while self._due:
            self._write(*self._due.popleft())
        self._pool.shutdown()

    def _write(self, frame: int, name: str) -> None:
        # At the end of a recording, more frames before the event are kept than belong to it.
        rows = [row for row in self._shown if row[0] >= frame - self._before]
        path = self._folder / f"{name}.mp4"
        self._writing = [one for one in self._writing if not one.done()]
        if len(self._writing) < MAX_WAITING:
            self._writing.append(self._pool.submit(self._encode, path, rows))
        else:
            tell("warning", f"{path}: left out, as {MAX_WAITING} clips before it are not written")

    def _encode(self, path: Path, pictures: Iterable[tuple[int, bytes, Shown]]) -> None:
        try:
            with writing_video(path, self._procedure, self._framing, self._fps) as write_frame:
                for _, jpeg, shown in pictures:
                    write_frame(simplejpeg.decode_jpeg(jpeg), shown)
        except (OSError, ValueError) as error:  # recognition goes on
            tell("warning", message_of(error))
