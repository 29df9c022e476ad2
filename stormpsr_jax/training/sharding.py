"""One mesh for every stage: batches over (data, fsdp), parameters and optimiser state over fsdp."""

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
