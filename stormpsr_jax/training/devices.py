"""The devices of a run: one mesh for every stage, and what is computed in another way by kind.

Batches are split over (data, fsdp), parameters and optimiser state over fsdp. What a kind of device
does in another way differs in the last digits.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
    """Returns the mesh with axes ("data", "fsdp"), each of so many devices; -1 is all.

    The state has a copy for each of `data`, and large arrays of it are split over `fsdp`.
    ValueError: the sizes do not fit the devices.
    """
    total = jax.device_count()
    fsdp = total if fsdp == -1 else fsdp
    data = -(-total // max(fsdp, 1)) if data == -1 else data
    where = f"mesh data={data} fsdp={fsdp}"
    if data < 1 or fsdp < 1 or data * fsdp > total:
        raise ValueError(
            f"{where} does not fit {total} devices; set --config.mesh.fsdp to a divisor of {total}"
        )
    if data * fsdp < total and jax.process_count() > 1:
        raise ValueError(f"{where}: with several processes all {total} devices must take part")
    # Each process's devices together and in order: the batch is the processes' parts in order.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    grid = np.array(devices[: data * fsdp]).reshape(data, fsdp)
    # Explicit axes, the default of jax.make_mesh, forbid SupCon's z @ z.T on a sharded batch.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding of arrays of which an axis, by default the first, is the batch."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, AXES))


def state_shardings(abstract_state: Any, mesh: Mesh, min_size: int = 2**14) -> Any:
    """Returns a tree of shardings for parameters or a whole train state.

    An array of at least `min_size` elements is split over fsdp along its largest axis that fsdp
    divides; every other array is replicated, as splitting it would cost more than it saves.
    """

    def sharding(leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [a for a, size in enumerate(leaf.shape) if size % mesh.shape["fsdp"] == 0]
        if mesh.shape["fsdp"] == 1 or not axes or np.prod(leaf.shape) < min_size:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * largest, "fsdp"))

    return jax.tree.map(sharding, abstract_state)


def put(arrays: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Puts this process's part of arrays on the devices: what is split is the parts in order."""
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(array))
        for name, array in arrays.items()
    }


# --- By kind of device ----------------------------------------------------------------------------


# By platform, options of XLA that networks are compiled with wherever they run. What XLA for CPUs
# hands over to YNNPACK by default takes longer there: benchmarks/results/time.md has figures.
_OPTIONS: dict[str, dict[str, Any]] = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}
# And those of steps of training besides. All are known to the versions of JAX in pyproject.toml (a
# test compiles with them). With excess precision, which is XLA's default, a sum of two bfloat16
# arrays that a LayerNorm reads is kept in float32 from the forward to the backward pass: twice the
# memory, and twice the time of what waits for it. The scheduler sends gradients to other devices
# while the backward pass goes on; on TPUs it is the default. The merger of small products would
# make one of those of queries, keys and values, and cut its result into the three arrays that
# attention wants. Matrix products of one layer are never split over devices here, so what overlaps
# them with collectives ("collective matmul") would change nothing.
_TRAINING_OPTIONS: dict[str, dict[str, Any]] = {
    "gpu": {
        "xla_allow_excess_precision": False,
        "xla_gpu_enable_latency_hiding_scheduler": True,
        "xla_gpu_dot_merger_threshold_mb": 0,
    },
    "tpu": {"xla_allow_excess_precision": False},
}


def compiler_options(platform: str, training: bool = False) -> dict[str, Any]:
    """XLA's options for networks on "cpu", "gpu" or "tpu", without those that XLA_FLAGS sets."""
    options = _OPTIONS.get(platform, {})
    if training:
        options = options | _TRAINING_OPTIONS.get(platform, {})
    chosen = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if f"--{name}" not in chosen}


def attention(asked: str, dtype: Any, device: jax.Device) -> str:
    """What computes attention in training, "xla" or "cudnn"; of "auto" the latter where it can.

    ValueError if cuDNN is asked for and has no kernel for this device or dtype.
    """
    nvidia = device.platform == "gpu" and device.device_kind.startswith("NVIDIA")
    capable = nvidia and float(getattr(device, "compute_capability", 0)) >= 8
    there = capable and np.dtype(dtype).itemsize == 2
    if asked == "cudnn" and not there:
        raise ValueError(
            f"attention=cudnn with dtype {np.dtype(dtype).name} on {device.device_kind}: cuDNN's "
            "kernel takes bfloat16 and an NVIDIA GPU of compute capability 8.0 (A100) or more; set "
            "--config.attention=auto"
        )
    return asked if asked != "auto" else "cudnn" if there else "xla"
