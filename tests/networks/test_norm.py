"""Layer normalisation and its own backward pass, against flax's and float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks.norm import LayerNorm

EPSILON = 1e-6


def inputs(dtype):
    rng = np.random.default_rng(0)
    x, gradient = (jnp.asarray(a, dtype) for a in rng.normal(2, 3, (2, 4, 7, 24)))
    scale, bias = (jnp.asarray(a, jnp.float32) for a in rng.normal(1, 0.5, (2, 24)))
    return x, gradient, {"params": {"scale": scale, "bias": bias}}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layer_norm_computes_what_that_of_flax_computes(dtype):
    x, _, variables = inputs(dtype)
    ours, theirs = (kind(epsilon=EPSILON, dtype=dtype) for kind in (LayerNorm, nn.LayerNorm))
    np.testing.assert_array_equal(ours.apply(variables, x), theirs.apply(variables, x))
    shapes = (jax.eval_shape(m.init, jax.random.key(0), x) for m in (ours, theirs))
    assert next(shapes) == next(shapes)


def test_layer_norm_in_float32_has_the_gradient_of_that_of_flax_to_the_last_bit():
    x, gradient, variables = inputs(jnp.float32)

    def pulled(kind):
        model = kind(epsilon=EPSILON)
        return jax.jit(lambda v, x: jax.vjp(model.apply, v, x)[1](gradient))(variables, x)

    jax.tree.map(np.testing.assert_array_equal, pulled(LayerNorm), pulled(nn.LayerNorm))


def test_layer_norm_in_bfloat16_has_the_right_gradient_and_keeps_its_input_alone():
    x, gradient, variables = inputs(jnp.bfloat16)
    model = LayerNorm(epsilon=EPSILON, dtype=jnp.bfloat16)
    _, pull = jax.vjp(model.apply, variables, x)
    kept = {(a.shape, a.dtype.name) for a in jax.tree.leaves(pull) if a.size >= x.size}
    assert kept == {((28, 24), "bfloat16")}
    of_variables, of_x = pull(gradient)

    wide, g = np.asarray(x, np.float64), np.asarray(gradient, np.float64)
    scale = np.asarray(variables["params"]["scale"], np.float64)
    deviation = np.sqrt(wide.var(-1, keepdims=True) + EPSILON)
    standard = (wide - wide.mean(-1, keepdims=True)) / deviation
    # d standard_j / d x_i = (δ_ij − 1/D − standard_i standard_j / D) / deviation
    D = wide.shape[-1]
    jacobian = np.eye(D) - 1 / D - standard[..., :, None] * standard[..., None, :] / D
    expected = np.einsum("btij,btj->bti", jacobian, g * scale) / deviation
    np.testing.assert_allclose(np.asarray(of_x, np.float64), expected, rtol=8e-3, atol=2e-3)
    found = of_variables["params"]
    np.testing.assert_allclose(found["bias"], g.sum((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found["scale"], (g * standard).sum((0, 1)), rtol=1e-3, atol=1e-3)
