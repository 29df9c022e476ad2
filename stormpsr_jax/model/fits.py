"""Whether pictures are of the kind that a model was trained on.

A picture is *familiar* by as much as the detector is sure of the state that it sees, if the
embedding lies where those of training pictures lie (within a distance of a Gaussian of theirs: its
first principal axes, and one variance for all others), times how much the embedding agrees: the
softmax, over the states, of its cosines with the states' mean embeddings. The two networks learn
apart from each other; of a product that neither knows they hardly ever see the same state. For a
stream that has one of the two networks alone, that one counts. Hands are not familiar either, so a
single picture says nothing. What counts is the mean over a minute: of a product that the model does
not know hardly a picture is familiar, of its own many are, though hands hide most of it. On the
bench of the model's own product another one may be familiar in some; so of all that the detector is
sure of in three minutes a share has to be. Pictures fit from the first minute on whose mean reaches
a threshold, with that share, until there was none for three minutes.

A clear view of the initial state says nothing and does not count: an empty bench, or a bare base
plate, looks the same whatever is put on it.

The threshold is what the best minute reaches in all but one in a hundred of the validation
recordings, in their own light and in others.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from stormpsr_jax.base.files import field, number, shorten
from stormpsr_jax.model.recogniser import Recognised

SECONDS = 60.0  # that the mean is over
HELD = 180.0  # seconds without a minute that fits, after which pictures do not
ENOUGH = 10.0  # seconds of a file from which on it may be said not to fit
AXES = 32
TYPICAL = 0.9  # share of what is seen on validation recordings that is near enough
FALSE_ALARMS = 0.01
FEW = 10  # with so many validation recordings the threshold is half of what they reach
CLEAR = 0.5  # of how familiar a picture is, above which an initial state is in clear view
LEAST = 0.005  # threshold below which pictures of other products could not be told
TEMPERATURE = 0.05  # of the softmax over cosines

# What says how familiar a picture is; the first that can tell is taken.
KEYS = ("detector+encoder", "detector", "encoder")
BOTH = KEYS[0]
# Of both networks, as a mean over a minute: what chance can reach on another product, and a good
# second in which they agree, which is enough however often validation recordings have it.
CHANCE, ENOUGH_OF_BOTH = 0.01, 0.02
# Of what the detector is sure of, and the seconds of it that this is asked of at least.
SHARE, SURE = 0.15, 3.0

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
class Prototypes:
    """The mean embedding of each state that training pictures show in clear view.

    Attributes:
        classes: (C,) rising.
        directions: (C, D) of length 1.
    """

    classes: np.ndarray
    directions: np.ndarray

    def agreement(self, embeddings: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """How much embeddings (B, D) speak for classes (B,): (B,), 0…1; 0 for an unknown class."""
        rows = np.asarray(embeddings, np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = rows @ self.directions.T / np.maximum(lengths, 1e-12)
        shares = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / TEMPERATURE)
        shares /= shares.sum(axis=1, keepdims=True)
        return np.where(self.classes == np.asarray(classes)[:, None], shares, 0).sum(axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Fits:
    """What tells pictures of a model's kind from others.

    Attributes:
        thresholds: of the mean, by what says how familiar a picture is, of `KEYS`. A key that is
            missing cannot tell.
        space: of embeddings; None of a model without.
        prototypes: of the states; None of a model without one of the two networks.
    """

    thresholds: Mapping[str, float]
    space: Space | None
    prototypes: Prototypes | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON, of six digits."""
        found: dict[str, Any] = {"thresholds": dict(self.thresholds)}
        for name, part in (("space", self.space), ("prototypes", self.prototypes)):
            found[name] = None if part is None else _plain(part)
        return found

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
        space = field(data, "space", (dict, type(None)), place)
        prototypes = field(data, "prototypes", (dict, type(None)), place)
        if space is not None:
            space = cls._read_space(space, f"{place}: space")
        if prototypes is not None:
            width = None if space is None else len(space.mean)
            prototypes = cls._read_prototypes(prototypes, width, f"{place}: prototypes")
        if BOTH in thresholds and (space is None or prototypes is None):
            raise ValueError(f"{place}: thresholds: {BOTH} needs a space and prototypes")
        return cls(thresholds, space, prototypes)

    @staticmethod
    def _read_space(space: Any, place: str) -> Space:
        arrays = {}
        for name in ("mean", "deviations"):
            values = field(space, name, list, place)
            low = 1e-12 if name == "deviations" else -1e12
            arrays[name] = np.array([number(one, f"{place}: {name}", low, 1e12) for one in values])
        shape = len(arrays["deviations"]), len(arrays["mean"])
        axes = field(space, "axes", list, place)
        if len(axes) != shape[0] or not 0 < shape[0] < shape[1]:
            raise ValueError(f"{place}: axes: there are {len(axes)}, and {shape[0]} deviations")
        arrays["axes"] = _unit_rows(axes, shape[1], f"{place}: axes")
        rest, typical = (
            number(field(space, name, (int, float), place), f"{place}: {name}", 1e-12, 1e12)
            for name in ("rest", "typical")
        )
        return Space(**arrays, rest=rest, typical=typical)

    @staticmethod
    def _read_prototypes(prototypes: Any, width: int | None, place: str) -> Prototypes:
        classes = field(prototypes, "classes", list, place)
        for one in classes:
            if not isinstance(one, int) or isinstance(one, bool) or not 0 < one < 2**31:
                raise ValueError(f"{place}: classes: {shorten(one)} is no class")
        rows = field(prototypes, "directions", list, place)
        if not classes or len(rows) != len(classes):
            raise ValueError(f"{place}: directions: {len(rows)}, and {len(classes)} classes")
        if width is None:
            raise ValueError(f"{place}: there is no space for them")
        return Prototypes(np.array(classes), _unit_rows(rows, width, f"{place}: directions"))


