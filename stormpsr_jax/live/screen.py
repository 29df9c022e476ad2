"""What the page of a station shows of the pictures and of what is known."""

import collections
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.live.capture import Capture, TimedPicture
from stormpsr_jax.live.serve import Page
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.serving.files import overlay
from stormpsr_jax.serving.files.thumbnails import thumbnail
from stormpsr_jax.serving.online import Live

_SHOWN = 1280  # pixels of the longer side of a picture, at most
_RATE_SECONDS = 3.0  # that the pictures per second are of


class Screen:
    """Shows the pictures of a station on its page."""

    def __init__(
        self,
        page: Page,
        live: Live,
        framing: Framing | None,
        part_pictures: Sequence[bytes | None] = (),
    ):
        """Shows nothing yet; for the others see `Station`."""
        self.page, self._live, self._framing = page, live, framing
        self._part_pictures = part_pictures
        self.right_at: dict[int, int] = {}  # by installation, the frame of its last report
        self._pictures_shown: set[int] = set()  # components that are asked for with one
        self._done_at: collections.deque[float] = collections.deque()  # of the last seconds

    def show(self, capture: Capture, taken: TimedPicture | None, known: Mapping[str, Any]) -> None:
        """Shows the picture that was just taken, or, without one, what has changed."""
        jpeg = box = None
        if taken is not None:
            self._done_at.append(time.monotonic())
            if self.page.wants_picture:
                jpeg, box = thumbnail(taken.picture, _SHOWN), self._box(taken.picture)
        self.page.frame(jpeg, {**known, **self._view(capture), "box": box})

    def _view(self, capture: Capture) -> dict[str, Any]:
        live, now = self._live, time.monotonic()
        live_as = "playing" if capture.is_file else "live"
        source = live_as if capture.connected else "lost" if capture.trouble else "opening"
        recent = self._done_at
        while recent and now - recent[0] > _RATE_SECONDS:
            recent.popleft()
        unsure = live.unsure
        self._pictures_shown &= {step // 3 for step in unsure}
        view = {
            "source": "ended" if capture.ended else source,
            "fits": live.fits,
            "product": str(live.product),
            "fps": round((len(recent) - 1) / (now - recent[0]), 1) if len(recent) > 1 else None,
            "unsure": [self._asked_of(step) for step in unsure],
        }
        if (beliefs := live.beliefs) is not None:
            view["beliefs"] = [part._asdict() for part in beliefs]
        return view

    def _asked_of(self, step: int) -> dict[str, Any]:
        """What a page asks about an installation that is not sure.

        "like": the frame at which it was right last, in this unit or one before; if there was none,
        a number below 0 of the model's picture of it, or None.
        """
        k, like = step // 3, self.right_at.get(step)
        picture = self._part_pictures[k] if self._part_pictures else None
        if like is None and picture is not None:
            like = -1 - k
            if k not in self._pictures_shown:
                self.page.snapshot(like, picture)
                self._pictures_shown.add(k)
        component = self._live.decoder.procedure.components[k]
        return {"step_id": step, "component": component, "like": like}

    def _box(self, picture: np.ndarray) -> dict[str, Any] | None:
        shown, decoder = self._live.shown, self._live.decoder
        if shown is None or self._framing is None:
            return None
        if (seen := shown.clear(decoder.floor)) is None:
            return None
        detected, confidence, box = seen
        framing = shown.framed(self._framing)
        corners = framing.place(*picture.shape[:2]).source_box(box)
        return dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True)) | {
            "label": overlay.seen_as(decoder.procedure, detected, confidence),
            "error": detected == decoder.procedure.error_class,
        }
