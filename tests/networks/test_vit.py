import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks import vit
from tests.support.drawn import apply, random_variables


def images_of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens_of(model, variables, images):
    """[CLS] and the patches, (B, 1 + h w, D), after the last norm."""
    _, captured = apply(model, variables, images, capture_intermediates=True)
    return captured["intermediates"]["norm"]["__call__"][0]


PLAIN = vit.ViT(patch_size=4, width=12, depth=2, num_heads=3, mlp_dim=20)
# With all that DINOv3 has.
DINOV3 = vit.ViT(
    patch_size=4, width=16, depth=2, num_heads=2, mlp_dim=12, mlp="swiglu",
    positions="rotary", bias="qv", layer_scale=True, registers=3, norm_eps=1e-5,
)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    images = images_of(0, 2, 8, 12, 3)
    return PLAIN, random_variables(PLAIN, images), images


@pytest.fixture(params=[PLAIN, DINOV3], ids=["plain", "dinov3"])
def either(request):
    images = images_of(0, 2, 8, 12, 3)
    return request.param, random_variables(request.param, images), images


@pytest.mark.parametrize("stem", [(), (5,), (4, 6)])
def test_vit_tokens_lie_where_their_patch_lies(stem):
    # Without blocks a token depends on its patch alone (and, with a stem, on pixels around it).
    model = vit.ViT(patch_size=8, width=8, depth=0, num_heads=1, stem=stem)
    images = images_of(2, 1, 24, 32, 3)
    variables = random_variables(model, images)
    changed = images.copy()
    changed[0, 8 + 3 : 8 + 5, 16 + 3 : 16 + 5] += 1  # the middle of patch (1, 2)
    before, after = (tokens_of(model, variables, x) for x in (images, changed))
    moved = np.abs(np.asarray(after - before)).max(-1)[0, 1:].reshape(3, 4) > 1e-6
    assert [tuple(at) for at in np.argwhere(moved)] == [(1, 2)]


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_vit_remat_changes_neither_output_nor_gradient(either, remat):
    model, variables, images = either
    model = model.clone(depth=1)
    again = model.clone(remat=remat)

    def loss(m):
        return jax.jit(jax.value_and_grad(lambda v: (m.apply(v, images, True) ** 3).sum()))(
            variables
        )

    for a, b in zip(jax.tree.leaves(loss(model)), jax.tree.leaves(loss(again)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_vit_bfloat16_stays_near_float32_with_float32_parameters(either):
    model, variables, images = either
    half = model.clone(dtype=jnp.bfloat16)
    output = apply(half, variables, images)
    assert output.dtype == jnp.bfloat16
    fresh = jax.eval_shape(half.init, jax.random.key(0), images)
    assert {p.dtype for p in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(output, apply(model, variables, images), atol=0.15)


def test_vit_positions_of_another_size_are_an_error_that_names_both(small):
    model, variables, _ = small
    with pytest.raises(ValueError, match=r"12x12 pixels make 3x3 patches.* 6 rows"):
        model.apply(variables, images_of(0, 1, 12, 12, 3))


def test_attend_matches_jax_and_so_does_its_gradient():
    q, k, v, g = (images_of(seed, 2, 5, 3, 4) for seed in range(4))
    q = 100 * q  # logits that overflow without their maximum subtracted
    ours, backward = jax.vjp(vit._attend, q, k, v)
    expected, expected_backward = jax.vjp(jax.nn.dot_product_attention, q, k, v)
    assert np.abs(np.einsum("btnd,bsnd->bnts", q, k)).max() > 200
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    for a, b in zip(backward(g), expected_backward(g), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize(
    "fields", [{}, {"positions": "rotary", "registers": 2, "layer_scale": True}], ids=["v1", "v3"]
)
def test_vit_tokens_that_fill_up_for_the_fused_kernel_change_nothing(monkeypatch, fields):
    """Features and gradients; the kernel's part is computed by XLA here."""
    by_xla = functools.partial(vit.fused_attention, implementation="xla")
    monkeypatch.setattr(vit, "fused_attention", by_xla)
    plain = vit.ViT(patch_size=4, width=16, depth=2, num_heads=2, dtype=jnp.bfloat16, **fields)
    images = images_of(0, 2, 8, 12, 3)  # 7 or 9 tokens: filled up to 8 or 16
    variables = random_variables(plain, images)
    filled = plain.clone(attention="cudnn")
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, filled.init(jax.random.key(0), images)
    )

    def pulled(model):
        def loss(variables):
            features = model.apply(variables, images, True)
            return (features.astype(jnp.float32) ** 3).sum(), features

        (_, features), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
        return [np.asarray(x, np.float64) for x in (features, *jax.tree.leaves(gradient))]

    for a, b in zip(pulled(filled), pulled(plain), strict=True):
        assert np.isfinite(a).all()
        assert np.linalg.norm(a - b) <= 0.02 * np.linalg.norm(b) + 1e-6
