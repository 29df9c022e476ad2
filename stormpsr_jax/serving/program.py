"""A network as one file that a library runs: what all kinds of it share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from stormpsr_jax.serving.content import Function

MAX_BYTES = 2**31 - 1  # of a file: what a message of protocol buffers, as ONNX is, can have


class Array(NamedTuple):
    """What a row of an input or output is: its type and its shape without the batch."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


class Program(Protocol):
    """A network that was read and can be run.

    Attributes:
        takes: its input.
        gives: its outputs, in order.
    """

    takes: Array
    gives: tuple[Array, ...]

    def function(self, batch: int) -> Function:
        """Rows (B, …), of which there may be none → a list of outputs (B, …), `batch` at a time."""
