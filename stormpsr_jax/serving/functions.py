"""The networks of a model as weights, and as functions of arrays.

Dimension letters: B batch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from stormpsr_jax.base import memory
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.files import fit
from stormpsr_jax.data import augment
from stormpsr_jax.networks import architectures, detection
from stormpsr_jax.serving.content import (
    ROLES,
    Content,
    FileEntry,
    Pictures,
    read_file,
    roles_of,
)
from stormpsr_jax.training import devices, locator
from stormpsr_jax.weights.torch_layout import check_names

# Operations a row of the largest network whose rows a CPU computes one by one: there a batch gains
# little or nothing. Of ViT-S/16's windows it gains a third.
SMALL = 10**8

_CLASSES = "num_classes"
_WIDTH = {"encoder": "hidden", "temporal": "num_components"}

Variables = Mapping[str, Any]  # of a network, as flax has them


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A flax module and its variables: {"params": …} and, if it has them, {"batch_stats": …}."""

    module: nn.Module
    variables: Variables


class FlaxNetworks:
    """Flax modules and their variables, as `content.Networks`."""

    def __init__(self, of: Mapping[str, Network], dtype: str):
        """Takes the networks by role, and the type that their parameters are stored in."""
        self.of, self.dtype = dict(of), dtype
        self._made: dict[int, dict[str, Batched]] = {}

    @property
    def widths(self) -> Mapping[str, int]:
        """See `content.Networks`."""
        return {role: getattr(n.module, _WIDTH.get(role, _CLASSES)) for role, n in self.of.items()}

    def functions(self, content: Content, batch: int) -> Mapping[str, Batched]:
        """See `content.Networks`."""
        if jax.default_backend() == "cpu":
            for role, network in self.of.items():
                shape = content.input_shape(role, 1)
                rows = 1 if singly(network.module, shape[1:]) else batch
                largest = architectures.cost(network.module, shape).largest
                needed = batch * math.prod(shape) + rows * largest
                memory.check_fits(needed, f"a batch of {batch:,} (give a smaller one)")
        if batch not in self._made:
            self._made[batch] = functions(self.of, content.pictures, content.max_detections, batch)
        return self._made[batch]


def functions(
    networks: Mapping[str, Network], pictures: Pictures, max_detections: int, batch: int
) -> dict[str, Batched]:
    """The networks, by role of `content.ROLES`, as functions of arrays.

    Stage `predict` and a loaded model call this, so that both compute the same. They are compiled
    for `batch` rows at a time. On a CPU they compute in float32, whatever the networks' dtype, and
    networks of at most SMALL operations a row compute each by itself, so that it rounds alike
    whether many rows come or one. `pictures` normalise. What there is, and its shapes, says
    `content.Networks.functions`.
    """
    made = {}
    for role, network in networks.items():
        module = architectures.inference(network.module)
        if jax.default_backend() == "cpu":
            # XLA computes bfloat16 in float32 there, and loses time and digits by converting.
            module = architectures.in_float32(module)
        function = _jitted(role, module, pictures, max_detections)
        variables = needed(role, module, network.variables, pictures)
        rows = 1 if role == "locator" else batch  # where it looks depends on the picture before
        made[ROLES[role]] = Batched(function, variables, rows, functools.partial(singly, module))
    return made


@functools.lru_cache(maxsize=16)
def _jitted(
    role: str, module: nn.Module, pictures: Pictures, max_detections: int
) -> jax.stages.Wrapped:
    """What `bodies` has for a role, jitted once for a module: whatever its weights, or stage."""
    body = bodies(pictures, max_detections)[role]

    def function(variables: Variables, x: jax.Array, count: jax.Array) -> Any:
        of_rows = functools.partial(body, module, variables)
        return one_by_one(of_rows, x, count) if singly(module, x.shape[1:]) else of_rows(x)

    function.__name__ = ROLES[role]  # in profiles
    options = devices.compiler_options(jax.default_backend())
    return jax.jit(function, compiler_options=options)


