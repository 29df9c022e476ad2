"""Clips of embeddings, or the rows of one table of all where the devices take them themselves."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np

from stormpsr_jax.data import sampling
from stormpsr_jax.data.features import EmbeddingFile
from stormpsr_jax.data.pipelines import ENDLESS, Batches, batches


def table(embeddings: Mapping[str, np.ndarray | EmbeddingFile]) -> np.ndarray:
    """All embeddings one below the other, float32 (rows, D): of recording after recording.

    With it, `embedded_clips` says where in it a clip is.
    """
    parts = list(embeddings.values())
    whole = np.empty((sum(map(len, parts)), parts[0].shape[1]), np.float32)
    start = 0
    for part in parts:
        whole[start : start + len(part)] = part[:]
        start += len(part)
    return whole


def table_bytes(embeddings: Mapping[str, np.ndarray | EmbeddingFile]) -> int:
    """What `table` takes."""
    return sum(4 * math.prod(array.shape) for array in embeddings.values())


def embedded_clips(
    embeddings: Mapping[str, np.ndarray | EmbeddingFile],
    states: Mapping[str, np.ndarray],
    sampler: sampling.ClipSampler,
    *,
    frames: int,
    stride: int,
    batch: int,
    seed: int,
    workers: int = 0,
    held: bool = False,
) -> Batches:
    """Batches for stage `temporal`.

    Args:
        embeddings: {recording: (N, D)}.
        states: {recording: (N, K)}.
        sampler: draws recording and last row of a clip.
        frames, stride: of a window, in rows of `embeddings`.
        batch, seed, workers: clips in a global batch, of the draws, loader processes.
        held: whether the devices have `table`.

    Yields:
        embeddings float32 (B, T, D), T = frames / stride + 1, or, if it is held, rows int32 (B, T)
        of the table; label float32 (B, K); state int8 (B, K) in {-1, 0, 1}, of the last frame.
    """
    draw = functools.partial(_draw, {name: i for i, name in enumerate(embeddings)}, sampler)
    drawn = grain.MapDataset.range(ENDLESS).seed(seed).random_map(draw)
    hosts = jax.process_count()
    dataset, single = (
        _Clips(drawn, embeddings, states, frames, stride, size, held) for size in (batch, hosts)
    )
    # Of one clip, as drawing a batch that is too large would take all the memory.
    row_bytes = sum(array.nbytes for array in single[0].values())
    return batches(dataset, workers, batch // hosts * row_bytes)


def _draw(
    numbers: Mapping[str, int], sampler: sampling.ClipSampler, _: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Number of a recording, and row in it at which a clip ends."""
    name, last = sampler.draw(rng)
    return numbers[name], last


class _Clips(grain.MapDataset):
    """Draws → this host's rows of whole batches; one by one, Python takes four times as long."""

    def __init__(
        self,
        parent: grain.MapDataset,
        embeddings: Mapping[str, np.ndarray | EmbeddingFile],
        states: Mapping[str, np.ndarray],
        frames: int,
        stride: int,
        batch: int,
        held: bool,
    ):
        super().__init__(parent)
        self._embeddings = None if held else list(embeddings.values())
        self._frames, self._stride, self._batch = frames, stride, batch
        self._rows = batch // jax.process_count()
        self._first = jax.process_index() * self._rows
        self._states = np.concatenate([states[name] for name in embeddings])
        lengths = np.array([len(states[name]) for name in embeddings])
        self._starts = np.cumsum(lengths) - lengths  # of a recording in the states and the table

    def __len__(self) -> int:
        return len(self._parent) // self._batch

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        first = index * self._batch + self._first
        drawn = [self._parent[i] for i in range(first, first + self._rows)]
        number, last = np.array(drawn).T
        start = self._starts[number]
        window = sampling.window_frames(last, frames=self._frames, stride=self._stride)
        state = self._states[start + last]
        before = self._states[start + np.maximum(last - self._frames, 0)]
        label = sampling.binarise(before) ^ sampling.binarise(state)
        rest = {"label": label.astype(np.float32), "state": state}
        if self._embeddings is None:
            return {"rows": (start[:, None] + window).astype(np.int32), **rest}
        picked = [self._embeddings[n][w] for n, w in zip(number, window, strict=True)]
        return {"embeddings": np.asarray(picked, np.float32), **rest}
