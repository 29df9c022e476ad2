"""Whether pictures are of the kind that a model was trained on.

A picture is *familiar* by as much as the detector is sure of the state that it sees, if the
embedding lies where those of training pictures lie: within a distance of a Gaussian of theirs (its
first principal axes, and one variance for all others). For a stream that has one of the two
networks alone, that one counts. Hands are not familiar either, so a single picture says nothing.
What counts is the mean over the last minute: of a product that the model does not know hardly a
picture is familiar, of its own many are, though hands hide most of it.

A clear view of the initial state says nothing and does not count: an empty bench, or a bare base
plate, looks the same whatever is put on it.

The mean's threshold is the one that one in a hundred minutes of validation recordings, in their own
light and in others, stays below.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from stormpsr_jax.base.files import field, number, shorten
from stormpsr_jax.model.recogniser import Recognised

SECONDS = 60.0  # that the mean is over
ENOUGH = 10.0  # seconds of a file from which on it may be said not to fit
AXES = 32
TYPICAL = 0.9  # share of what is seen on validation recordings that is near enough
FALSE_ALARMS = 0.01
CLEAR = 0.5  # of how familiar a picture is, above which an initial state is in clear view
LEAST = 0.005  # threshold below which pictures of other products could not be told

# What says how familiar a picture is; the first that can tell is taken.
KEYS = ("detector+encoder", "detector", "encoder")

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
    """Where the embeddings of training pictures lie.

    Attributes:
        mean: (D,).
        axes: (R, D) orthonormal, the first principal axes.
        deviations: (R,) standard deviations along them.
        rest: standard deviation along each other axis.
        typical: the distance up to which an embedding lies among them.
    """

    mean: np.ndarray
    axes: np.ndarray
    deviations: np.ndarray
    rest: float
    typical: float = 0.0

    def distances(self, embeddings: np.ndarray) -> np.ndarray:
        """Root mean square over the D axes of how many deviations embeddings (B, D) are away."""
        centred = np.asarray(embeddings, np.float64) - self.mean
        along = centred @ self.axes.T
        rest = np.square(centred).sum(axis=1) - np.square(along).sum(axis=1)
        total = np.square(along / self.deviations).sum(axis=1)
        return np.sqrt((total + np.maximum(rest, 0) / self.rest**2) / centred.shape[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Fits:
    """What tells pictures of a model's kind from others.

    Attributes:
        thresholds: of the mean, by what says how familiar a picture is, of `KEYS`. A key that is
            missing cannot tell.
        space: of embeddings; None of a model without.
    """

    thresholds: Mapping[str, float]
    space: Space | None

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON, of six digits."""
        space = None
        if self.space is not None:
            space = {
                name: _rounded(np.asarray(value).tolist())
                for name, value in dataclasses.asdict(self.space).items()
            }
        return {"thresholds": dict(self.thresholds), "space": space}

    @classmethod
    def from_json(cls, data: Any, place: str) -> Fits:
        """Reads what `to_json` has made; ValueError names the place of the first mistake."""
        thresholds = field(data, "thresholds", dict, place)
        for key, value in thresholds.items():
            if key not in KEYS:
                raise ValueError(
                    f"{place}: thresholds: {shorten(key)}: unknown key; known are {', '.join(KEYS)}"
                )
            number(value, f"{place}: thresholds: {key}", 0, 1)
        thresholds = {key: thresholds[key] for key in KEYS if key in thresholds}
        if field(data, "space", (dict, type(None)), place) is None:
            return cls(thresholds, None)
        place = f"{place}: space"
        space, arrays = data["space"], {}
        for name in ("mean", "deviations"):
            values = field(space, name, list, place)
            low = 1e-12 if name == "deviations" else -1e12
            arrays[name] = np.array([number(one, f"{place}: {name}", low, 1e12) for one in values])
        axes = field(space, "axes", list, place)
        shape = len(arrays["deviations"]), len(arrays["mean"])
        if len(axes) != shape[0] or not 0 < shape[0] < shape[1]:
            raise ValueError(f"{place}: axes: there are {len(axes)}, and {shape[0]} deviations")
        for axis in axes:
            if not isinstance(axis, list) or len(axis) != shape[1]:
                raise ValueError(f"{place}: axes: {shorten(axis)} is no list of {shape[1]} numbers")
        arrays["axes"] = np.array(
            [[number(one, f"{place}: axes", -1.01, 1.01) for one in axis] for axis in axes]
        )
        rest, typical = (
            number(field(space, name, (int, float), place), f"{place}: {name}", 1e-12, 1e12)
            for name in ("rest", "typical")
        )
        return cls(thresholds, Space(**arrays, rest=rest, typical=typical))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}")


