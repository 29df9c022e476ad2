"""A function of JAX, fed batches of one size over this host's devices."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.base import memory

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
    """Pytrees of arrays, of which there is one at least, as one."""
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
