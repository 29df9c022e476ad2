"""A short annotated video of each event, or live of each alert."""

import collections
import math
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

from stormpsr_jax.base.errors import message_of, tell
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.serving.files import overlay
from stormpsr_jax.serving.files.thumbnails import to_jpeg

FOLDER = "clips"
# Seconds. An event comes after the completion, as evidence has to come together.
BEFORE, AFTER = 4.0, 1.0
MAX_WAITING = 4  # clips that are not written yet, of live recognition


class Clips:
    """Writes NAME.mp4 of what happens; keeps the pictures of the last seconds alone."""

    def __init__(
        self,
        folder: Path,
        procedure: Procedure,
        framing: Framing,
        fps: float,
        aside: bool = False,
    ):
        """Makes the folder; with `aside` a thread writes. See `overlay.writing_video`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._pool = ThreadPoolExecutor(1) if aside else None
        self._writing: list[Future] = []
        self._before = math.ceil(BEFORE * fps)
        self._folder, self._procedure, self._framing, self._fps = folder, procedure, framing, fps
        self._after = math.ceil(AFTER * fps)
        kept = self._before + 1 + self._after
        self._shown: collections.deque[tuple[int, bytes, overlay.Shown]] = collections.deque(
            maxlen=kept
        )
        self._due: collections.deque[tuple[int, str]] = collections.deque()  # by frame

    def add(
        self, frame: int, picture: np.ndarray, shown: overlay.Shown, names: Iterable[str]
    ) -> None:
        """Takes the next frame and the names of its clips; OSError: one cannot be written."""
        self._shown.append((frame, to_jpeg(picture), shown))
        self._due += [(frame, name) for name in names]
        while self._due and frame >= self._due[0][0] + self._after:
            self._write(*self._due.popleft())

    def finish(self) -> None:
        """Writes those that the end of the recording cuts short."""
        while self._due:
            self._write(*self._due.popleft())
        if self._pool is not None:
            self._pool.shutdown()

    def _write(self, frame: int, name: str) -> None:
        # At the end of a recording, more frames before the event are kept than belong to it.
        shown = [row[1:] for row in self._shown if row[0] >= frame - self._before]
        path = self._folder / f"{name}.mp4"
        self._writing = [one for one in self._writing if not one.done()]
        if self._pool is None:
            self._encode(path, shown)
        elif len(self._writing) < MAX_WAITING:
            self._writing.append(self._pool.submit(self._try, path, shown))
        else:
            tell("warning", f"{path}: left out, as {MAX_WAITING} clips before it are not written")

    def _try(self, path: Path, pictures: Iterable[tuple[bytes, overlay.Shown]]) -> None:
        try:
            self._encode(path, pictures)
        except (OSError, ValueError) as error:  # recognition goes on
            tell("warning", message_of(error))

    def _encode(self, path: Path, pictures: Iterable[tuple[bytes, overlay.Shown]]) -> None:
        with overlay.writing_video(path, self._procedure, self._framing, self._fps) as write_frame:
            for jpeg, shown in pictures:
                write_frame(simplejpeg.decode_jpeg(jpeg), shown)
