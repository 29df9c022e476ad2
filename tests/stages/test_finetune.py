"""Stage `finetune`: which clips it draws."""

import numpy as np
from tiny import tiny

from stormpsr_jax.stages import finetune, temporal
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh


def first_rows(stage, context, count):
    """Labels and last states (count, 2 K) of the first clips that a stage draws."""
    batches = stage.build(context).data(0)
    rows = []
    while sum(map(len, rows)) < count:
        batch = next(batches)
        rows.append(np.concatenate([batch["label"], batch["state"]], axis=1))
    batches.close()
    return np.concatenate(rows)[:count]


def test_finetune_property_draws_other_clips_than_temporal(finished):
    """Its 40 first clips are not those of `temporal`, nor those of another seed of it."""
    fields = {"finetune.batch": 8, "temporal.batch": 8}
    draws = {}
    for seed in (0, 1):
        context = Context(tiny(seed=seed, **fields), finished, make_mesh(1, 1))
        for stage in (temporal, finetune):
            draws[stage.__name__, seed] = first_rows(stage, context, 40)
    keys = list(draws)
    for i, key in enumerate(keys):
        again = Context(tiny(seed=key[1], **fields), finished, make_mesh(1, 1))
        stage = temporal if key[0] == temporal.__name__ else finetune
        np.testing.assert_array_equal(first_rows(stage, again, 8), draws[key][:8])
        for other in keys[:i]:
            same = (draws[key] == draws[other]).all(axis=1)
            assert same.mean() < 0.6, (key, other)
