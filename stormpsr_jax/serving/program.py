"""A network as one file that a library runs: what all kinds of it share."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from stormpsr_jax.base.errors import one_line
from stormpsr_jax.serving.content import Function

MAX_BYTES = 2**31 - 1  # of a file: what a message of protocol buffers, as ONNX is, can have


class Array(NamedTuple):
    """What a row of an input or output is: its type and its shape without the batch."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


def arrays(path: Path, found: Iterable[tuple[str, Sequence]]) -> tuple[Array, ...]:
    """What inputs or outputs are, by type and shape; ValueError unless the batch alone is open."""
    made = []
    for dtype, (batch, *shape) in ((dtype, shape or [0]) for dtype, shape in found):
        if isinstance(batch, int) or not all(isinstance(n, int) for n in shape):
            raise ValueError(one_line(f"{path}: has an array of shape {(batch, *shape)}"))
        made.append(Array(dtype, tuple(shape)))
    return tuple(made)


class Program(Protocol):
    """A network that was read and can be run."""

    takes: Array
    gives: tuple[Array, ...]

    def function(self, batch: int) -> Function:
        """Rows (B, …), of which there may be none → a list of outputs (B, …), `batch` at a time."""