def _unit_rows(rows: list, width: int, place: str) -> np.ndarray:
    """Reads rows of `width` numbers of a size up to 1; ValueError."""
    for row in rows:
        if not isinstance(row, list) or len(row) != width:
            raise ValueError(f"{place}: {shorten(row)} is no list of {width} numbers")
    return np.array([[number(one, place, -1.01, 1.01) for one in row] for row in rows])


def _plain(values: Space | Prototypes) -> dict[str, Any]:
    return {
        name: _rounded(np.asarray(value).tolist())
        for name, value in dataclasses.asdict(values).items()
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return value if isinstance(value, int) else float(f"{value:.6g}")


# --- Learning -------------------------------------------------------------------------------------


class Looks(NamedTuple):
    """What the networks say of N pictures in order; None of a network that is missing.

    Attributes:
        confidences: (N,) of the most confident detection of each; 0 where there is none.
        classes: (N,) of it; 0 where there is none.
        initial: (N,) whether that is an initial state.
        embeddings: (N, D).
    """

    confidences: np.ndarray | None
    classes: np.ndarray | None
    initial: np.ndarray | None
    embeddings: np.ndarray | None

    @classmethod
    def of(cls, seen: Recognised, initial: Sequence[int]) -> Looks:
        """Returns it of a chunk; `initial`: classes of the initial states."""
        if seen.detected is None:
            return cls(None, None, None, seen.embeddings)
        _, classes, confidences = seen.detected
        confidences = np.where(classes > 0, confidences, 0.0)
        top = confidences.argmax(axis=1)[:, None]
        of_top, sure = (np.take_along_axis(a, top, 1)[:, 0] for a in (classes, confidences))
        sure = sure.astype(np.float64)
        return cls(sure, np.where(sure > 0, of_top, 0), np.isin(of_top, initial), seen.embeddings)

    def has(self, key: str, model: Fits) -> bool:
        """Whether the networks of a key of `KEYS` have looked at them, and the model knows them."""
        found = {"detector": self.confidences is not None}
        found["encoder"] = self.embeddings is not None and model.space is not None
        return all(found[name] for name in key.split("+")) and (
            key != BOTH or model.prototypes is not None
        )

    def familiar(self, key: str, model: Fits) -> np.ndarray:
        """How familiar they are by what a key of `KEYS` names: (N,), NaN where one says nothing."""
        values = np.ones(1)
        if "encoder" in key:
            assert self.embeddings is not None
            assert model.space is not None
            values = values * (model.space.distances(self.embeddings) <= model.space.typical)
        if "detector" in key:
            assert self.confidences is not None
            values = values * self.confidences
        if key == BOTH:
            assert self.embeddings is not None
            assert self.classes is not None
            assert model.prototypes is not None
            values = values * model.prototypes.agreement(self.embeddings, self.classes)
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
    space = prototypes = None
    if training[0].embeddings is not None:
        trained = joined(training)
        space = _space(np.asarray(trained.embeddings))
        prototypes = _prototypes(trained)
        whole = joined(validation)
        distances = space.distances(np.asarray(whole.embeddings))
        weights = np.ones(len(distances))
        if whole.confidences is not None:  # what hands hide need not be near
            weights = np.where(np.asarray(whole.initial), 0.0, whole.confidences) + 1e-9
        space = dataclasses.replace(space, typical=_quantile(distances, weights, TYPICAL))
    model = Fits({}, space, prototypes)
    thresholds = {}
    for key in KEYS:
        if not all(one.has(key, model) for one in validation):
            continue
        threshold = _threshold(key, [one.familiar(key, model) for one in validation], rate)
        if threshold >= LEAST:
            thresholds[key] = threshold
    return dataclasses.replace(model, thresholds=thresholds)


def _threshold(key: str, familiar: Sequence[np.ndarray], rate: float) -> float:
    """What the best minute of recordings reaches, each a row of how familiar its pictures are."""
    window = round(SECONDS * rate)
    rows = [values[np.isfinite(values)] for values in familiar]
    best = [float(_means(row, window).max()) for row in rows if len(row)]
    if not best or max(best) < LEAST:
        return 0.0
    threshold = float(np.quantile(best, FALSE_ALARMS)) * len(best) / (len(best) + FEW)
    return float(np.clip(threshold, CHANCE, ENOUGH_OF_BOTH)) if key == BOTH else threshold


def _prototypes(training: Looks) -> Prototypes | None:
    """The mean embeddings of what the detector sees, weighted by how sure it is."""
    if training.confidences is None or training.classes is None or training.initial is None:
        return None
    sure = np.where(training.initial, 0.0, training.confidences)
    classes = np.unique(training.classes[sure > CLEAR])
    if not len(classes):
        return None
    rows = np.asarray(training.embeddings, np.float64)
    means = []
    for one in classes:
        chosen = training.classes == one
        means.append(np.average(rows[chosen], axis=0, weights=sure[chosen]))
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return Prototypes(classes, np.stack(means) / np.maximum(lengths, 1e-12))


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


class View(NamedTuple):
    """What a picture says.

    Attributes:
        familiar: how familiar it is.
        sure: how sure the detector is of a state other than an initial one; where one network alone
            looks, as `familiar`.
    """

    familiar: float
    sure: float


class Watch:
    """The verdict over the pictures of a source; the memory does not grow.

    Attributes:
        fits: whether they fit; None until that is known, and of a model that cannot tell.
        score: mean of how familiar they are over the last minute, missing ones counted as 0 before
            it is full; None of a model that cannot tell.
        threshold: of it, or None.
        ever: whether they have fitted at any time.
        window, patience: pictures of a minute, and of `HELD` seconds.
    """

    def __init__(self, fits: Fits | None, rate: float, initial: Sequence[int]):
        """Begins.

        Args:
            fits: of the model; None cannot tell.
            rate: pictures per second of the source.
            initial: classes of the initial states.
        """
        self._of_model, self._initial = fits, initial
        self.window, self.patience = round(SECONDS * rate), round(HELD * rate)
        self._enough = round(ENOUGH * rate)
        self._sure = SURE * rate
        self._since = 0  # pictures that counted after the last minute that fitted
        self._last: collections.deque[View] = collections.deque(maxlen=self.patience)
        self.fits: bool | None = None
        self.ever = False
        self.threshold: float | None = None

    @property
    def score(self) -> float | None:
        """See the class."""
        return self._minute() / self.window if self.threshold is not None else None

    def _minute(self) -> float:
        """How familiar the pictures of the last minute are together."""
        start = max(0, len(self._last) - self.window)
        return math.fsum(view.familiar for view in itertools.islice(self._last, start, None))

    def _shares(self, least: float) -> bool:
        """Whether enough of what the detector was sure of is familiar, if that was so much."""
        sure = math.fsum(view.sure for view in self._last)
        familiar = math.fsum(view.familiar for view in self._last)
        return sure >= least and familiar >= SHARE * sure

    def of(self, seen: Recognised) -> list[View | None]:
        """What each of the pictures says; None of one that says nothing."""
        unknown: list[View | None] = [None] * seen.num_rows
        if self._of_model is None:
            return unknown
        looks, model = Looks.of(seen, self._initial), self._of_model
        key = next((k for k in model.thresholds if looks.has(k, model)), None)
        if key is None:
            return unknown
        self.threshold = model.thresholds[key]
        values = sure = looks.familiar(key, model)
        if key == BOTH:
            assert looks.confidences is not None
            sure = np.where(np.asarray(looks.initial), 0.0, looks.confidences)
        pairs = zip(values.tolist(), sure.tolist(), strict=True)
        return [View(value, one) if math.isfinite(value) else None for value, one in pairs]

    def update(self, view: View | None) -> bool | None:
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
    def holding(self) -> bool:
        """Whether it is not known yet and may be."""
        return self.threshold is not None and self.fits is None

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs, as plain values for JSON."""
        last = [list(view) for view in self._last]
        return {"fits": self.fits, "last": last, "since": self._since}

    def restore(self, state: Any) -> None:
        """Goes back to a saved state; ValueError if it is damaged."""
        place = "fits: the saved state is damaged"
        fits = field(state, "fits", (bool, type(None)), place)
        since = number(field(state, "since", int, place), f"{place}: since", 0, 2**62)
        last = field(state, "last", list, place)
        if len(last) > self.patience:
            raise ValueError(f"{place}: last: {len(last)} pictures are more than three minutes")
        views = []
        for one in last:
            if not isinstance(one, list) or len(one) != 2:
                raise ValueError(f"{place}: last: {shorten(one)} is no pair of numbers")
            views.append(View(*(number(value, f"{place}: last", 0, 1) for value in one)))
        self.fits, self._since = fits, min(int(since), self.patience)
        self._last = collections.deque(views, maxlen=self.patience)


class Held(Generic[_T]):
    """Holds back what must not be decoded before it is known whether the pictures fit."""

    def __init__(self, watch: Watch):
        """`watch`: is told of the same pictures."""
        self._watch = watch
        self._rows: collections.deque[_T] = collections.deque()

    def add(self, row: _T, view: View | None) -> Iterator[_T]:
        """Takes the next picture's row, and what that says; yields the rows to decode.

        Three minutes of rows are held. What is older is not decoded any more: it was no clear view
        of anything but an initial state.
        """
        self._watch.update(view)
        self._rows.append(row)
        if not self._watch.holding:
            yield from self.release()
        elif len(self._rows) > self._watch.patience:
            self._rows.popleft()

    def release(self) -> Iterator[_T]:
        """Yields what is held, if that does not belong to another product."""
        rows, self._rows = self._rows, collections.deque()
        if self._watch.fits is not False:
            yield from rows
