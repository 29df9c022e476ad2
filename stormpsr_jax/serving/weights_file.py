"""Networks as weights: `weights.safetensors`, and what model.json says of networks.

Dimension letters: B batch.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import safetensors
from flax import traverse_util

from stormpsr_jax.base import memory
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.files import fit
from stormpsr_jax.networks import architectures
from stormpsr_jax.serving.content import Content, roles_of
from stormpsr_jax.serving.functions import FlaxNetworks, Network
from stormpsr_jax.serving.model_files import FileEntry, read_file
from stormpsr_jax.weights import torch_files
from stormpsr_jax.weights.torch_layout import check_names

WEIGHTS = "weights.safetensors"


class _Weights(FileEntry, forbid_unknown_fields=True):
    dtype: Literal["float32", "float16"]


def declared(data: Mapping[str, Any], place: str, modules: Collection[str] = ()) -> FlaxNetworks:
    """The networks that model.json describes, without variables; ValueError has the place."""
    dtype = fit(data.get("weights"), _Weights, f"{place}: weights").dtype
    networks = {}
    for role, values in roles_of(data, place).items():
        module = architectures.build(role, values, f"{place}: networks.{role}", modules)
        networks[role] = Network(module, {})
    return FlaxNetworks(networks, dtype)


def read(model: Path, data: Mapping[str, Any], content: Content) -> FlaxNetworks:
    """The networks with variables; ValueError: the file beside model.json is not as it says."""
    wanted = wanted_arrays(content, str(model))
    assert isinstance(content.networks, FlaxNetworks)
    path, dtype, of = model.with_name(WEIGHTS), content.networks.dtype, content.networks.of
    # The file, its arrays, and those that half precision becomes.
    stored_bytes = read_file(path, data["weights"], 2 if dtype == "float32" else 4)
    kept = {n: jax.ShapeDtypeStruct(a.shape, stored(n, dtype)) for n, a in wanted.items()}
    needed = sum(a.size * a.dtype.itemsize for a in kept.values())
    if needed > len(stored_bytes):
        raise ValueError(
            f"{path}: has {len(stored_bytes):,} bytes, but the networks need {needed:,}"
        )
    try:
        found = dict(safetensors.deserialize(stored_bytes))
        for name, entry in found.items():
            entry["dtype"] = torch_files.check_dtype(name, entry["dtype"])
    except (safetensors.SafetensorError, ValueError, MemoryError) as error:
        raise ValueError(one_line(f"{path}: cannot be read ({error})")) from error
    check_arrays(path, {n: (e["dtype"].name, e["shape"]) for n, e in found.items()}, kept)
    arrays = {
        name: np.frombuffer(entry["data"], entry["dtype"])
        .reshape(entry["shape"])
        .astype(wanted[name].dtype, copy=False)
        for name, entry in found.items()
    }
    check_finite(path, arrays)
    trees = traverse_util.unflatten_dict(arrays, sep="/")
    networks = {role: Network(of[role].module, trees[role]) for role in of}
    return FlaxNetworks(networks, dtype)


def stored(name: str, dtype: str) -> np.dtype:
    """The type that an array is stored in: statistics, which are few, keep their precision."""
    return np.dtype(dtype if name.split("/")[1] == "params" else "float32")


def check_arrays(
    path: Path,
    found: Mapping[str, tuple[str, Any]],
    wanted: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    """Raises ValueError unless the arrays, by name (type, shape), are those wanted."""
    check_names(path, wanted, found)
    for name, array in wanted.items():
        have = (found[name][0], tuple(found[name][1]))
        if have != (array.dtype.name, array.shape):
            raise ValueError(
                f"{path}: {name} is {have[0]} {have[1]}, the network needs {array.dtype.name} "
                f"{array.shape}"
            )


def check_finite(path: Path, arrays: Mapping[str, np.ndarray], where: str = "") -> None:
    """Raises ValueError where a number is not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds numbers that are not finite{where}")


def wanted_arrays(content: Content, place: str) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that the networks need, by names such as encoder/params/first_head/dense/bias."""
    wanted: dict[str, jax.ShapeDtypeStruct] = {}
    assert isinstance(content.networks, FlaxNetworks)
    for role, network in content.networks.of.items():
        try:
            shape = content.input_shape(role, 1)
            shapes = architectures.variable_shapes(network.module, shape)
            memory.check_fits(architectures.cost(network.module, shape).largest, "one row")
        except (ValueError, MemoryError) as error:
            raise ValueError(one_line(f"{place}: networks.{role}: {error}", 400)) from error
        wanted |= {f"{role}/{name}": array for name, array in shapes.items()}
    return wanted