# --- Learning -------------------------------------------------------------------------------------


class Looks(NamedTuple):
    """What the networks say of N pictures in order; None of a network that is missing.

    Attributes:
        confidences: (N,) of the most confident detection of each; 0 where there is none.
        initial: (N,) whether it is of an initial state.
        embeddings: (N, D).
    """

    confidences: np.ndarray | None
    initial: np.ndarray | None
    embeddings: np.ndarray | None

    @classmethod
    def of(cls, seen: Recognised, initial: Sequence[int]) -> Looks:
        """Returns it of a chunk; `initial`: classes of the initial states."""
        if seen.detected is None:
            return cls(None, None, seen.embeddings)
        _, classes, confidences = seen.detected
        confidences = np.where(classes > 0, confidences, 0.0)
        top = confidences.argmax(axis=1)[:, None]
        of_top, sure = (np.take_along_axis(a, top, 1)[:, 0] for a in (classes, confidences))
        return cls(sure.astype(np.float64), np.isin(of_top, initial), seen.embeddings)

    def has(self, key: str, space: Space | None) -> bool:
        """Whether the networks of a key of `KEYS` have looked at them."""
        found = {"detector": self.confidences is not None}
        found["encoder"] = self.embeddings is not None and space is not None
        return all(found[name] for name in key.split("+"))

    def familiar(self, key: str, space: Space | None) -> np.ndarray:
        """How familiar they are by what a key of `KEYS` names: (N,), NaN where one says nothing."""
        values = np.ones(1)
        if "encoder" in key:
            assert self.embeddings is not None
            assert space is not None
            values = values * (space.distances(self.embeddings) <= space.typical)
        if "detector" in key:
            assert self.confidences is not None
            values = values * self.confidences
        if self.initial is not None:
            values = np.where(self.initial, np.where(values > CLEAR, np.nan, 0.0), values)
        return values


def joined(parts: Iterable[Looks]) -> Looks:
    """Puts the chunks of a recording together."""
    columns = zip(*parts, strict=True)
    return Looks(*(None if c[0] is None else np.concatenate(c) for c in columns))


def learn(training: Sequence[Looks], validation: Sequence[Looks], rate: float) -> Fits:
    """Learns what is familiar from training recordings, and the thresholds from validation ones.

    Args:
        training: what is said of some pictures of recordings.
        validation: of whole recordings, evenly thinned out.
        rate: pictures per second of these.

    Raises:
        ValueError: there is no picture of one of them.
    """
    if not training or not validation:
        raise ValueError("whether pictures fit is learnt from training and validation recordings")
    space = None
    if training[0].embeddings is not None:
        space = _space(np.concatenate([np.asarray(one.embeddings) for one in training]))
        whole = joined(validation)
        distances = space.distances(np.asarray(whole.embeddings))
        weights = np.ones(len(distances))
        if whole.confidences is not None:  # what hands hide need not be near
            weights = np.where(np.asarray(whole.initial), 0.0, whole.confidences) + 1e-9
        space = dataclasses.replace(space, typical=_quantile(distances, weights, TYPICAL))
    window = round(SECONDS * rate)
    thresholds = {}
    for key in KEYS:
        if not all(one.has(key, space) for one in validation):
            continue
        familiar = [one.familiar(key, space) for one in validation]
        means = np.concatenate([_means(one[np.isfinite(one)], window) for one in familiar])
        threshold = float(np.quantile(means, FALSE_ALARMS)) if len(means) else 0.0
        if threshold >= LEAST:
            thresholds[key] = threshold
    return Fits(thresholds, space)


def _space(embeddings: np.ndarray) -> Space:
    centred = np.asarray(embeddings, np.float64)
    mean = centred.mean(axis=0)
    centred = centred - mean
    count, width = centred.shape
    values, vectors = np.linalg.eigh(centred.T @ centred / count)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    kept = min(AXES, width - 1, max(count - 1, 1))
    # A direction in which nothing has moved yet is no endless distance.
    smallest = 1e-6 * max(float(values.mean()), 1e-12)
    rest = math.sqrt(max(float(values[kept:].mean()), smallest))
    return Space(mean, vectors[:, :kept].T, np.sqrt(np.maximum(values[:kept], smallest)), rest)


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value up to which this share of the weights lies."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, share * total[-1])])


