"""Mesh, shardings and batches on eight virtual devices (as a script), and kinds of devices."""

import functools
import math
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from stormpsr_jax.networks import vit
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.training import devices, step
from stormpsr_jax.training.devices import batch_sharding, make_mesh, put, state_shardings
from tests.support.processes import environment, finish, start


@pytest.mark.system
def test_sharding_on_eight_devices():
    (said,) = finish(start([sys.executable, __file__], env=environment(8)))
    assert said.strip().endswith("all checked")


def test_make_mesh_refuses_more_devices_than_there_are():
    total = jax.device_count()
    for data, fsdp in ((total, 2), (1, 2 * total + 1), (0, 1), (1, 0)):
        with pytest.raises(ValueError, match=rf"data={data} fsdp={fsdp} does not fit {total} dev"):
            make_mesh(data, fsdp)
    with pytest.raises(ValueError, match=f"set --config.mesh.fsdp to a divisor of {total}"):
        make_mesh(fsdp=2 * total + 1)


def device(platform="gpu", kind="NVIDIA A100-SXM4-80GB", capability="8.0"):
    return types.SimpleNamespace(platform=platform, device_kind=kind, compute_capability=capability)


A100, V100 = device(), device(kind="Tesla V100-SXM2-16GB", capability="7.0")
T4 = device(kind="NVIDIA T4", capability="7.5")
MI300, V5E = device(kind="AMD Instinct MI300X", capability="9.4"), device("tpu", "TPU v5 lite", "")
CPU = device("cpu", "cpu", "")


def test_auto_takes_the_fused_kernel_where_there_is_one():
    assert devices.attention("auto", jnp.bfloat16, A100) == "cudnn"
    assert devices.attention("cudnn", jnp.bfloat16, A100) == "cudnn"
    assert devices.attention("xla", jnp.bfloat16, A100) == "xla"
    assert devices.attention("auto", jnp.float32, A100) == "xla"
    for other in (V100, T4, MI300, V5E, CPU):
        assert devices.attention("auto", jnp.bfloat16, other) == "xla"


@pytest.mark.parametrize(("dtype", "on"), [(jnp.bfloat16, CPU), (jnp.float32, A100)])
def test_a_kernel_that_is_not_there_is_an_error(dtype, on):
    message = f"attention=cudnn with dtype {jnp.dtype(dtype).name} on {on.device_kind}: .*auto"
    with pytest.raises(ValueError, match=message):
        devices.attention("cudnn", dtype, on)


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


# --- In the process -------------------------------------------------------------------------------


def _check():
    mesh = make_mesh()
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert dict(mesh.shape) == {"data": 8, "fsdp": 1}
    assert dict(make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4}
    assert dict(make_mesh(fsdp=-1).shape) == {"data": 1, "fsdp": 8}
    assert make_mesh(data=3).size == 3

    mesh = make_mesh(data=2, fsdp=4)
    shapes = {
        "kernel": (64, 512),  # both axes divisible: the larger one
        "tall": (512, 63),  # one divisible
        "odd": (333, 333),  # none
        "small": (16, 16),  # below the floor
        "scalar": (),
    }
    abstract = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}
    specs = jax.tree.map(lambda s: s.spec, state_shardings(abstract, mesh))
    assert specs == {
        "kernel": PartitionSpec(None, "fsdp"),
        "tall": PartitionSpec("fsdp"),
        "odd": PartitionSpec(),
        "small": PartitionSpec(),
        "scalar": PartitionSpec(),
    }
    kernel = jax.device_put(np.ones((64, 512)), state_shardings(abstract, mesh)["kernel"])
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(64, 128)}

    x = np.arange(16 * 3).reshape(16, 3)
    batch = put({"x": x, "y": x[:, 0]}, batch_sharding(mesh))
    np.testing.assert_array_equal(batch["x"], x)
    assert batch["x"].sharding.is_equivalent_to(batch_sharding(mesh), 2)
    assert {shard.data.shape for shard in batch["y"].addressable_shards} == {(2,)}

    for mesh in (make_mesh(1, 8), make_mesh(2, 4)):
        _check_step_moves_no_activations(mesh)
    print("all checked")


def _check_step_moves_no_activations(mesh):
    """All that devices gather of each other, or exchange, are parameters."""
    model = SpatialEncoder(ViT(patch_size=8, width=128, depth=1, num_heads=2))

    def loss_fn(params, batch_stats, batch, rng):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs, updates = model.apply(variables, batch["image"], True, mutable="batch_stats")
        loss = (outputs["projection"][:, 0] * batch["label"]).mean()  # of each row by itself
        return loss, ({}, updates["batch_stats"])

    batch = {
        "image": jax.ShapeDtypeStruct((40, 16, 16, 3), "float32"),
        "label": jax.ShapeDtypeStruct((40,), "int32"),
    }
    variables = jax.eval_shape(model.init, jax.random.key(0), batch["image"])
    optimizer = optax.sgd(0.1, momentum=0.9)
    start = variables["params"], variables["batch_stats"], jax.ShapeDtypeStruct((2,), "uint32")
    state = jax.eval_shape(functools.partial(step.new_state, optimizer), *start)
    jitted = step.jit_step(loss_fn, optimizer, state_shardings(state, mesh), mesh)
    sums = {name: jax.ShapeDtypeStruct((), "float32") for name in ("count", "loss", "grad_norm")}
    compiled = jitted.lower(state, sums, batch).compile()
    parts = zip(jax.tree.leaves(state), jax.tree.leaves(state_shardings(state, mesh)), strict=True)
    state_bytes = sum(4 * math.prod(s.shard_shape(leaf.shape)) for leaf, s in parts)
    assert compiled.memory_analysis().alias_size_in_bytes >= state_bytes  # updated in place
    moved = re.findall(r" = (.*) (?:all-gather|all-to-all)(?:-start)?\(", compiled.as_text())
    shapes = [
        tuple(sorted(map(int, text.split(","))))
        for result in moved
        for text in re.findall(r"\w\[([\d,]+)\]", result)
    ]
    of_params = (jax.tree.leaves(t) for t in (state.params, state_shardings(state.params, mesh)))
    split = [tuple(sorted(leaf.shape)) for leaf, s in zip(*of_params, strict=True) if s.spec]
    assert split
    assert sorted(shapes) == sorted(split)


if __name__ == "__main__":
    _check()
