from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks import spatial
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.training import losses
from stormpsr_jax.weights.torch_layout import from_state_dict
from tests.support.drawn import apply
from tests.support.golden import SHARED, SHIPPED, assert_close, needs_shared, under
from tests.support.weights_data import random_state


class Given(nn.Module):
    """In place of a backbone: takes features instead of pictures."""

    dtype: Any = np.float32

    def __call__(self, features, train=False):
        return features


def golden_heads():
    arrays = np.load(SHIPPED / "heads.npz")
    model = spatial.SpatialEncoder(Given(), hidden=48, projection=48)
    return arrays, model, arrays["eval/encoder"]


def golden_encoder():
    arrays = np.load(SHARED / "contrastive_tiny.npz")
    sizes = {"patch_size": int(arrays["patch"]), "num_heads": int(arrays["num_heads"])}
    model = spatial.SpatialEncoder(ViT(**sizes, width=48, depth=2), hidden=48, projection=48)
    return arrays, model, arrays["x"].transpose(0, 2, 3, 1)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(golden_heads, id="heads"),
        pytest.param(golden_encoder, marks=needs_shared, id="whole"),
    ],
)
def golden(request):
    arrays, model, inputs = request.param()
    params, batch_stats = of_released(under(arrays, "sd/"))
    return arrays, model, params, batch_stats, inputs


def of_released(state):
    """Our arrays of released ones; a ViT that is left out has any weights, for the names."""
    encoder = {n: a for n, a in random_state("spatial").items() if n.startswith("encoder.")}
    if any(name.startswith("encoder.") for name in state):
        return from_state_dict(state, "spatial")
    params, batch_stats = from_state_dict(encoder | state, "spatial")
    del params["encoder"]
    return params, batch_stats


def test_spatial_golden_evaluation(golden):
    arrays, model, params, batch_stats, images = golden
    variables = {"params": params, "batch_stats": batch_stats}
    outputs = apply(model, variables, images)
    np.testing.assert_allclose(outputs["embedding"], arrays["eval/embedding"], atol=1e-5)
    np.testing.assert_allclose(outputs["projection"], arrays["eval/projection"], atol=1e-5)
    embedding = apply(model, variables, images, method="embed")
    np.testing.assert_allclose(embedding, arrays["eval/embedding"], atol=1e-5)


def test_spatial_golden_training_step(golden):
    arrays, model, params, batch_stats, images = golden

    def loss(p):
        outputs, updated = model.apply(
            {"params": p, "batch_stats": batch_stats}, images, True, mutable="batch_stats"
        )
        value = losses.supcon(outputs["projection"], jnp.asarray(arrays["train/labels"]))
        return value, (outputs["projection"], updated["batch_stats"])

    (value, (projection, stats)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(projection, arrays["train/projection"], atol=1e-5)
    np.testing.assert_allclose(value, arrays["train/supcon"], atol=1e-5)
    for head in ("first_head", "second_head"):
        for name in ("mean", "var"):
            expected = arrays[f"train/bn_after/{head}.1.running_{name}"]
            np.testing.assert_allclose(stats[head]["norm"][name], expected, atol=1e-5)
    # Running statistics have no gradient; any values complete the names.
    expected, _ = of_released(under(arrays, "train/grad/") | under(arrays, "train/bn_after/"))
    assert max(np.nanmax(np.abs(leaf)) for leaf in jax.tree.leaves(expected)) > 0.1
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-4, atol=5e-5), gradient, expected)
