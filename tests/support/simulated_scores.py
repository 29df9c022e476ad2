"""Made-up recordings with scores of networks that err for seconds at a time."""

import numpy as np

from data_prep.worlds.timelines import draw_timeline
from stormpsr_jax.psr import load_procedure
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.labels import states_to_steps
from stormpsr_jax.recordings.scores import Scores

PROCEDURE = load_procedure("synthetic")
VARIANT = PROCEDURE.variants["assembly"]
WINDOW = 64


def _slow(rng, *shape):
    """Noise (N, …) of variance 1 that changes over some ten frames."""
    drawn, value, rows = rng.standard_normal(shape), np.zeros(shape[1:]), []
    for one in drawn:
        value = 0.9 * value + np.sqrt(1 - 0.9**2) * one
        rows.append(value)
    return np.stack(rows)


def simulate(seed, full=True):
    """A recording with labels and scores; those of kind "csv" unless `full`."""
    rng = np.random.default_rng(seed)
    timeline = draw_timeline(PROCEDURE, rng)
    states = timeline.per_frame()
    N, K = states.shape
    right, present = states == 1, states != 0
    seen = np.repeat(rng.random(N // 20 + 1) < 0.7, 20)[:N, None]  # or hidden, for 20 frames
    away = np.abs(right[:, None].astype(int) - PROCEDURE.states).sum(-1)
    wrong = (states == -1).any(1)[:, None]
    logits = np.hstack([-1.5 * away * seen, np.where(wrong, 1.0, -3.0) * seen])
    logits += 1.1 * _slow(rng, *logits.shape)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    objectness = np.where(seen[:, 0], 2.0, -1.0) + 0.7 * _slow(rng, N)
    before = np.vstack([np.repeat(states[:1], WINDOW, 0), states])[:N] == 1
    temporal = np.where(before != right, 1.5, -3.0) + 1.3 * _slow(rng, N, K)
    parts = None
    if full:
        said = np.where(present, 2.0, -2.0), np.where(right, 1.5, -0.5)
        parts = np.hstack(said) * np.tile(seen, 2 * K) + 1.4 * _slow(rng, N, 2 * K)
        temporal = np.hstack([temporal, np.hstack(said) + 1.4 * _slow(rng, N, 2 * K)])
    return LabelledPredictions(
        f"r{seed}",
        VARIANT,
        states_to_steps(timeline.frames, timeline.states),
        timeline.states,
        frames=timeline.frames,
        scores=Scores(np.arange(N), objectness, log_p, parts, temporal),
    )
