"""Networks in ONNX, run by onnxruntime on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stormpsr_jax.base import memory
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.serving import onnx_file
from stormpsr_jax.serving.content import Function
from stormpsr_jax.serving.program import Array

_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int32)": "int32"}


class OnnxProgram:
    """A session of onnxruntime, as `program.Program`."""

    def __init__(self, path: Path, data: bytes, rows: int | None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # not errors, which are raised: they hold names of the file
        # Threads that wait would take the processor from what decodes the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A file may look like onnxruntime's own format too, which nobody has checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        with _told(path):
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        (self.takes,) = self._arrays(path, self._session.get_inputs())
        self.gives = self._arrays(path, self._session.get_outputs())
        self._path, self._name = path, self._session.get_inputs()[0].name
        self._rows = rows

    @staticmethod
    def _arrays(path: Path, nodes: Sequence) -> tuple[Array, ...]:
        found = []
        for node in nodes:
            batch, *shape = node.shape or [None]
            if isinstance(batch, int) or not all(isinstance(n, int) for n in shape):
                raise ValueError(one_line(f"{path}: {node.name}: is of shape {node.shape}"))
            found.append(Array(_DTYPES.get(node.type, node.type), tuple(shape)))
        return tuple(found)

    def function(self, batch: int) -> Function:
        """See `program.Program`."""
        batch = min(batch, self._rows or batch)

        def run(x: np.ndarray) -> list[np.ndarray]:
            if not len(x):
                return [np.zeros((0, *array.shape), array.dtype) for array in self.gives]
            memory.check_fits(min(batch, len(x)) * x[0].nbytes, f"a batch of {batch:,} rows")
            parts = []
            for start in range(0, len(x), batch):
                rows = np.ascontiguousarray(x[start : start + batch])
                with _told(self._path):
                    parts.append(self._session.run(None, {self._name: rows}))
            return [np.concatenate(column) for column in zip(*parts, strict=True)]

        return run


def opened(path: Path, data: bytes, rows: int | None) -> OnnxProgram:
    """Returns the program of a file.

    Args:
        path: of the file.
        data: its content.
        rows: computed at once; None is as many as are asked for.

    Raises:
        ValueError: it is none, or holds what no export writes; one line that names it.
    """
    check_extra("export", ["onnxruntime"], f"{path}: a model in ONNX")
    onnx_file.check(path, data)
    return OnnxProgram(path, data, rows)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of onnxruntime, which have no common class, as ValueErrors of one line."""
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        if "Failed to allocate memory" in str(error) or "bad_alloc" in str(error):
            raise MemoryError(f"{path}: onnxruntime has no memory for a batch") from error
        raise ValueError(one_line(f"{path}: onnxruntime cannot run it ({error})", 400)) from error
