"""Networks in ONNX, run by onnxruntime on the CPU."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stormpsr_jax.base import memory
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.serving import onnx_file
from stormpsr_jax.serving.content import Function
from stormpsr_jax.serving.program import arrays

_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int32)": "int32"}


class OnnxProgram:
    """A session of onnxruntime, as `program.Program`."""

    def __init__(self, path: Path, data: bytes, rows: int | None):
        """Opens the content of a file, to compute so many rows at once; None: as are asked for.

        Raises:
            ValueError: it is none, or holds what no export writes; one line that names it.
        """
        check_extra("export", ["onnxruntime"], f"{path}: a model in ONNX")
        onnx_file.check(path, data)
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
        takes, self.gives = (
            arrays(path, [(_DTYPES.get(node.type, node.type), node.shape) for node in nodes])
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        (self.takes,) = takes
        self._path, self._name = path, self._session.get_inputs()[0].name
        self._rows = rows

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
