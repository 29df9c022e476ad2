"""A short annotated video of each event."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from stormpsr_jax.media.framing import Framing
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.streams.rules import Event
from stormpsr_jax.serving.files import overlay
from stormpsr_jax.serving.files.thumbnails import to_jpeg

FOLDER = "clips"
# Seconds. An event comes after the completion, as evidence has to come together.
BEFORE, AFTER = 4.0, 1.0


class Clips:
    """Writes FRAME_STEP.mp4 of each event; keeps the pictures of the last seconds alone."""

    def __init__(self, folder: Path, procedure: Procedure, framing: Framing, fps: float):
        """Makes the folder; see `overlay.writing_video` for the others."""
        folder.mkdir()
        self._folder, self._procedure, self._framing, self._fps = folder, procedure, framing, fps
        self._after = math.ceil(AFTER * fps)
        kept = math.ceil(BEFORE * fps) + 1 + self._after
        self._shown: collections.deque[tuple[bytes, overlay.Shown]] = collections.deque(maxlen=kept)
        self._due: collections.deque[Event] = collections.deque()  # by frame

    def add(
        self, frame: int, picture: np.ndarray, shown: overlay.Shown, events: Sequence[Event]
    ) -> None:
        """Takes the next frame and the events that complete at it; OSError: cannot be written."""
        self._shown.append((to_jpeg(picture), shown))
        self._due += events
        while self._due and frame >= self._due[0].frame + self._after:
            self._write(self._due.popleft(), frame)
        self._last = frame

    def finish(self) -> None:
        """Writes those that the end of the recording cuts short."""
        while self._due:
            self._write(self._due.popleft(), self._last)

    def _write(self, event: Event, last: int) -> None:
        # At the end of a recording, more frames before the event are kept than belong to it.
        start = max(0, len(self._shown) - (last - event.frame) - 1 - math.ceil(BEFORE * self._fps))
        path = self._folder / f"{event.frame:06d}_{event.step_id}.mp4"
        with overlay.writing_video(path, self._procedure, self._framing, self._fps) as write_frame:
            for jpeg, shown in list(self._shown)[start:]:
                write_frame(simplejpeg.decode_jpeg(jpeg), shown)
