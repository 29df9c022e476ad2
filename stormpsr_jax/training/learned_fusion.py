"""Fits the weights of the learned fusion on labelled recordings, in folds.

Whole recordings side by side are a batch. Each fold's weights have not seen its recordings; what
they believe of these is what thresholds can be chosen on.

Dimension letters: R recordings, T frames, K components, N = R · K rows, F inputs, U units.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stormpsr_jax.base import memory
from stormpsr_jax.psr import learned_beliefs
from stormpsr_jax.psr.learned_beliefs import NUM_INPUTS, Weights, shapes
from stormpsr_jax.recordings.scores import Scores

Params = Mapping[str, jax.Array]


def initial(key: jax.Array, units: int) -> dict[str, jax.Array]:
    """Returns random weights to begin with, by name as in `learned_beliefs.shapes`.

    The update gate is nearly shut at first, so that what was seen is remembered for long.
    """
    params = {}
    for name, shape in shapes(units).items():
        if name in ("input", "recurrent", "readout"):
            key, own = jax.random.split(key)
            params[name] = jax.random.normal(own, shape) / np.sqrt(shape[0])
        else:
            params[name] = jnp.zeros(shape)
    params["bias"] = params["bias"].at[:units].set(2.0)
    return params


def logits(params: Params, x: jax.Array, start: jax.Array) -> jax.Array:
    """Whole recordings, averaged inputs (T, F, N) → (T, 2, N): present, right if present.

    `start`: (N,) int, the components' initial state.
    """
    U = params["start"].shape[1]
    bias, recurrent = params["bias"][:, None], params["recurrent"].T

    def step(hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        a, b = params["input"].T @ x + bias, recurrent @ hidden
        update, reset = jnp.split(jax.nn.sigmoid(a[: 2 * U] + b[: 2 * U]), 2)
        new = jnp.tanh(a[2 * U :] + reset * b[2 * U :])
        after = update * hidden + (1 - update) * new
        return after, after

    _, hidden = jax.lax.scan(step, params["start"][start].T, x)
    return params["readout"].T @ hidden + params["skip"].T @ x + params["offset"][:, None]


def loss(
    params: Params, x: jax.Array, start: jax.Array, states: jax.Array, mask: jax.Array
) -> jax.Array:
    """Binary cross-entropy of being present, plus that of being right where a part is present.

    Both are means, over nothing 0. `states` (T, N) are -1 incorrect, 0 absent, 1 right; `mask`
    (T, N) says what counts; the others are of `logits`.
    """
    o = logits(params, x, start)
    targets = jnp.stack([states != 0, states == 1], axis=1).astype(o.dtype)
    weights = jnp.stack([mask, mask & (states != 0)], axis=1).astype(o.dtype)
    bce = (optax.sigmoid_binary_cross_entropy(o, targets) * weights).sum((0, 2))
    return (bce / jnp.maximum(weights.sum((0, 2)), 1.0)).sum()


FOLDS = 4
AVERAGE = 0.4  # seconds that inputs are averaged over, where no start says it


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A labelled recording.

    Attributes:
        scores: of its frames.
        states: (frames, K) true states at these, -1, 0 or 1.
        initial: K values in {0, 1}, the variant's initial state.
        catalogue: (S, K), the states of its procedure.
    """

    scores: Scores
    states: np.ndarray
    initial: Sequence[int]
    catalogue: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` found.

    Attributes:
        weights: to recognise with.
        held_out: of each recording, in order, the weights of the fold that has not seen it.
        before, after: mean loss of the folds on the recordings that they have not seen, at the
            start and at the end.
    """

    weights: Weights
    held_out: list[Weights]
    before: float
    after: float


class _Data(NamedTuple):
    """What `learned_fusion.loss` takes of some recordings, as arrays of NumPy or JAX."""

    x: Any  # (T, F, N)
    start: Any  # (N,)
    states: Any  # (T, N)
    mask: Any  # (T, N)


def fit(
    examples: Sequence[Example],
    fps: float,
    *,
    start: Weights | None = None,
    units: int = 8,
    steps: int = 400,
    batch: int | None = None,
    learning_rate: float = 1e-2,
    noise: float = 0.1,
    decay: float = 1e-4,
    seed: int = 0,
    progress: Callable[[int], None] = lambda steps: None,
) -> Fitted:
    """Fits the weights in `FOLDS` folds; recording i belongs to fold i mod `FOLDS`.

    Args:
        examples: at least as many as folds; they may be of several products.
        fps: their frames per second.
        start: weights to start from and to be drawn to; the fitted ones are the mean of the folds'.
            None starts from random ones, drawn to 0. Their mean means nothing: the fitted ones are
            those of one more fit, on all recordings.
        units: U; `start` has its own.
        steps, learning_rate: of Adam, along a cosine.
        batch: recordings a step sees, all of them in turn; None for all at once.
        noise: standard deviation of noise on the inputs.
        decay: times the squared distance from what the weights are drawn to.
        seed: of the noise and of random weights.
        progress: called with each number of steps that were done, of `num_steps` together.

    Raises:
        MemoryError: the recordings are too long together.
    """
    average = start.average if start else AVERAGE
    span = learned_beliefs.span_frames(average, fps)
    fold = np.arange(len(examples)) % FOLDS
    sets = [np.flatnonzero(fold != i) for i in range(FOLDS)]
    if start is None:
        sets.append(np.arange(len(examples)))
        first = initial(jax.random.key(seed), units)
        centre = jax.tree.map(jnp.zeros_like, first)
    else:
        first = centre = {n: jnp.asarray(a, jnp.float32) for n, a in start.arrays.items()}
    K = max(len(e.initial) for e in examples)
    T, R = max(len(e.states) for e in examples), max(map(len, sets))
    few = R if batch is None else min(batch, R)  # recordings a step sees
    size = (T, few)
    rows = [_rows(e, span) for e in examples]
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, steps)),
    )
    # Drawn once, as drawing it takes as long as a step: each step sees a piece of it with signs of
    # its own.
    bank = noise * jax.random.normal(jax.random.key(seed), (2 * T, NUM_INPUTS, size[1] * K))
    keys = jax.random.split(jax.random.key(seed), steps)
    begin = (first, optimizer.init(first))
    data = jax.eval_shape(lambda: _side_by_side([], size, K))
    jitted = jax.jit(functools.partial(_step, optimizer, decay))
    step = jitted.lower(*begin, data, centre, bank, keys[0]).compile()

    def batches(chosen: np.ndarray) -> Iterator[_Data]:
        if few == R:
            return itertools.repeat(_side_by_side([rows[i] for i in chosen], size, K))
        return (
            _side_by_side([rows[i] for i in drawn], size, K) for drawn in _draw(chosen, few, seed)
        )

    def one(chosen: np.ndarray) -> Params:
        params, moments = begin
        for key, data in zip(keys, batches(chosen), strict=False):
            params, moments = step(params, moments, data, centre, bank, key)
            jax.block_until_ready((params, moments))
            progress(1)
        return params

    # Inputs, those with noise, their noise, and some 8 U numbers that the gradient keeps.
    needs = 4 * math.prod(size) * K * (4 * NUM_INPUTS + 64)
    memory.check_fits(needs, "the fit of the fusion")
    # A fit keeps one core busy.
    workers = max(1, min(len(sets), memory.available_bytes() // (2 * needs)))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        fits = list(pool.map(one, sets))
    kind = start.kind if start else examples[0].scores.kind
    rate = fps / min(min(np.diff(e.scores.frames), default=1) for e in examples)
    arrays = [{n: np.asarray(a, float) for n, a in params.items()} for params in fits]
    begun = start or Weights(kind, average, arrays[0])
    weights = [dataclasses.replace(begun, arrays=fitted, rate=float(rate)) for fitted in arrays]
    jitted, losses = jax.jit(loss), []
    largest = (T, int(max(np.bincount(fold))))
    for i in range(FOLDS):
        chosen = _side_by_side([rows[r] for r in np.flatnonzero(fold == i)], largest, K)
        losses.append([float(jitted(first, *chosen)), float(jitted(fits[i], *chosen))])
    before, after = np.mean(losses, axis=0).tolist()
    whole = weights[-1]
    if start is not None:
        means = {n: np.mean([w.arrays[n] for w in weights], axis=0) for n in start.arrays}
        whole = dataclasses.replace(whole, arrays=means)
    return Fitted(whole, [weights[i] for i in fold], before, after)


def num_steps(steps: int, start: Weights | None) -> int:
    """Returns the steps of all fits together."""
    return steps * (FOLDS + (start is None))


def _rows(example: Example, span: int) -> _Data:
    """A recording alone."""
    x = learned_beliefs.inputs(example.scores.arrays, example.catalogue.astype(float))
    x = learned_beliefs.moving_average(example.scores.frames, x, span).swapaxes(1, 2)
    mask = np.ones(example.states.shape, bool)
    return _Data(x.astype(np.float32), np.array(example.initial), example.states, mask)


def _side_by_side(rows: Sequence[_Data], size: tuple[int, int], K: int) -> _Data:
    """Recordings in one batch, filled up to a size of (T, R) and to K components."""
    T, R = size
    batch = _Data(
        np.zeros((T, NUM_INPUTS, R * K), np.float32),
        np.zeros(R * K, np.int32),
        np.zeros((T, R * K), np.int8),
        np.zeros((T, R * K), bool),
    )
    for r, own in enumerate(rows):
        columns, length = slice(r * K, r * K + len(own.start)), len(own.states)
        batch.start[columns] = own.start
        for whole, part in ((batch.x, own.x), (batch.states, own.states), (batch.mask, own.mask)):
            whole[:length, ..., columns] = part
    return _Data(*map(jnp.asarray, batch))


def _draw(chosen: np.ndarray, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Some of the recordings at a time, all as often, each time round in another order."""
    rng, left = np.random.default_rng(seed), np.empty(0, int)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, rng.permutation(chosen)])
        yield left[:batch]
        left = left[batch:]


def _step(
    optimizer: optax.GradientTransformation,
    decay: float,
    params: Params,
    moments: Any,
    data: _Data,
    centre: Params,
    bank: jax.Array,
    key: jax.Array,
) -> tuple[Any, Any]:
    T = len(data.x)
    keys = jax.random.split(key)
    noise = jax.lax.dynamic_slice_in_dim(bank, jax.random.randint(keys[0], (), 0, T + 1), T)
    noise = noise * jax.random.rademacher(keys[1], noise.shape[1:], noise.dtype)

    def objective(params: Params) -> jax.Array:
        away = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), params, centre)
        own = loss(params, data.x + noise, *data[1:])
        return own + decay * sum(jax.tree.leaves(away))

    updates, moments = optimizer.update(jax.grad(objective)(params), moments, params)
    return optax.apply_updates(params, updates), moments
