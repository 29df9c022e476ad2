import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stormpsr_jax.configs.default import Optimizer
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.training.optimizer import (
    decay_mask,
    layer_lr_scale,
    lr_factors,
    make_optimizer,
    make_schedule,
)


def config(**fields):
    return Optimizer(**{"lr": 0.1} | fields)


PARAMS = {
    "encoder": {
        "patches": {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.ones(3)},
        "norm": {"scale": jnp.ones(3), "bias": jnp.ones(3)},
        "pos_embed": jnp.ones((1, 5, 3)),
        "cls": jnp.ones((1, 1, 3)),
    },
    "head": {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.ones(2)},
}


@pytest.mark.parametrize("warmup", [0, 10])
def test_make_schedule_matches_the_formula(warmup):
    schedule = make_schedule(config(lr=0.3, warmup_steps=warmup), num_steps=110)
    for step in range(111):
        if step < warmup:
            expected = 0.3 * (step + 1) / warmup
        else:
            expected = 0.15 * (1 + math.cos(math.pi * (step - warmup) / (110 - warmup)))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7), step


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_make_optimizer_weight_decay_moves_kernels_alone(name):
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    optimizer = make_optimizer(config(name=name, weight_decay=0.5), 10, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    for path, value in jax.tree_util.tree_leaves_with_path(updates):
        # lr 0.1 × decay 0.5 × kernel 2.0
        expected = -0.1 if path[-1].key == "kernel" else 0.0
        np.testing.assert_allclose(value, expected, atol=1e-7, err_msg=str(path))


@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        (
            {"name": "adamw", "weight_decay": 0.05},
            lambda lr: optax.adamw(lr, weight_decay=0.05, mask=decay_mask),
        ),
        ({"name": "sgd"}, lambda lr: optax.sgd(lr, momentum=0.9)),
        (
            {"name": "sgd", "clip_norm": 0.5},
            lambda lr: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(lr, 0.9)),
        ),
    ],
)
def test_make_optimizer_matches_optax_over_several_steps(fields, reference):
    settings = config(warmup_steps=2, **fields)
    ours = make_optimizer(settings, 8, PARAMS)
    theirs = reference(make_schedule(settings, 8))
    results = []
    for optimizer in (ours, theirs):
        params, state = PARAMS, optimizer.init(PARAMS)
        for _ in range(8):
            grads = jax.tree.map(jnp.sin, params)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        results.append(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *results)


def test_layer_lr_scale_falls_by_one_decay_a_layer():
    vit = ViT(patch_size=4, width=8, depth=3, num_heads=2, stem=(4,), registers=2)
    encoder = SpatialEncoder(vit, hidden=4)
    spatial = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((2, 8, 8, 3)))["params"]
    params = {"spatial": spatial, "temporal": {"kernel": jnp.ones(2)}}
    layers = encoder.encoder.layers
    factors = lr_factors(params, layer_lr_scale("spatial/encoder", layers, 0.1, 0.5))
    assert factors["temporal"]["kernel"] == 1
    expected = {"norm": 0.1, "block_2": 0.05, "block_1": 0.025, "block_0": 0.0125}
    vit = factors["spatial"].pop("encoder")
    for name in ("patch_embed", "cls_token", "registers", "pos_embed", "stem_0", "stem_norm_0"):
        expected[name] = 0.00625
    assert vit.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(jax.tree.leaves(vit[name]), value)
    np.testing.assert_allclose(jax.tree.leaves(factors["spatial"]), 1)
    same = lr_factors(params, layer_lr_scale("spatial/encoder", layers, 0.1, 1.0))["spatial"]
    np.testing.assert_allclose(jax.tree.leaves(same["encoder"]), 0.1)
