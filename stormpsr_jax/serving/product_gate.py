"""Whether pictures are of the kind that a model was trained on.

A picture is *familiar* by as much as the detector is sure of the state that it sees, if the
embedding lies where those of training pictures lie (within a distance of a Gaussian of theirs: its
first principal axes, and one variance for all others), times how much the embedding agrees: the
softmax, over the states, of its cosines with the states' mean embeddings. The two networks learn
apart from each other; of a product that neither knows they hardly ever see the same state. For a
stream without an encoder the detector counts. A model without a detector cannot tell: embeddings of
most other products lie where those of its own do (benchmarks/results/foreign.md).

A clear view of the initial state says nothing and does not count: an empty bench, or a bare base
plate, looks the same whatever is put on it. `product_gate_watch.py` says what follows over time,
and `product_gate_learning.py` where what is familiar comes from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from stormpsr_jax.base.files import fit, shorten
from stormpsr_jax.serving.recogniser import Recognised

SECONDS = 60.0  # that the mean is over
CLEAR = 0.5  # of how familiar a picture is, above which an initial state is in clear view
TEMPERATURE = 0.05  # of the softmax over cosines

# What says how familiar a picture is; the first that can tell is taken.
KEYS = ("detector+encoder", "detector")
BOTH = KEYS[0]


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
            values = {} if part is None else dataclasses.asdict(part)
            plain = {key: _rounded(np.asarray(value).tolist()) for key, value in values.items()}
            found[name] = plain or None
        return found

    @classmethod
    def from_json(cls, data: Any, place: str) -> Fits:
        """Reads what `to_json` has made; ValueError names the place of the first error."""
        read = fit(data, _Json, place)
        if unknown := read.thresholds.keys() - set(KEYS):
            known = ", ".join(KEYS)
            raise ValueError(f"{place}: thresholds: {shorten(min(unknown))}: known are {known}")
        space = prototypes = None
        width = 0 if read.space is None else len(read.space.mean)
        if read.space is not None:
            count = len(read.space.deviations)
            if not 0 < count < width:
                raise ValueError(f"{place}: space: {count} deviations of {width} numbers")
            space = Space(
                np.array(read.space.mean),
                _rows(read.space.axes, (count, width), f"{place}: space: axes"),
                np.array(read.space.deviations),
                read.space.rest,
                read.space.typical,
            )
        if read.prototypes is not None:
            shape = len(read.prototypes.classes), width
            rows = _rows(read.prototypes.directions, shape, f"{place}: prototypes: directions")
            prototypes = Prototypes(np.array(read.prototypes.classes), rows)
        if BOTH in read.thresholds and (space is None or prototypes is None):
            raise ValueError(f"{place}: thresholds: {BOTH} needs a space and prototypes")
        thresholds = {key: read.thresholds[key] for key in KEYS if key in read.thresholds}
        return cls(thresholds, space, prototypes)


_Unit = Annotated[float, msgspec.Meta(ge=-1.01, le=1.01)]
_Positive = Annotated[float, msgspec.Meta(ge=1e-12, le=1e12)]


class _Space(msgspec.Struct):
    mean: list[Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]]
    axes: list[list[_Unit]]
    deviations: list[_Positive]
    rest: _Positive
    typical: _Positive


class _Prototypes(msgspec.Struct):
    classes: Annotated[
        list[Annotated[int, msgspec.Meta(gt=0, lt=2**31)]], msgspec.Meta(min_length=1)
    ]
    directions: list[list[_Unit]]


class _Json(msgspec.Struct):
    thresholds: dict[str, Annotated[float, msgspec.Meta(ge=0, le=1)]]
    space: _Space | None
    prototypes: _Prototypes | None


def _rows(rows: list[list[float]], shape: tuple[int, int], place: str) -> np.ndarray:
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise ValueError(f"{place}: are not {shape[0]} rows of {shape[1]} numbers")
    return np.array(rows)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return value if isinstance(value, int) else float(f"{value:.6g}")


class Looks(NamedTuple):
    """What a detector, and maybe an encoder, say of N pictures in order.

    Attributes:
        confidences: (N,) of the most confident detection of each; 0 where there is none.
        classes: (N,) of it; 0 where there is none.
        initial: (N,) whether that is an initial state.
        embeddings: (N, D); None without an encoder.
    """

    confidences: np.ndarray
    classes: np.ndarray
    initial: np.ndarray
    embeddings: np.ndarray | None

    @classmethod
    def of(cls, seen: Recognised, initial: Sequence[int]) -> Looks:
        """Returns it of a chunk with detections; `initial`: classes of the initial states."""
        assert seen.detected is not None
        _, classes, confidences = seen.detected
        confidences = np.where(classes > 0, confidences, 0.0)
        top = confidences.argmax(axis=1)[:, None]
        of_top, sure = (np.take_along_axis(a, top, 1)[:, 0] for a in (classes, confidences))
        sure = sure.astype(np.float64)
        return cls(sure, np.where(sure > 0, of_top, 0), np.isin(of_top, initial), seen.embeddings)

    def has(self, key: str, model: Fits) -> bool:
        """Whether the networks of a key of `KEYS` have looked at them, and the model knows them."""
        known = self.embeddings is not None and None not in (model.space, model.prototypes)
        return key != BOTH or known

    def familiar(self, key: str, model: Fits) -> np.ndarray:
        """How familiar they are by what a key of `KEYS` names: (N,), NaN where one says nothing."""
        values, agreement = self.confidences, np.ones(1)
        if key == BOTH:
            assert self.embeddings is not None
            assert model.space is not None
            assert model.prototypes is not None
            values = values * (model.space.distances(self.embeddings) <= model.space.typical)
            agreement = model.prototypes.agreement(self.embeddings, self.classes)
        clear = values > CLEAR  # no mean embedding is of an initial state
        return np.where(self.initial, np.where(clear, np.nan, 0.0), values * agreement)


def joined(parts: Iterable[Looks]) -> Looks:
    """Puts the chunks of a recording together."""
    *columns, embeddings = zip(*parts, strict=True)
    confidences, classes, initial = map(np.concatenate, columns)
    whole = None if embeddings[0] is None else np.concatenate(embeddings)
    return Looks(confidences, classes, initial, whole)