def _means(values: np.ndarray, window: int) -> np.ndarray:
    """Means over all windows of so many values in a row, or over all values if there are fewer."""
    if not len(values):
        return values
    sums = np.cumsum([0.0, *values])
    window = min(window, len(values))
    return (sums[window:] - sums[:-window]) / window


# --- Recognition ----------------------------------------------------------------------------------


class Watch:
    """The verdict over the pictures of a source; the memory does not grow.

    Attributes:
        fits: whether they fit; None until that is known, and of a model that cannot tell.
        score: mean of how familiar they are over the last minute, missing ones counted as 0 before
            it is full; None of a model that cannot tell.
        threshold: of it, or None.
        ever: whether they have fitted at any time.
        window: pictures of a minute.
    """

    def __init__(self, fits: Fits | None, rate: float, initial: Sequence[int]):
        """Begins.

        Args:
            fits: of the model; None cannot tell.
            rate: pictures per second of the source.
            initial: classes of the initial states.
        """
        self._of_model, self._initial = fits, initial
        self.window = round(SECONDS * rate)
        self._enough = round(ENOUGH * rate)
        self._last: collections.deque[float] = collections.deque(maxlen=self.window)
        self.fits: bool | None = None
        self.ever = False
        self.threshold: float | None = None

    @property
    def score(self) -> float | None:
        """See the class."""
        return math.fsum(self._last) / self.window if self.threshold is not None else None

    def of(self, seen: Recognised) -> list[float | None]:
        """How familiar each of the pictures is; None of one that says nothing."""
        unknown: list[float | None] = [None] * seen.num_rows
        if self._of_model is None:
            return unknown
        looks, model = Looks.of(seen, self._initial), self._of_model
        key = next((k for k in model.thresholds if looks.has(k, model.space)), None)
        if key is None:
            return unknown
        self.threshold = model.thresholds[key]
        values = looks.familiar(key, model.space)
        return [value if math.isfinite(value) else None for value in values.tolist()]

    def update(self, value: float | None) -> bool | None:
        """Takes the next picture's, and returns `fits`."""
        if value is not None and self.threshold is not None:
            self._last.append(value)
            if math.fsum(self._last) >= self.threshold * self.window:
                self.fits = True
            elif len(self._last) == self.window:
                self.fits = False
            self.ever |= self.fits is True
        return self.fits

    def finish(self) -> bool | None:
        """Says at the end of a source whether it has ever fitted, if there was enough of it."""
        count = len(self._last)
        if self.fits is None and self.threshold is not None and count >= self._enough:
            self.fits = math.fsum(self._last) / count >= self.threshold
        return True if self.ever else self.fits

    @property
    def holding(self) -> bool:
        """Whether it is not known yet and may be."""
        return self.threshold is not None and self.fits is None

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs, as plain values for JSON."""
        return {"fits": self.fits, "last": list(self._last)}

    def restore(self, state: Any) -> None:
        """Goes back to a saved state; ValueError if it is damaged."""
        if not isinstance(state, Mapping):
            raise ValueError("fits: the saved state is damaged")
        fits, last = state.get("fits"), state.get("last")
        good = fits is None or isinstance(fits, bool)
        if not good or not isinstance(last, list) or len(last) > self.window:
            raise ValueError("fits: the saved state is damaged")
        for value in last:
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError("fits: the saved state is damaged")
        self.fits = fits
        self._last = collections.deque(map(float, last), maxlen=self.window)


class Held(Generic[_T]):
    """Holds back what must not be decoded before it is known whether the pictures fit."""

    def __init__(self, watch: Watch):
        """`watch`: is told of the same pictures."""
        self._watch = watch
        self._rows: collections.deque[_T] = collections.deque()

    def add(self, row: _T, value: float | None) -> Iterator[_T]:
        """Takes the next picture's row, and how familiar it is; yields the rows to decode.

        A minute of rows is held. What is older is not decoded any more: it was no clear view of
        anything but an initial state.
        """
        self._watch.update(value)
        self._rows.append(row)
        if not self._watch.holding:
            yield from self.release()
        elif len(self._rows) > self._watch.window:
            self._rows.popleft()

    def release(self) -> Iterator[_T]:
        """Yields what is held, if that does not belong to another product."""
        rows, self._rows = self._rows, collections.deque()
        if self._watch.fits is not False:
            yield from rows
