import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks import dropout


@pytest.mark.parametrize("p", [0.0, 1e-7, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 4)])
def test_bernoulli_matches_jax(p, shape, monkeypatch):
    keys = [jax.random.key(seed) for seed in range(5)]
    expected = [jax.random.bernoulli(key, p, shape) for key in keys]
    monkeypatch.delattr(jax.random, "bernoulli")  # ours is not to ask it
    for key, mask in zip(keys, expected, strict=True):
        np.testing.assert_array_equal(dropout.bernoulli(key, p, shape), mask)


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
    ours = Twice(dropout.Dropout).apply({}, x, rngs=rngs)
    theirs = Twice(nn.Dropout).apply({}, x, rngs=rngs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(*ours)


def test_dropout_of_the_first_rows_has_the_numbers_of_all():
    x, rngs = jnp.ones((4, 33, 16)), {"dropout": jax.random.key(1)}
    every = dropout.Dropout(0.3, deterministic=False).apply({}, x, rngs=rngs)
    first = dropout.Dropout(0.3, deterministic=False, of=33).apply({}, x[:, :1], rngs=rngs)
    np.testing.assert_array_equal(first, every[:, :1])
