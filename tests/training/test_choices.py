import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks import architectures, attention
from stormpsr_jax.training import choices


def device(platform="gpu", kind="NVIDIA A100-SXM4-80GB", capability="8.0"):
    return types.SimpleNamespace(platform=platform, device_kind=kind, compute_capability=capability)


A100, V100 = device(), device(kind="Tesla V100-SXM2-16GB", capability="7.0")
T4 = device(kind="NVIDIA T4", capability="7.5")
MI300, V5E = device(kind="AMD Instinct MI300X", capability="9.4"), device("tpu", "TPU v5 lite", "")
CPU = device("cpu", "cpu", "")


def test_auto_takes_the_fused_kernel_where_there_is_one():
    assert choices.attention("auto", jnp.bfloat16, A100) == "cudnn"
    assert choices.attention("cudnn", jnp.bfloat16, A100) == "cudnn"
    assert choices.attention("xla", jnp.bfloat16, A100) == "xla"
    assert choices.attention("auto", jnp.float32, A100) == "xla"
    for other in (V100, T4, MI300, V5E, CPU):
        assert choices.attention("auto", jnp.bfloat16, other) == "xla"


@pytest.mark.parametrize(("dtype", "on"), [(jnp.bfloat16, CPU), (jnp.float32, A100)])
def test_a_kernel_that_is_not_there_is_an_error(dtype, on):
    message = f"attention=cudnn with dtype {jnp.dtype(dtype).name} on {on.device_kind}: .*auto"
    with pytest.raises(ValueError, match=message):
        choices.attention("cudnn", dtype, on)


def test_operations_of_the_fused_kernel_are_counted(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 92800)
    q = jnp.zeros((3, 10, 2, 16), jnp.bfloat16)

    def operations(implementation):
        def loss(q, k, v):
            return (
                attention.fused_attention(q, k, v, implementation=implementation)
                .astype(jnp.float32)
                .sum()
            )

        traced = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(q, q, q)
        return architectures.cost_of(traced.jaxpr).operations

    one = 2 * 3 * 2 * 10 * 10 * 16
    assert operations("xla") == 6 * one
    assert operations("cudnn") == 7 * one


def test_fused_attention_is_lowered_to_the_kernel_of_cudnn(monkeypatch):
    """For odd numbers of tokens too, which JAX refuses in training."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 92800)
    q = jnp.zeros((2, 9, 2, 16), jnp.bfloat16)
    loss = lambda q, k, v: attention.fused_attention(q, k, v).astype(jnp.float32).sum()  # noqa: E731
    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, q, q)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax(" in text or "@__cudnn$fmhaSoftmax" in text
    assert "__cudnn$fmhaSoftmaxBackward" in text
    assert "stablehlo.dot_general" not in text


def test_fused_attention_equals_attention_in_bfloat16():
    """What is padded for the kernel, computed by XLA; value and gradients, against float32."""
    q, k, v, g = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 9, 3, 16)), jnp.bfloat16)
    attend = lambda q, k, v: attention.fused_attention(q, k, v, implementation="xla")  # noqa: E731
    out, pull = jax.vjp(attend, q, k, v)
    plain = (x.astype(jnp.float32) for x in (q, k, v))
    expected, plain_pull = jax.vjp(jax.nn.dot_product_attention, *plain)
    right = (expected, *plain_pull(g.astype(jnp.float32)))
    for found, wanted in zip((out, *pull(g)), right, strict=True):
        error = np.linalg.norm(np.float32(found) - wanted) / np.linalg.norm(wanted)
        assert error < 8e-3  # bfloat16 has 8 bits
        assert np.isfinite(np.float32(found)).all()
