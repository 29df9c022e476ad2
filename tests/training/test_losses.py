"""Losses and optimisers against their formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stormpsr_jax.configs.default import Optimizer
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.training import losses
from stormpsr_jax.training.optimizer import (
    decay_mask,
    layer_lr_scale,
    lr_factors,
    make_optimizer,
    make_schedule,
)
from tests.support.golden import SHARED, SHIPPED, needs_shared


def supcon_loop(z: np.ndarray, labels: np.ndarray, temperature: float = 0.07) -> float:
    """Literal float64 transcription: loops over anchors, positives and the rest."""
    z = z.astype(np.float64)
    total, anchors = 0.0, 0
    for i in range(len(z)):
        if labels[i] < 0:
            continue
        anchors += 1
        others = [a for a in range(len(z)) if a != i]
        similarity = {a: math.fsum(z[i] * z[a]) / temperature for a in others}
        largest = max(similarity.values())
        denominator = largest + math.log(
            math.fsum(math.exp(s - largest) for s in similarity.values())
        )
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            total += math.fsum(denominator - similarity[p] for p in positives) / len(positives)
    return total / max(anchors, 1)


def unit_rows(seed: int, n: int, d: int = 6) -> np.ndarray:
    z = np.random.default_rng(seed).normal(size=(n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


LABELS = {
    "classes": [0, 1, 0, 1, 2, 2, 2, 0],
    "lone": [0, 1, 0, 2, 3, 0, 4, 5],
    "background": [0, -1, 0, -1, 1, 1, -1, 2],
    "one class": [3] * 8,
    "all lone": list(range(8)),
    "all background": [-1] * 8,
}


def test_supcon_is_the_released_loss_of_a_batch():
    golden = np.load(SHIPPED / "heads.npz")
    z, labels = (jnp.asarray(golden[f"train/{name}"]) for name in ("projection", "labels"))
    np.testing.assert_allclose(losses.supcon(z, labels), golden["train/supcon"], atol=1e-5)


@needs_shared
def test_supcon_golden_loss_and_gradient():
    golden = np.load(SHARED / "supcon.npz")

    def loss(z):
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        return losses.supcon(z, jnp.asarray(golden["labels"]))

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(golden["z"]))
    np.testing.assert_allclose(value, golden["loss"], atol=1e-5)
    assert np.abs(golden["grad_z"]).max() > 1e-3
    np.testing.assert_allclose(gradient, golden["grad_z"], atol=1e-7)


@pytest.mark.parametrize("name", LABELS)
def test_supcon_matches_float64_loop(name):
    z, labels = unit_rows(0, 8), np.array(LABELS[name])
    value = losses.supcon(jnp.asarray(z, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(value, supcon_loop(z, labels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lone", "background"])
def test_supcon_gradient_matches_differences_of_float64_loop(name):
    z, labels = unit_rows(1, 8, 3), np.array(LABELS[name])
    gradient = jax.grad(losses.supcon)(jnp.asarray(z, jnp.float32), jnp.asarray(labels))
    expected, step = np.zeros_like(z), 1e-5
    for at in np.ndindex(z.shape):
        nudge = np.zeros_like(z)
        nudge[at] = step
        expected[at] = supcon_loop(z + nudge, labels) - supcon_loop(z - nudge, labels)
    np.testing.assert_allclose(gradient, expected / (2 * step), rtol=1e-4, atol=1e-4)


def test_bce_matches_float64_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, size=(5, 7))
    labels = rng.integers(0, 2, size=(5, 7))
    p = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(axis=1)
    value = losses.multilabel_bce(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    assert value.shape == (5,)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def condition_loop(logits, states, weight=None):
    """Literal float64 transcription: installed or not; of the installed, right or wrong."""
    K = states.shape[1]
    sums, counts = [0.0, 0.0], [0.0, 0.0]
    for b, row in enumerate(states):
        for k, state in enumerate(row):
            for term, target in ((0, state != 0), (1, state == 1)):
                if term == 1 and state == 0:
                    continue
                w = 1.0 if term == 0 or weight is None else float(weight[b])
                p = 1 / (1 + math.exp(-float(logits[b, term * K + k])))
                sums[term] -= w * math.log(p if target else 1 - p)
                counts[term] += w
    return [s / c if c else 0.0 for s, c in zip(sums, counts, strict=True)]


@pytest.mark.parametrize("weight", [None, [2, 0.5, 1, 0, 3, 0.25], [0, 0, 0, 0, 0, 0]], ids=str)
def test_condition_bce_matches_float64_loop(weight):
    rng = np.random.default_rng(0)
    logits, states = rng.normal(0, 3, (6, 10)), rng.integers(-1, 2, (6, 5)).astype(np.int8)
    installed, right = condition_loop(logits, states, weight)
    value, metrics = losses.condition_bce(
        jnp.asarray(logits, jnp.float32),
        jnp.asarray(states),
        None if weight is None else jnp.asarray(weight, jnp.float32),
    )
    assert set(metrics) == {"installed", "right"}
    np.testing.assert_allclose(metrics["installed"], installed, rtol=1e-5)
    np.testing.assert_allclose(metrics["right"], right, rtol=1e-5)
    np.testing.assert_allclose(value, installed + right, rtol=1e-5)
    assert value.dtype == jnp.float32


def test_condition_bce_rows_without_weight_and_absent_parts_have_no_gradient():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(0, 2, (4, 6)), jnp.float32)
    states = np.array([[0, 1, -1], [1, 1, 1], [-1, 0, 0], [0, 0, 0]], np.int8)
    weight = jnp.array([1.0, 0.0, 1.0, 1.0])
    gradient = jax.grad(lambda x: losses.condition_bce(x, states, weight)[0])(logits)
    expected = np.c_[np.ones((4, 3), bool), (states != 0) & (weight > 0)[:, None]]
    np.testing.assert_array_equal(np.abs(gradient) > 0, expected)
    # Towards what is so.
    signs = np.c_[np.where(states != 0, -1, 1), np.where(states == 1, -1, 1)] * expected
    np.testing.assert_array_equal(np.sign(gradient), signs)


# --- Optimisers -----------------------------------------------------------------------------------


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
