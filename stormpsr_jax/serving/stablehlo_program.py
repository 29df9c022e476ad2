"""Networks in StableHLO, run by JAX on whatever device it has."""

from pathlib import Path
from typing import Any

import jax
import jax.interpreters.mlir
import numpy as np
from jax import export
from jax.extend.mlir import ir

from stormpsr_jax.base.devices import compiler_options
from stormpsr_jax.base.errors import one_line, visible
from stormpsr_jax.serving.batched import Batched, one_by_one
from stormpsr_jax.serving.content import Function
from stormpsr_jax.serving.program import arrays

# What XLA may call beside its own operations: the check that there is at least one row.
_CALLS = frozenset({"shape_assertion"})


class StablehloProgram:
    """A program of `jax.export`, as `program.Program`.

    On a CPU the rows of a small network are computed one by one, as JAX does for the network that
    it was: so live recognition rounds like that of files.
    """

    def __init__(self, path: Path, data: bytes, rows: int | None):
        """Reads the content of a file.

        Args:
            rows: computed at once on a CPU, one by one; None is as many as are asked for.

        Raises:
            ValueError: it is none, is of another version of JAX, is for other devices, or calls
                what no export does; one line that names it.
        """
        try:
            exported = export.deserialize(bytearray(data))
            version = exported.calling_convention_version
        except Exception as error:  # of damaged bytes nearly anything
            raise ValueError(
                one_line(f"{path}: JAX {jax.__version__} cannot read it ({error})", 400)
            ) from error
        low = export.minimum_supported_calling_convention_version
        high = export.maximum_supported_calling_convention_version
        if not low <= version <= high:
            raise ValueError(
                f"{path}: is of version {version} of jax.export, JAX {jax.__version__} reads {low}…"
                f"{high}; export the model again, or install another version of JAX"
            )
        platform = jax.default_backend()
        platform = "cuda" if platform == "gpu" else platform
        if platform not in exported.platforms:
            has = visible(", ".join(exported.platforms)[:80])
            raise ValueError(f"{path}: is for {has}, and JAX computes on {platform} here")
        _check_calls(path, exported.mlir_module_serialized)
        self._exported, self._rows = exported, rows
        takes, self.gives = (
            arrays(path, [(np.dtype(a.dtype).name, a.shape) for a in avals])
            for avals in (exported.in_avals, exported.out_avals)
        )
        (self.takes,) = takes

    def function(self, batch: int) -> Function:
        """See `program.Program`."""

        platform = jax.default_backend()
        singly = platform == "cpu" and self._rows is not None

        def run(variables: Any, x: jax.Array, count: jax.Array) -> list[jax.Array]:
            call = self._exported.call
            return jax.tree.leaves(one_by_one(call, x, count) if singly else call(x))

        function = jax.jit(run, compiler_options=compiler_options(platform))
        return Batched(function, {}, batch, lambda shape: singly)


def _check_calls(path: Path, module: bytes) -> None:
    """Raises ValueError where a program calls anything but operations of StableHLO.

    A call can name any function that is registered in the process, with any bytes for it.
    """

    def walk(operation: Any) -> None:
        operation = operation.operation
        if operation.name.partition(".")[0] not in ("builtin", "vhlo", "stablehlo", "func", "chlo"):
            raise ValueError(f"{path}: has {operation.name}, which no export writes")
        if "custom_call" in operation.name:
            name = str(operation.attributes["call_target_name"])
            called = name.partition('"')[2].rpartition('"')[0]
            if called not in _CALLS:
                raise ValueError(f"{path}: calls {visible(called[:40])!r}, which no export does")
        for region in operation.regions:
            for block in region:
                for inside in block:
                    walk(inside)

    with jax.interpreters.mlir.make_ir_context():
        try:
            parsed = ir.Module.parse(module)
        except Exception as error:  # MLIRError
            raise ValueError(one_line(f"{path}: JAX cannot read it ({error})", 400)) from error
        walk(parsed.operation)