def bodies(
    pictures: Pictures, max_detections: int
) -> dict[str, Callable[[nn.Module, Variables, jax.Array], Any]]:
    """By role, what `functions` makes of a module, variables and rows."""

    def normalise(images: jax.Array) -> jax.Array:
        return augment.normalise(images, pictures.mean, pictures.std)

    def encode(module: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        return architectures.apply(module, variables, normalise(images))

    def temporal(
        module: nn.Module, variables: Variables, embeddings: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = architectures.apply(module, variables, embeddings)
        return jax.nn.sigmoid(logits[:, : module.num_components]), logits

    def detect(module: nn.Module, variables: Variables, images: jax.Array) -> tuple:
        outputs = architectures.apply(module, variables, normalise(images))
        return *detection.decode(outputs, max_detections), detection.best_scores(outputs)

    def locate(module: nn.Module, variables: Variables, images: jax.Array) -> tuple:
        seen = augment.normalise(images, locator.MEAN, locator.STD)
        return detection.located(architectures.apply(module, variables, seen))

    return {"locator": locate, "encoder": encode, "temporal": temporal, "detector": detect}


def singly(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape are computed one by one here."""
    if jax.default_backend() != "cpu":
        return False
    return architectures.cost(module, (1, *shape)).operations <= SMALL


def needed(role: str, module: nn.Module, variables: Variables, pictures: Pictures) -> Variables:
    """The variables that recognition needs: without the heads that only training has."""
    if role != "encoder":
        return variables
    wanted = architectures.variable_shapes(module, (1, *pictures.size, 3))
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return traverse_util.unflatten_dict({name: flat[name] for name in wanted}, sep="/")


# --- In fixed batches -----------------------------------------------------------------------------

# Batches that a device has to do at once: it never waits for the host, and on a CPU a batch that is
# too small for all cores leaves none idle.
_UNDER_WAY = 4
ROWS = 8  # at most, in a call of a function that takes them one by one


def one_by_one(function: Callable[[jax.Array], Any], x: jax.Array, count: jax.Array) -> Any:
    """The outputs of a function for the first `count` rows of `x` (rows, …), each by itself.

    Among others, a row may round otherwise in the last place than in the first: products of
    matrices come in blocks, and what is left over is added up in another order. The function is of
    one row (1, …), to a pytree of arrays (1, …).
    """

    def put(i: jax.Array, done: Any) -> Any:
        outputs = function(jax.lax.dynamic_slice_in_dim(x, i, 1))
        return jax.tree.map(
            lambda all_rows, row: jax.lax.dynamic_update_slice_in_dim(all_rows, row, i, 0),
            *(done, outputs),
        )

    shapes = jax.eval_shape(function, x[:1])
    empty = jax.tree.map(lambda a: jnp.zeros((len(x), *a.shape[1:]), a.dtype), shapes)
    return jax.lax.fori_loop(0, count, put, empty)


class Batched:
    """A jitted function of one batch-leading array, fed in fixed batches over this host's devices.

    A fixed batch compiles once, whatever number of rows comes; the rows that fill it up are cut off
    again. No row may change what comes out for another.

    Attributes:
        batch: rows that somebody who has many may well give at once.
    """

    def __init__(
        self,
        function: jax.stages.Wrapped,
        variables: Mapping[str, Any],
        batch: int,
        singly: Callable[[tuple[int, ...]], bool] = lambda shape: False,
    ):
        """Takes a function.

        Args:
            function: a jitted `function(variables, x (rows, …), count)` → a pytree of arrays
                (rows, …), of which the first `count` rows are wanted. Compiled programs belong to
                it: with the same one and other variables, nothing is compiled again.
            singly: whether the function computes rows of a shape `one_by_one`. It then takes ROWS
                of them in place of `batch`, on one device.
        """
        self._function, self._variables = function, variables
        self._singly, self._num_rows = singly, 0
        self.batch = batch

    def _place(self, shape: tuple[int, ...]) -> int:
        """How many rows of this shape are computed at once, on the devices made ready for it."""
        singly = self._singly(shape)
        num_rows = ROWS if singly else self.batch
        if num_rows != self._num_rows:
            devices = np.array(jax.local_devices())
            devices = devices[: 1 if singly else int(np.gcd(len(devices), num_rows))]
            mesh = jax.sharding.Mesh(devices, ("data",))
            self._rows = jax.NamedSharding(mesh, jax.P("data"))
            self._variables = jax.device_put(self._variables, jax.NamedSharding(mesh, jax.P()))
            self._num_rows = num_rows
        return num_rows

    def __call__(self, x: np.ndarray) -> Any:
        """Returns the outputs for all rows of `x`, of which there may be none, as NumPy arrays."""
        num_rows = self._place(x.shape[1:])
        if not len(x):
            batch = jax.ShapeDtypeStruct((num_rows, *x.shape[1:]), x.dtype)
            shapes = jax.eval_shape(self._function, self._variables, batch, 0)
            return jax.tree.map(lambda a: np.zeros((0, *a.shape[1:]), a.dtype), shapes)
        parts = (x[start : start + num_rows] for start in range(0, len(x), num_rows))
        return _joined(list(self.over(parts)))

    def over(self, parts: Iterable[np.ndarray]) -> Iterator[Any]:
        """Yields the outputs for each of many arrays (B, …), of B ≥ 1 rows, in order.

        Those of several are computed while the first of them are waited for.
        """
        # Of each part, numbers of rows and outputs of its batches.
        under_way: deque[list[tuple[int, Any]]] = deque()
        for x in parts:
            num_rows = self._place(x.shape[1:])
            memory.check_fits(num_rows * x[0].nbytes, f"a batch of {num_rows:,} rows")
            begun = []
            for start in range(0, len(x), num_rows):
                rows = x[start : start + num_rows]
                filled = np.zeros((num_rows, *x.shape[1:]), x.dtype)
                filled[: len(rows)] = rows
                given = jax.device_put(filled, self._rows)
                out = self._function(self._variables, given, np.int32(len(rows)))
                begun.append((len(rows), out))
            under_way.append(begun)
            if len(under_way) == _UNDER_WAY:
                yield _fetched(under_way.popleft())
        while under_way:
            yield _fetched(under_way.popleft())


def _fetched(batches: list[tuple[int, Any]]) -> Any:
    """The rows of outputs that are wanted, which are waited for."""
    leaves = [[np.asarray(a)[:n] for a in jax.tree.leaves(out)] for n, out in batches]
    return jax.tree.unflatten(jax.tree.structure(batches[0][1]), _joined(leaves))


def _joined(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


# --- Stored as weights ----------------------------------------------------------------------------

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
        arrays = safetensors.numpy.load(stored_bytes)
    except (safetensors.SafetensorError, KeyError, ValueError, MemoryError) as error:
        raise ValueError(one_line(f"{path}: cannot be read ({error})")) from error
    check_arrays(path, arrays, kept)
    arrays = {n: array.astype(wanted[n].dtype, copy=False) for n, array in arrays.items()}
    check_finite(path, arrays)
    trees = traverse_util.unflatten_dict(arrays, sep="/")
    networks = {role: Network(of[role].module, trees[role]) for role in of}
    return FlaxNetworks(networks, dtype)


def stored(name: str, dtype: str) -> np.dtype:
    """The type that an array is stored in: statistics, which are few, keep their precision."""
    return np.dtype(dtype if name.split("/")[1] == "params" else "float32")


def check_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
    """Raises ValueError unless the arrays are those wanted, by name, type and shape."""
    check_names(path, wanted, arrays)
    for name, want in wanted.items():
        have = arrays[name]
        if (have.dtype, have.shape) != (want.dtype, want.shape):
            raise ValueError(
                f"{path}: {name} is {have.dtype.name} {have.shape}, the network needs "
                f"{want.dtype.name} {want.shape}"
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
