"""Segmental metrics, against a reference that goes frame by frame as those papers' code does."""

import itertools

import numpy as np
import pytest

from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.scoring import segments


def score(truth, found, last):
    return segments.score_recording(truth, found, "000", last)


def per_frame(steps, last):
    """The state of each frame as a text, and (state, its frames) of each segment."""
    rows = labels.states_per_frame(*labels.steps_to_states(steps, (0, 0, 0), -1), 0, last + 1)
    found = [str(row) for row in rows]
    groups = itertools.groupby(enumerate(found), key=lambda one: one[1])
    return found, [(label, {i for i, _ in group}) for label, group in groups]


def f1(true, found, overlap):
    shares = [[(x == y) * len(a & b) / len(a | b) for y, b in true] for x, a in found]
    hit = {int(np.argmax(row)) for row in shares if max(row) >= overlap}
    return 2 * len(hit) / (len(found) + len(true))


def edits(a, b):
    table = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
    for i, j in np.ndindex(len(a), len(b)):
        ways = table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (a[i][0] != b[j][0])
        table[i + 1, j + 1] = min(ways)
    return int(table[-1, -1])


@pytest.mark.parametrize("seed", range(20))
def test_figures_are_those_of_a_class_a_frame(seed):
    rng = np.random.default_rng(seed)
    truth, found = (
        [(int(t), int(rng.choice([0, 2, 3, 5, 6, 8]))) for t in rng.choice(180, n, replace=False)]
        for n in rng.integers(0, 12, 2)
    )
    if seed % 2:  # as a stream reports: late, and not all
        found = [(t + int(rng.integers(0, 20)), step) for t, step in truth[1:]]
    got = score(truth, found, 199)
    (a, true), (b, predicted) = per_frame(truth, 199), per_frame(found, 199)
    assert got["accuracy"] == np.mean([x == y for x, y in zip(a, b, strict=True)])
    assert got["edit"] == 1 - edits(true, predicted) / max(len(true), len(predicted))
    for k in segments.OVERLAPS:
        assert got[f"f1@{k}"] == f1(true, predicted, k / 100)
    both = segments.summarise([got, score(truth, truth, 299)])
    assert both["accuracy"] == (got["correct"] + 300) / 500
    assert both["edit"] == (got["edit"] + 1) / 2
