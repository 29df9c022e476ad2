"""What each device computes of its own rows of a batch, where XLA would not see that it can.

A step of training says by `jax.sharding.use_abstract_mesh` which devices share its batches.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec


def apart(function: Callable[..., Any], *arrays: jax.Array, summed: bool = False) -> Any:
    """function(*arrays), on each device of its own rows.

    Args:
        function: of arrays (B, …) to such arrays, each row by itself; or to sums over rows.
        arrays: all with B rows. Where devices cannot share them evenly, XLA splits the work.
        summed: the results are sums, which are then added up over all devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or len(arrays[0]) % mesh.size:
        return function(*arrays)
    axes = mesh.axis_names

    def of_device(*arrays: jax.Array) -> Any:
        found = function(*arrays)
        return jax.lax.psum(found, axes) if summed else found

    rows = PartitionSpec(axes)
    out = PartitionSpec() if summed else rows
    # check_vma=False: else JAX adds up what `function` computes by itself, before it is float32.
    return jax.shard_map(of_device, in_specs=rows, out_specs=out, check_vma=False)(*arrays)
