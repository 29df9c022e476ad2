import types

import jax
import jax.numpy as jnp
import pytest

from stormpsr_jax.networks import vit
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


def test_fused_attention_is_lowered_to_the_kernel_of_cudnn(monkeypatch):
    """For odd numbers of tokens too, which JAX refuses in training."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 92800)
    q = jnp.zeros((2, 9, 2, 16), jnp.bfloat16)
    loss = lambda q, k, v: vit.fused_attention(q, k, v).astype(jnp.float32).sum()  # noqa: E731
    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, q, q)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax(" in text or "@__cudnn$fmhaSoftmax" in text
    assert "__cudnn$fmhaSoftmaxBackward" in text
    assert "stablehlo.dot_general" not in text
