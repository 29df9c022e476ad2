"""Clips of embeddings, as rows of one table of all, from which the devices take them."""

import functools
from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np

from stormpsr_jax.data import sampling
from stormpsr_jax.data.pipelines import ENDLESS, Batches, batches


def embedded_clips(
    states: Mapping[str, np.ndarray],
    sampler: sampling.ClipSampler,
    *,
    frames: int,
    stride: int,
    batch: int,
    seed: int,
    workers: int = 0,
) -> Batches:
    """Batches for stage `temporal`.

    Args:
        states: {recording: (N, K)}, in the order in which the table has their embeddings.
        frames, stride: of a window, in rows of `states`.

    Yields:
        rows int32 (B, T) of the table, T = frames / stride + 1; label float32 (B, K);
        state int8 (B, K) in {-1, 0, 1}, of the last frame.
    """
    draw = functools.partial(_draw, {name: i for i, name in enumerate(states)}, sampler)
    drawn = grain.MapDataset.range(ENDLESS).seed(seed).random_map(draw)
    hosts = jax.process_count()
    dataset, single = (_Clips(drawn, states, frames, stride, size) for size in (batch, hosts))
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
        states: Mapping[str, np.ndarray],
        frames: int,
        stride: int,
        batch: int,
    ):
        super().__init__(parent)
        self._frames, self._stride, self._batch = frames, stride, batch
        self._rows = batch // jax.process_count()
        self._first = jax.process_index() * self._rows
        self._states = np.concatenate(list(states.values()))
        lengths = np.array([len(own) for own in states.values()])
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
        rows = (start[:, None] + window).astype(np.int32)
        return {"rows": rows, "label": label.astype(np.float32), "state": state}
