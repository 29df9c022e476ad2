import jax
import numpy as np
import pytest

from stormpsr_jax.stages import finetune, temporal
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import tiny


def first_rows(stage, context, count):
    """Labels and last states (count, 2 K) of the first clips that a stage draws."""
    batches = stage.build(context).data(0)
    rows = []
    while sum(map(len, rows)) < count:
        batch = next(batches)
        rows.append(np.concatenate([batch["label"], batch["state"]], axis=1))
    batches.close()
    return np.concatenate(rows)[:count]


def test_finetune_draws_other_clips_than_temporal(finished):
    fields = {"finetune.batch": 8, "temporal.batch": 8}
    draws = {}
    for seed in (0, 1):
        context = Context(tiny(seed=seed, **fields), finished, make_mesh(1, 1))
        for stage in (temporal, finetune):
            draws[stage.__name__, seed] = first_rows(stage, context, 40)
    keys = list(draws)
    for i, key in enumerate(keys):
        for other in keys[:i]:
            same = (draws[key] == draws[other]).all(axis=1)
            assert same.mean() < 0.6, (key, other)


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_batch_norm_of_the_encoder_goes_on_or_keeps_its_statistics(finished, batch_norm):
    """The loss of a step against layer 1 written out: by the batch, or by the statistics kept."""
    config = tiny(
        **{"finetune.batch_norm": batch_norm, "finetune.batch": 2, "augment.occluders": 0.0}
    )
    context = Context(config, finished, make_mesh(1, 1))
    stage = finetune.build(context)
    params, before = stage.init()
    batches = stage.data(0)
    batch = next(batches)
    batches.close()
    loss = jax.jit(stage.loss_fn)
    _, (_, after) = loss(params, before, batch, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(dict(before))
    kept = before["first_head"]["norm"], after["first_head"]["norm"]
    moved = np.abs(kept[0]["mean"] - kept[1]["mean"]).max()
    assert (moved > 1e-4) == (batch_norm == "train")
    np.testing.assert_array_equal(
        before["second_head"]["norm"]["mean"], after["second_head"]["norm"]["mean"]
    )
    # Other statistics than those kept change the loss only where they are what normalises.
    other = jax.tree.map(lambda a: a + 0.5, before)
    losses = [float(loss(params, s, batch, jax.random.key(0))[0]) for s in (before, other)]
    assert (abs(losses[0] - losses[1]) > 1e-6) == (batch_norm == "frozen")
