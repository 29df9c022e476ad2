"""The learned fusion: from all scores of a frame to beliefs about each component.

Eq. 9 adds up top detections and changes. This rule, which is not in the papers, weighs all that the
networks say with a few hundred weights, which the components share, fitted on labelled recordings
(`networks/learned_fusion.py`). Per component k, with g = σ(objectness), p the probabilities of the
states and c the largest p of a catalogued one, the inputs x are, each logit cut to ±`LIMIT`:

     0  l · g / 3          l = logit of Σ_c p_c s_c[k] / Σ_c p_c, catalogued states alone
     1  l · c · g / 3
     2  g
     3  part present · g / 3
     4  part right · g / 3
     5  P(error state) · g
     6  temporal change / 4
     7  the largest temporal change of the other components / 4
     8  temporal present / 4
     9  temporal right / 4
    10  part present / 3
    11  part right / 3

g is near 0 where hands hide some of the object, though the heads of the parts have learnt from such
pictures too: what they say there is in the last two alone. What a recording lacks is 0. Averaged
over the last frames the inputs drive a gated recurrent unit (Cho et al., EMNLP 2014; the reset gate
as in cuDNN) per component:

    u, r = σ(W x + b + V h)      n = tanh(W x + b + r ⊙ V h)      h ← u ⊙ h + (1 − u) ⊙ n
    o_present, o_right = R h + S x + d

P(present) = σ(o_present), P(right) = σ(o_present) σ(o_right), P(wrong) = σ(o_present) σ(−o_right).

Projection: assemblies that exist, the catalogued states, the variant's initial one, and those that
differ from one of these in one component, say which components are right together. Over them b(v) ∝
ρ^[v uncatalogued] · exp Σ_k v_k · clip(logit P(right), ±12), and q_k = Σ_v b(v) v_k takes the place
of P(right). No order of steps is used. It helps to see a step; that one part is right, another one
cannot show: `evidence.py` has what speaks for that.

A file of weights is JSON: {"format": 2, "kind", "average", "rate", "world", "trust", "arrays":
{name: nested lists of numbers}}, where "rate" may be absent, "world" is absent if it is "toy", and
"trust" if it is empty. It is checked for names, shapes and bounds, and nothing in it is
executed.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.psr.evidence import Evidence, sigmoid
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.scores import KINDS, FrameScores

FORMAT = 2
WORLDS = ("toy", "bench", "own")  # of the models whose false acceptances `risk.priors` has
PACKAGED = pathlib.Path(__file__).parents[1] / "pretrained"
NUM_INPUTS = 12  # F
MAX_UNITS = 64  # U
MAX_WEIGHT = 1e3
MAX_AVERAGE = 60.0  # seconds
MIN_RATE, MAX_RATE = 0.01, 1000.0  # pictures a second


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Weights that all components share. F inputs, U units.

    Attributes:
        kind: of `scores.KINDS`: the scores that they were fitted on.
        average: seconds that inputs are averaged over.
        arrays: by name as in `shapes`, float64.
        rate: pictures a second that they were fitted at; None of older ones, which count pictures.
        world: of `WORLDS`, the models whose false acceptances count beside one's own.
        trust: (K,) in 0…1, of each part's evidence (`evidence.py`); () trusts all.
    """

    kind: str
    average: float
    arrays: Mapping[str, np.ndarray]
    rate: float | None = None
    world: str = WORLDS[0]
    trust: tuple[float, ...] = ()

    @property
    def units(self) -> int:
        """U."""
        return self.arrays["start"].shape[1]

    @property
    def prior(self) -> str:
        """The name of p₀ in `risk.priors`."""
        return self.kind if self.world == WORLDS[0] else f"{self.kind}, {self.world}"

    @property
    def checksum(self) -> str:
        """The SHA-256 of all that there is of them."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the file that `from_json` reads back."""
        arrays = {name: np.asarray(a, float).tolist() for name, a in self.arrays.items()}
        fields: dict[str, Any] = {} if self.rate is None else {"rate": self.rate}
        fields |= {} if self.world == WORLDS[0] else {"world": self.world}
        fields |= {"trust": list(self.trust)} if self.trust else {}
        content = {"format": FORMAT, "kind": self.kind, "average": self.average}
        return content | fields | {"arrays": arrays}

    @classmethod
    def from_json(cls, data: Any, place: str = "weights") -> Weights:
        """Builds weights from the content of their file; ValueError has the first error's place."""
        if (form := files.field(data, "format", int, place)) != FORMAT:
            raise ValueError(
                f"{place}: format: {form}, this version of stormpsr_jax knows {FORMAT}; fit the "
                "weights again, or update the package"
            )
        kind = files.field(data, "kind", str, place)
        if kind not in KINDS:
            choices = ", ".join(KINDS)
            raise ValueError(f"{place}: kind: {files.shorten(kind)} is not one of {choices}")
        average = files.number(data.get("average"), f"{place}: average", 0, MAX_AVERAGE)
        rate = data.get("rate")
        if rate is not None:
            rate = files.number(rate, f"{place}: rate", MIN_RATE, MAX_RATE)
        world = data.get("world", WORLDS[0])
        if world not in WORLDS:
            choices = ", ".join(WORLDS)
            raise ValueError(f"{place}: world: {files.shorten(world)} is not one of {choices}")
        trust = files.field({"trust": [], **data}, "trust", list, place)
        trust = [files.number(one, f"{place}: trust", 0, 1) for one in trust]
        given = files.field(data, "arrays", dict, place)
        start = files.field(given, "start", list, f"{place}: arrays")
        units = len(start[0]) if start and isinstance(start[0], list) else 0
        if not 1 <= units <= MAX_UNITS:
            raise ValueError(f"{place}: arrays: start: is not of 1…{MAX_UNITS} units")
        wanted = shapes(units)
        keys = ("format", "kind", "average", "rate", "world", "trust", "arrays")
        for where, entries, its in ((place, data, keys), (f"{place}: arrays", given, (*wanted,))):
            if unknown := [key for key in entries if key not in its]:
                raise ValueError(f"{where}: {files.shorten(unknown[0])}: unknown key")
        arrays = {}
        for name, shape in wanted.items():
            values = files.field(given, name, list, f"{place}: arrays")
            arrays[name] = _array(values, shape, f"{place}: arrays: {name}")
        return cls(kind, average, arrays, rate, world, tuple(trust))


