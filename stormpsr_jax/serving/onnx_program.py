"""Networks in ONNX, run by onnxruntime on the CPU.

Dimension letters: B batch.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stormpsr_jax.base import memory
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.serving.content import Function

MAX_BYTES = 2**31 - 1  # of a file: what a message of protocol buffers, as ONNX is, can have
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int32)": "int32"}


class Array(NamedTuple):
    """What a row of an input or output is: its type and its shape without the batch."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


class OnnxProgram:
    """A session of onnxruntime.

    Attributes:
        takes: a row of its input.
        gives: a row of each of its outputs.
    """

    def __init__(self, path: Path, data: bytes, rows: int | None):
        """Opens the content of a file, to compute so many rows at once; None: as are asked for.

        Raises:
            ValueError: onnxruntime cannot read it, or its rows are of no fixed shape; one line
                that names it.
        """
        check_extra("export", ["onnxruntime"], f"{path}: a model in ONNX")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # not errors, which are raised: they hold names of the file
        # Threads that wait would take the processor from what decodes the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A file may look like onnxruntime's own format too.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        with _told(path):
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        takes, self.gives = (
            _arrays(path, [(_DTYPES.get(node.type, node.type), node.shape) for node in nodes])
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        (self.takes,) = takes
        self._path, self._name = path, self._session.get_inputs()[0].name
        self._rows = rows

    def function(self, batch: int) -> Function:
        """Rows (B, …), of which there may be none → a list of outputs (B, …), `batch` at a time."""
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


def _arrays(path: Path, found: Iterable[tuple[str, Sequence]]) -> tuple[Array, ...]:
    """What inputs or outputs are, by type and shape; ValueError unless the batch alone is open."""
    made = []
    for dtype, (batch, *shape) in ((dtype, shape or [0]) for dtype, shape in found):
        if isinstance(batch, int) or not all(isinstance(n, int) for n in shape):
            raise ValueError(one_line(f"{path}: has an array of shape {(batch, *shape)}"))
        made.append(Array(dtype, tuple(shape)))
    return tuple(made)


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
