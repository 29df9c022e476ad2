"""Fits the weights of the learned fusion on labelled recordings, in folds.

Whole recordings are one batch, and all folds are fitted side by side. Each fold's weights have not
seen its recordings; what they believe of these is what thresholds can be chosen on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stormpsr_jax import memory
from stormpsr_jax.models import fusion
from stormpsr_jax.psr import learned
from stormpsr_jax.psr.learned_weights import Weights
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scores import Scores

FOLDS = 4
_CHUNK = 20  # steps from one sign of progress to the next


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A labelled recording.

    Attributes:
      scores: of N frames.
      states: (N, K) true states at these frames, -1, 0 or 1.
      initial: K values in {0, 1}, the variant's initial state.
    """

    scores: Scores
    states: np.ndarray
    initial: Sequence[int]


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` found.

    Attributes:
      weights: to recognise with.
      held_out: of each recording, in order, the weights of the fold that has not seen it.
      loss: of those on the held-out recordings: at the start and at the end.
    """

    weights: Weights
    held_out: list[Weights]
    loss: tuple[float, float]


def fit(
    examples: Sequence[Example | tuple[Scores, np.ndarray]],
    procedure: Procedure,
    *,
    start: Weights | None = None,
    kind: str | None = None,
    fps: float | None = None,
    units: int = 8,
    average: float = 0.4,
    steps: int = 400,
    learning_rate: float = 1e-2,
    noise: float = 0.1,
    decay: float = 1e-4,
    seed: int = 0,
    progress: Callable[[int], None] = lambda steps: None,
) -> Fitted:
    """Fits the weights; `FOLDS` folds, recording i belongs to fold i mod `FOLDS`.

    Args:
      examples: at least as many as folds; of a pair (scores, states) the initial state is absent.
      procedure: the product.
      start: weights to start from and to be drawn to; the fitted ones are the mean of the folds'.
        None starts from random ones, drawn to 0, and the fitted ones are those of a further fit on
        all recordings, as means of networks that found different ways mean nothing.
      kind: of the weights, one of `scores.KINDS`; None is that of the first example.
      fps: frames per second; None for the procedure's.
      units, average: U, and seconds that inputs are averaged over; with `start` they are its own.
      steps, learning_rate: of Adam, along a cosine.
      noise: standard deviation of noise on the inputs.
      decay: times the squared distance from the start.
      seed: of the noise and the random start.
      progress: told how many steps were done.

    Raises:
      ValueError: fewer recordings than folds, states that do not fit the scores.
      MemoryError: the recordings are too long together.
    """
    examples = [_example(e, procedure) for e in examples]
    if len(examples) < FOLDS:
        raise ValueError(f"{len(examples)} recordings are fewer than {FOLDS} folds")
    average = start.average if start else average
    span = learned.span_frames(average, procedure.checked_fps(fps))
    x, states, mask = _batch(examples, procedure, span)
    initial = np.array([e.initial for e in examples], np.int32)
    fold = np.arange(len(examples)) % FOLDS
    trained = np.stack([fold != i for i in range(FOLDS)])  # (folds, R)
    key, own = jax.random.split(jax.random.key(seed))
    if start is None:
        trained = np.vstack([trained, np.ones((1, len(examples)), bool)])
        params = fusion.initial(own, units)
        centre = jax.tree.map(jnp.zeros_like, params)
    else:
        params = {name: jnp.asarray(a, jnp.float32) for name, a in start.arrays.items()}
        centre = params
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, steps)),
    )
    data = tuple(map(jnp.asarray, (x, initial, states, mask)))
    train = functools.partial(_train, optimizer, noise, decay)
    train = jax.jit(jax.vmap(train, in_axes=(None, None, 0, 0, 0, None)))
    folds = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(trained), *a.shape)), params)
    held_out_loss = jax.jit(functools.partial(_held_out, data, jnp.asarray(~trained)))
    before = float(held_out_loss(folds))
    moments = jax.vmap(optimizer.init)(folds)
    for done in range(0, steps, _CHUNK):
        keys = jax.random.split(jax.random.fold_in(key, done), min(_CHUNK, steps - done))
        folds, moments = train(data, centre, jnp.asarray(trained), folds, moments, keys)
        jax.block_until_ready(folds)
        progress(len(keys))
    after = float(held_out_loss(folds))
    kind = kind or (start.kind if start else examples[0].scores.kind)
    folds = {name: np.asarray(a, float) for name, a in folds.items()}
    each = [Weights(kind, average, {n: a[i] for n, a in folds.items()}) for i in range(FOLDS)]
    whole = {n: a[:FOLDS].mean(0) if start else a[FOLDS] for n, a in folds.items()}
    return Fitted(Weights(kind, average, whole), [each[i] for i in fold], (before, after))


def _example(example: Example | tuple[Scores, np.ndarray], procedure: Procedure) -> Example:
    if not isinstance(example, Example):
        scores, states = example
        example = Example(scores, states, [0] * procedure.num_components)
    wanted = (len(example.scores.frames), procedure.num_components)
    if np.shape(example.states) != wanted:
        raise ValueError(f"states are {np.shape(example.states)}, the scores need {wanted}")
    return example


def _batch(
    examples: Sequence[Example], procedure: Procedure, span: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (R, T, K, F), states (R, T, K) and mask (R, T), filled up to the longest."""
    catalogue = procedure.states.astype(float)
    T = max(max(len(e.states) for e in examples), 1)
    shape = (len(examples), T, procedure.num_components)
    rows = shape[0] * shape[1] * shape[2]
    # Inputs with their noise, and what the gradient keeps of each fold.
    memory.check_fits(rows * 4 * (4 * learned.NUM_INPUTS + 100 * (FOLDS + 1)), "the fit")
    x = np.zeros((*shape, learned.NUM_INPUTS), np.float32)
    states, mask = np.zeros(shape, np.int8), np.zeros(shape[:2], bool)
    for i, e in enumerate(examples):
        N = len(e.states)
        own = learned.inputs(e.scores.arrays, catalogue)
        x[i, :N] = learned.averaged(e.scores.frames, own, span)
        states[i, :N], mask[i, :N] = e.states, True
    return x, states, mask


def _train(optimizer, noise, decay, data, centre, trained, params, moments, keys):
    """Some steps of one fold; `trained` (R,) says which recordings it is fitted on."""
    x, initial, states, mask = data
    mask = mask & trained[:, None]

    def objective(params, key):
        noisy = x + noise * jax.random.normal(key, x.shape)
        away = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), params, centre)
        away = sum(jax.tree.leaves(away))
        return fusion.loss(params, noisy, initial, states, mask) + decay * away

    def one(carry, key):
        params, moments = carry
        gradient = jax.grad(objective)(params, key)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), None

    (params, moments), _ = jax.lax.scan(one, (params, moments), keys)
    return params, moments


def _held_out(data, held_out, folds):
    """Mean over the folds of the loss on the recordings that each has not seen."""
    x, initial, states, mask = data

    def one(params, own):
        return fusion.loss(params, x, initial, states, mask & own[:, None])

    some = held_out.any(axis=1)
    losses = jax.vmap(one)(folds, held_out)
    return (losses * some).sum() / some.sum()
