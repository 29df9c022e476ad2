import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks.dense import Dense

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


def test_the_gradient_of_the_kernel_needs_no_copy_of_what_comes_from_above():
    x = np.zeros((105, 65, 96), np.float32)
    params = Dense(384).init(jax.random.key(0), x)["params"]

    def copies(layer: nn.Module) -> int:
        return gradients(layer).lower(params, x).compile().as_text().count("f32[384,105,65]")

    assert copies(nn.Dense(384)), "flax's has none either: our layer is not needed any more"
    assert not copies(Dense(384))
