"""Whether the pictures of a source fit, picture by picture.

Hands are not familiar, so a single picture says nothing. What counts is the mean over a minute: of
a product that the model does not know hardly a picture is familiar, of its own many are, though
hands hide most of it. On the bench of the model's own product another one may be familiar in some;
so of all that the detector is sure of in three minutes a share has to be. Pictures fit from the
first minute on whose mean reaches a threshold, with that share, until there was none for three
minutes.
"""

import collections
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from stormpsr_jax.serving.product_gate import BOTH, SECONDS, Fits, Looks
from stormpsr_jax.serving.recogniser import Recognised

HELD = 180.0  # seconds without a minute that fits, after which pictures do not
ENOUGH = 10.0  # seconds of a file from which on it may be said not to fit
# Of what the detector is sure of, and the seconds of it that this is asked of at least.
SHARE, SURE = 0.15, 3.0


class Sighting(NamedTuple):
    """What a picture says.

    Attributes:
        familiar: how familiar it is.
        sure: how sure the detector is of a state other than an initial one; where one network alone
            looks, as `familiar`.
    """

    familiar: float
    sure: float


class WatchState(msgspec.Struct, forbid_unknown_fields=True):
    """What is saved of a watch: the verdict, and the views that it goes by."""

    fits: bool | None
    ever: bool
    last: list[Sighting]
    since: int


class Watch:
    """The verdict over the pictures of a source; the memory does not grow.

    Attributes:
        fits: whether they fit; None until that is known, and of a model that cannot tell.
        threshold: of the mean of how familiar they are over a minute; None where it cannot tell.
        ever: whether they have fitted at any time.
        window, patience: pictures of a minute, and of `HELD` seconds.
    """

    def __init__(self, fits: Fits | None, rate: float, initial: Sequence[int]):
        """Begins; without `fits` it cannot tell.

        Args:
            rate: pictures per second of the source.
            initial: classes of the initial states.
        """
        self._of_model, self._initial = fits, initial
        # At least one: a time-lapse may have a picture in some minutes.
        self.window, self.patience, self._enough = (
            max(1, round(seconds * rate)) for seconds in (SECONDS, HELD, ENOUGH)
        )
        self._sure = SURE * rate
        self._since = 0  # pictures that counted after the last minute that fitted
        self._last: collections.deque[Sighting] = collections.deque(maxlen=self.patience)
        self.fits: bool | None = None
        self.ever = False
        self.threshold: float | None = None

    def _minute(self) -> float:
        """How familiar the pictures of the last minute are together."""
        start = max(0, len(self._last) - self.window)
        return math.fsum(view.familiar for view in itertools.islice(self._last, start, None))

    def _shares(self, least: float) -> bool:
        """Whether enough of what the detector was sure of is familiar, if that was so much."""
        sure = math.fsum(view.sure for view in self._last)
        familiar = math.fsum(view.familiar for view in self._last)
        return sure >= least and familiar >= SHARE * sure

    def of(self, seen: Recognised) -> list[Sighting | None]:
        """What each of the pictures says; None of one that says nothing."""
        if seen.detected is None:
            return [None] * seen.num_rows
        return self.views(Looks.of(seen, self._initial), seen.num_rows)

    def views(self, looks: Looks, count: int) -> list[Sighting | None]:
        """The same of what the networks say of so many pictures."""
        model = self._of_model or Fits({}, None)
        key = next((k for k in model.thresholds if looks.has(k, model)), None)
        if key is None:
            return [None] * count
        self.threshold = model.thresholds[key]
        values = sure = looks.familiar(key, model)
        if key == BOTH:
            sure = np.where(looks.initial, 0.0, looks.confidences)
        pairs = zip(values.tolist(), sure.tolist(), strict=True)
        return [Sighting(value, one) if math.isfinite(value) else None for value, one in pairs]

    def update(self, view: Sighting | None) -> bool | None:
        """Takes the next picture's, and returns `fits`."""
        if view is not None and self.threshold is not None:
            self._last.append(view)
            self._since += 1
            if self._minute() >= self.threshold * self.window and self._shares(self._sure):
                self.fits, self._since = True, 0
            elif self._since >= self.patience:
                self.fits = False
            self.ever |= self.fits is True
        return self.fits

    def finish(self) -> bool | None:
        """Says at the end of a source whether it has ever fitted, if there was enough of it."""
        count = min(len(self._last), self.window)
        if self.fits is None and self.threshold is not None and count >= self._enough:
            self.fits = self._minute() / count >= self.threshold and self._shares(0)
        return True if self.ever else self.fits

    @property
    def pending(self) -> bool:
        """Whether it is not known yet and may be."""
        return self.threshold is not None and self.fits is None

    def state(self) -> WatchState:
        """Returns all that `restore` needs."""
        return WatchState(self.fits, self.ever, list(self._last), self._since)

    def restore(self, state: WatchState) -> None:
        """Goes back to a saved state."""
        self.fits, self.ever = state.fits, state.ever
        self._since = min(state.since, self.patience)
        self._last = collections.deque(state.last, maxlen=self.patience)