def shapes(units: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays.

    "start": of a component that is absent at the beginning, and of one that is there. "input",
    "recurrent" and "bias": of the update gate, the reset gate and the new value, side by side.
    "readout" of the units and "skip" of the inputs: the logits of being present and of being right.
    """
    return {
        "start": (2, units),
        "input": (NUM_INPUTS, 3 * units),
        "recurrent": (units, 3 * units),
        "bias": (3 * units,),
        "readout": (units, 2),
        "skip": (NUM_INPUTS, 2),
        "offset": (2,),
    }


def _array(values: Any, shape: tuple[int, ...], place: str) -> np.ndarray:
    """Nested lists of numbers as an array; their lengths are checked on the way."""
    if not shape:
        return np.array(files.number(values, place, -MAX_WEIGHT, MAX_WEIGHT), np.float64)
    if not isinstance(values, list) or len(values) != shape[0]:
        raise ValueError(f"{place}: {files.shorten(values)} is not a list of {shape[0]}")
    return np.stack([_array(value, shape[1:], place) for value in values])


def read_weights(path: str | os.PathLike) -> Weights:
    """Reads a file of weights; ValueError names one that is not what this module describes."""
    return Weights.from_json(files.read_json(path), str(path))


def write_weights(path: str | os.PathLike, weights: Weights) -> None:
    """Writes the file that `read_weights` reads, whole; OSError names it."""
    if not all(np.isfinite(a).all() for a in weights.arrays.values()):
        raise ValueError(f"{path}: the weights are not finite")
    files.write_json(path, weights.to_json())


def default_weights(kind: str, world: str = WORLDS[0]) -> Weights:
    """Returns the weights that ship with the package; tools/fusion_weights.py fits them."""
    weights = read_weights(PACKAGED / f"fusion_{kind}.json")
    return dataclasses.replace(weights, world=world)


LIMIT = 12.0  # of a logit: e^-12 is 6 in a million
_EDGE = 1e-3  # of the catalogued marginal


class Belief(NamedTuple):
    """Logits (K,) at one frame; with an axis N in front, of a recording.

    Attributes:
        present, right, wrong: of being there, correctly installed (projected), incorrectly
            installed.
        own: of being right and not wrong, by what was seen of the part itself (`evidence.py`).
    """

    present: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    own: np.ndarray

    def probabilities(self) -> Belief:
        """Returns the same in 0…1; right and wrong may add up to more after a projection."""
        return Belief(*map(sigmoid, self))


# --- Inputs ---------------------------------------------------------------------------------------


def inputs(scores: FrameScores, catalogue: np.ndarray) -> np.ndarray:
    """Returns the inputs (N, K, F) of N frames, not averaged; `catalogue` (S, K) are the states.

    ValueError: arrays that do not fit the catalogue.
    """
    num = catalogue.shape[1]
    N = next(len(array) for array in scores if array is not None)
    x = np.zeros((N, num, NUM_INPUTS))
    if scores.objectness is not None and scores.states is not None:
        g = sigmoid(np.clip(scores.objectness.astype(float), -60, 60))[:, None]
        p = np.exp(np.minimum(scores.states.astype(float), 0.0))
        catalogued = p[:, :-1]
        share = catalogued @ catalogue / np.maximum(catalogued.sum(axis=1), 1e-30)[:, None]
        share = np.clip(share, _EDGE, 1 - _EDGE)
        marginal = (np.log(share) - np.log1p(-share)) * g / 3
        x[..., 0] = marginal
        x[..., 1] = marginal * catalogued.max(axis=1)[:, None]
        x[..., 2] = g
        x[..., 5] = p[:, -1:] * g
        if scores.parts is not None:
            x[..., 10:] = _pairs(scores.parts, 2) / 3
            x[..., 3:5] = x[..., 10:] * g[..., None]
    if scores.temporal is not None:
        z = _pairs(scores.temporal, scores.temporal.shape[1] // num) / 4
        x[..., 6] = z[..., 0]
        if num > 1:
            highest = z[..., 0].argmax(axis=1)[:, None]
            second = np.partition(z[..., 0], num - 2, axis=1)[:, num - 2, None]
            first = np.take_along_axis(z[..., 0], highest, 1)
            x[..., 7] = np.where(np.arange(num) == highest, second, first)
        x[..., 8 : 7 + z.shape[2]] = z[..., 1:]
    return x


def _pairs(logits: np.ndarray, count: int) -> np.ndarray:
    """(N, count · K), K of a kind together → (N, K, count), cut."""
    cut = np.clip(logits.astype(float), -LIMIT, LIMIT)
    return cut.reshape(len(cut), count, -1).swapaxes(1, 2)


def moving_average(frames: np.ndarray, x: np.ndarray, span: int) -> np.ndarray:
    """Returns the means of rows `x` (N, …) over those at most `span` − 1 frames before each.

    `frames` (N,) are ascending, and `span` is 1 or more.
    """
    total, count = np.zeros_like(x), np.zeros(len(x))
    for back in range(min(span, len(x)) - 1, -1, -1):  # oldest first, as the decoder adds
        rows = np.arange(back, len(x))
        rows = rows[frames[rows] - frames[rows - back] < span]
        total[rows] += x[rows - back]
        count[rows] += 1
    return total / count.reshape(-1, *[1] * (x.ndim - 1))


def span_frames(average: float, fps: float) -> int:
    """Returns the frames that inputs are averaged over, for seconds and frames per second."""
    return max(1, round(average * fps))


# --- Beliefs --------------------------------------------------------------------------------------


class Filter:
    """The recurrent unit of all components and the projection: scores in, beliefs out."""

    def __init__(
        self,
        procedure: Procedure,
        variant: Variant,
        weights: Weights,
        rho: float | None,
        removal: np.ndarray,
        begin: int | None = None,
        camera: Sequence[float] | None = None,
    ) -> None:
        """Of the start of a recording.

        Args:
            rho: of the projection; None leaves it out.
            removal: (K,) logits of P(present) below which a part is off.
            begin: frame at which the recording begins; None is the first one that is taken.
            camera: (K,) added to the logits of being right, but not for the evidence.
        """
        self._catalogue, self._fps = procedure.states.astype(float), procedure.fps
        self._arrays, self._rate = weights.arrays, weights.rate
        self._span = span_frames(weights.average, procedure.fps)
        self._project = None
        if rho is not None:
            self._project = Projection(procedure.states, variant.initial_state, rho)
        self.hidden = weights.arrays["start"][list(variant.initial_state)]  # (K, U)
        self.recent: collections.deque[tuple[int, np.ndarray]] = collections.deque()
        self.evidence = Evidence(variant.initial_state, removal, weights.trust)
        self.begin = begin
        self._camera = None if camera is None else np.array([*(0.0 for _ in camera), *camera])

    def update(self, frame: int, scores: FrameScores, passed: int = 1) -> Belief:
        """Takes the scores of the next frame, which stands for the `passed` frames up to it."""
        moved = scores
        if self._camera is not None and scores.parts is not None:
            moved = scores._replace(parts=scores.parts + self._camera)
        batch = moved.each(lambda a: np.asarray(a)[None])
        x = inputs(batch, self._catalogue)[0]
        while self.recent and frame - self.recent[0][0] >= self._span:
            self.recent.popleft()
        self.recent.append((frame, x))
        total = np.zeros_like(x)
        for _, recent in self.recent:
            total += recent
        seconds = passed / self._fps
        steps = 1.0 if self._rate is None else seconds * self._rate
        self.hidden, o = step(self._arrays, self.hidden, total / len(self.recent), steps)
        present, right = o.T
        log_present = -np.logaddexp(0, -present)
        is_right = _logit_of_log(log_present - np.logaddexp(0, -right))
        wrong = _logit_of_log(log_present - np.logaddexp(0, right))
        self.begin = frame if self.begin is None else self.begin
        time = (frame - self.begin) / self._fps
        sure = self.evidence.update(scores, present, is_right, wrong, time, seconds)
        projected = is_right if self._project is None else self._project(is_right)
        said = LIMIT * self.evidence.said  # a person's word is believed as long as it stands
        right, wrong = np.where(said, said, projected), np.where(said, -said, wrong)
        return Belief(present, right, wrong, sure)


def step(
    arrays: Mapping[str, np.ndarray], hidden: np.ndarray, x: np.ndarray, steps: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """One step of the recurrent unit of inputs (K, F), which counts as so many of them.

    Returns `hidden` (K, U) and logits (K, 2): of being present, of being right if present.
    """
    U = hidden.shape[1]
    a = x @ arrays["input"] + arrays["bias"]
    b = hidden @ arrays["recurrent"]
    gates = sigmoid(a[:, : 2 * U] + b[:, : 2 * U])
    update, reset = gates[:, :U] ** steps, gates[:, U:]
    new = np.tanh(a[:, 2 * U :] + reset * b[:, 2 * U :])
    hidden = update * hidden + (1 - update) * new
    return hidden, hidden @ arrays["readout"] + x @ arrays["skip"] + arrays["offset"]


class Projection:
    """Marginals over the assemblies that exist, of logits that count components one by one.

    The neighbours of a state are not laid out: of state s, that with component k flipped scores as
    s does but for k.
    """

    def __init__(self, catalogue: np.ndarray, initial: tuple[int, ...], rho: float) -> None:
        states = np.unique(np.vstack([catalogue, initial]).astype(np.int8), axis=0)
        seen = {row.tobytes() for row in states}
        # (S, K): whether the neighbour counts, that is, is no catalogued state and not there twice.
        counts = np.zeros(states.shape, bool)
        for s, row in enumerate(states):
            for k in range(len(row)):
                row[k] ^= 1
                key = row.tobytes()
                row[k] ^= 1
                counts[s, k] = key not in seen
                seen.add(key)
        self._states = states.astype(float)
        self._signs = 1 - 2 * self._states
        self._weight = rho * counts

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Returns logits (K,) of the marginals of logits (K,)."""
        logits = np.clip(logits, -LIMIT, LIMIT)
        scores = self._states @ logits  # (S,)
        near = scores[:, None] + self._signs * logits  # (S, K)
        highest = max(scores.max(), near.max())
        own = np.exp(scores - highest)
        near = self._weight * np.exp(near - highest)
        weight = own + near.sum(axis=1)  # of each state and its neighbours
        flipped = near * self._signs  # what its neighbours add to, or take from, component k
        present = weight @ self._states + flipped.sum(axis=0)
        zero = weight @ (1 - self._states) - flipped.sum(axis=0)
        # Where next to nothing is left, it is what was lost in the difference of two sums.
        floor = 1e-12 * weight.sum()
        return np.log(np.maximum(present, floor)) - np.log(np.maximum(zero, floor))


def _logit_of_log(log_p: np.ndarray) -> np.ndarray:
    """log p → logit p."""
    return log_p - np.log(-np.expm1(np.minimum(log_p, -1e-12)))
