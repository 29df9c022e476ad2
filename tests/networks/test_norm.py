import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.networks.dense import Dense
from stormpsr_jax.networks.norm import LayerNorm

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
    jax.tree.map(
        np.testing.assert_array_equal, pulled(OURS, jnp.float32), pulled(FLAX, jnp.float32)
    )


def test_a_norm_and_its_dense_layer_are_those_of_flax_in_bfloat16():
    found, right = pulled(OURS, jnp.bfloat16), pulled(FLAX, jnp.float32)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        a, b = np.float32(a), np.float32(b)
        assert np.linalg.norm(a - b) < 1e-2 * np.linalg.norm(b)


def test_the_backward_pass_of_a_norm_in_bfloat16_keeps_what_the_dense_layer_keeps():
    x = jnp.ones((28, 24), jnp.bfloat16)
    model = Behind(*OURS, jnp.bfloat16)
    _, pull = jax.vjp(model.apply, model.init(jax.random.key(0), x), x)
    kept = {(a.shape, a.dtype.name) for a in jax.tree.leaves(pull) if a.size >= x.size}
    assert kept == {((28, 24), "bfloat16")}
