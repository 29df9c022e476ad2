import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks import layers
from stormpsr_jax.networks.layers import Dense, LayerNorm

X = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)


def gradients(layer: nn.Module):
    def loss(params, x):
        return (layer.apply({"params": params}, x) ** 2).sum()

    return jax.jit(jax.grad(loss, (0, 1)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_dense_layer_has_the_parameters_results_and_gradients_of_flax(dtype):
    ours, flax = (kind(6, dtype=dtype, name=None) for kind in (Dense, nn.Dense))
    variables = ours.init(jax.random.key(0), X)
    jax.tree.map(np.testing.assert_array_equal, variables, flax.init(jax.random.key(0), X))
    close = {jnp.float32: 1e-5, jnp.bfloat16: 2e-2}[dtype]
    np.testing.assert_allclose(
        np.float32(ours.apply(variables, X)), np.float32(flax.apply(variables, X)), atol=close
    )
    found, wanted = (gradients(layer)(variables["params"], X) for layer in (ours, flax))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=close * np.abs(b).max())


EPSILON = 1e-6


class Behind(nn.Module):
    norm: type
    dense: type
    dtype: type

    @nn.compact
    def __call__(self, x):
        norm = self.norm(epsilon=EPSILON, dtype=self.dtype, name="norm")
        dense = self.dense(6, dtype=self.dtype, name="dense")
        if self.norm is nn.LayerNorm:
            return dense(norm(x))
        normalised, affine = norm(x)
        return dense(normalised, affine=affine)


OURS, FLAX = (LayerNorm, Dense), (nn.LayerNorm, nn.Dense)


def pulled(layers, dtype):
    """Result and gradients of layers with a random gain and offset, one row of pictures far off."""
    x, drawn = (np.random.default_rng(i).normal(2, 3, (4, 7, 24)) for i in (0, 1))
    model, x = Behind(*layers, dtype), jnp.asarray(x, dtype)
    variables = model.init(jax.random.key(0), x)
    variables["params"]["norm"] = {"scale": drawn[0, 0], "bias": drawn[0, 1]}
    variables = jax.tree.map(jnp.float32, variables)
    gradient = jnp.asarray(drawn[:, :, :6], dtype)

    def run(variables, x, gradient):
        y, pull = jax.vjp(model.apply, variables, x)
        return y, pull(gradient)

    return jax.jit(run)(variables, x, gradient)


def test_a_norm_and_its_dense_layer_are_those_of_flax_in_float32_to_the_last_bit():
    right = pulled(FLAX, jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, pulled(OURS, jnp.float32), right)
    found = pulled(OURS, jnp.bfloat16)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        a, b = np.float32(a), np.float32(b)
        assert np.linalg.norm(a - b) < 1e-2 * np.linalg.norm(b)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)])
def test_gelu_matches_jax_and_so_does_its_gradient(dtype, tolerance):
    x = jnp.linspace(-8, 8, 1001, dtype=dtype)
    ours, backward = jax.vjp(layers.gelu, x)
    reference = lambda x: jax.nn.gelu(x, approximate=False)  # noqa: E731
    expected, expected_backward = jax.vjp(reference, x.astype(jnp.float32))
    assert ours.dtype == backward(ours)[0].dtype == dtype
    np.testing.assert_allclose(ours.astype(jnp.float32), expected, rtol=tolerance, atol=tolerance)
    gradient = backward(jnp.ones_like(x))[0].astype(jnp.float32)
    expected_gradient = expected_backward(jnp.ones_like(expected))[0]
    np.testing.assert_allclose(gradient, expected_gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("p", [0.0, 1e-7, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 4)])
def test_bernoulli_matches_jax(p, shape, monkeypatch):
    keys = [jax.random.key(seed) for seed in range(5)]
    expected = [jax.random.bernoulli(key, p, shape) for key in keys]
    monkeypatch.delattr(jax.random, "bernoulli")  # ours is not to ask it
    for key, mask in zip(keys, expected, strict=True):
        np.testing.assert_array_equal(layers.bernoulli(key, p, shape), mask)


class Twice(nn.Module):
    layer: type

    @nn.compact
    def __call__(self, x):
        drop = self.layer(0.3, deterministic=False)
        return drop(x), drop(x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropout_matches_flax(dtype):
    x = jax.random.normal(jax.random.key(0), (4, 33, 16), dtype)
    rngs = {"dropout": jax.random.key(1)}
    ours = Twice(layers.Dropout).apply({}, x, rngs=rngs)
    theirs = Twice(nn.Dropout).apply({}, x, rngs=rngs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(*ours)


def test_dropout_of_the_first_rows_has_the_numbers_of_all():
    x, rngs = jnp.ones((4, 33, 16)), {"dropout": jax.random.key(1)}
    every = layers.Dropout(0.3, deterministic=False).apply({}, x, rngs=rngs)
    first = layers.Dropout(0.3, deterministic=False, of=33).apply({}, x[:, :1], rngs=rngs)
    np.testing.assert_array_equal(first, every[:, :1])
