"""One grain pipeline per training stage: index → draw → pictures or embeddings → batch.

An element is a function of (seed, index) alone, so batches are the same for any number of loader
processes, and no loader repeats another's draws. Each host builds its own rows of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grain
import jax
import numpy as np

from stormpsr_jax.data import sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.processes import exit_with_parent

_ENDLESS = 2**40  # elements; a pipeline never ends before its stage does


def _local_batch(batch: int, field: str) -> int:
    """This host's share of a global batch."""
    if batch % jax.process_count():
        raise ValueError(
            f"{field}={batch} is not divisible by {jax.process_count()} hosts; change {field}"
        )
    return batch // jax.process_count()


def _iterate(
    element: Callable[[int, np.random.Generator], dict], seed: int, batch: int, workers: int
) -> grain.DatasetIterator:
    """Iterates over batches of `batch` elements, this host's share of the index range."""
    dataset = grain.MapDataset.range(_ENDLESS).seed(seed)
    dataset = dataset[jax.process_index() :: jax.process_count()].random_map(element)
    if batch:
        dataset = dataset.batch(batch, drop_remainder=True)
    return start(dataset, workers)


def start(dataset: grain.MapDataset, workers: int) -> grain.DatasetIterator:
    """Iterates over a map data set's batches, loaded ahead by threads or `workers` processes."""
    threads = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    dataset = dataset.to_iter_dataset(threads)
    if workers:
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=exit_with_parent
        )
    return iter(dataset)


class _KeyFrameBatch:
    """Index → this host's rows of one KFS batch, which every host draws alike."""

    def __init__(self, source, cad, sampler, host, hosts):
        self._source, self._cad, self._sampler = source, cad, sampler
        self._host, self._hosts = host, hosts

    def __call__(self, _: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        picked = self._sampler.draw(rng)
        rows = len(picked) // self._hosts
        picked = picked[self._host * rows : (self._host + 1) * rows]
        images, states = [], []
        for p in picked:
            source = self._cad if p.cad else self._source
            recording = source.recordings[p.recording]
            images.append(source.frames(p.recording, [recording.first_frame + p.index])[0])
            states.append(sampling.binarise(recording.states[p.index]))
        return {
            "image": np.stack(images),
            "label": np.array([p.label for p in picked], np.int32),
            "state": np.array(states, np.float32),
            "cad": np.array([p.cad for p in picked], bool),
        }


def key_frame_batches(
    source: ClipSource,
    cad: ClipSource | None,
    sampler: sampling.KeyFrameSampler,
    *,
    seed: int,
    workers: int = 0,
) -> grain.DatasetIterator:
    """Batches for stage `pretrain`.

    Yields:
      image uint8 (B, H, W, 3); label int32 (B,), state 1…S or −1; state float32 (B, K) in {0, 1};
      cad bool (B,), from a clean render. Frames from anywhere stand last.
    """
    _local_batch(sampler.batch_size, "the pictures of a batch (pretrain.n_per_state, …)")
    element = _KeyFrameBatch(source, cad, sampler, jax.process_index(), jax.process_count())
    dataset = grain.MapDataset.range(_ENDLESS).seed(seed).random_map(element)
    return start(dataset, workers)


class _EmbeddedClip:
    """Index → one clip of frame embeddings with its XOR label."""

    def __init__(self, embeddings, states, sampler, frames, stride):
        self._embeddings, self._states, self._sampler = embeddings, states, sampler
        self._frames, self._stride = frames, stride

    def __call__(self, _: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        name, last = self._sampler.draw(rng)
        views = self._embeddings[name]
        view = views[rng.integers(len(views))]
        window = sampling.window_frames(last, frames=self._frames, stride=self._stride)
        label = sampling.clip_labels(self._states[name], last, frames=self._frames)
        return {"embeddings": np.asarray(view[window], np.float32), "label": np.float32(label)}


def embedded_clips(
    embeddings: Mapping[str, list[np.ndarray]],
    states: Mapping[str, np.ndarray],
    sampler: sampling.ClipSampler,
    *,
    frames: int,
    stride: int,
    batch: int,
    seed: int,
    workers: int = 0,
) -> grain.DatasetIterator:
    """Batches for stage `temporal`; `embeddings` holds one or more (N, D) views a recording.

    Yields:
      embeddings float32 (B, T, D), T = frames / stride + 1; label float32 (B, K).
    """
    element = _EmbeddedClip(embeddings, states, sampler, frames, stride)
    return _iterate(element, seed, _local_batch(batch, "temporal.batch"), workers)


class _PictureClip:
    """Index → one clip of pictures with its XOR label."""

    def __init__(self, source, sampler, frames, stride):
        self._source, self._sampler = source, sampler
        self._frames, self._stride = frames, stride

    def __call__(self, _: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        name, last = self._sampler.draw(rng)
        recording = self._source.recordings[name]
        window = sampling.window_frames(last, frames=self._frames, stride=self._stride)
        label = sampling.clip_labels(recording.states, last, frames=self._frames)
        images = self._source.frames(name, (recording.first_frame + window).tolist())
        return {"image": images, "label": np.float32(label)}


def picture_clips(
    source: ClipSource,
    sampler: sampling.ClipSampler,
    *,
    frames: int,
    stride: int,
    batch: int,
    seed: int,
    workers: int = 0,
) -> grain.DatasetIterator:
    """Batches for stage `finetune`.

    Yields:
      image uint8 (B, T, H, W, 3), T = frames / stride + 1; label float32 (B, K).
    """
    element = _PictureClip(source, sampler, frames, stride)
    return _iterate(element, seed, _local_batch(batch, "finetune.batch"), workers)


class _DetectorPicture:
    """Index → one picture with its box and class."""

    def __init__(self, source, cad, background, cad_share):
        self._source, self._cad = source, cad
        self._background, self._cad_share = background, cad_share
        self._boxed = _by_class(source)
        self._boxed_cad = _by_class(cad) if cad_share else {}
        # No row of a box and no word of a class: the object is partly hidden.
        self._unboxed = {
            name: frames
            for name, r in source.recordings.items()
            if len(frames := np.flatnonzero(r.classes < 0))
        }
        if not self._boxed:
            raise ValueError(
                "no frame of the training split has a box of a catalogued or error state: the "
                "detector has nothing to learn from; drop 'detector' from stages or label boxes"
            )

    def __call__(self, _: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        kind = rng.random()
        source = self._source
        if kind < self._background and self._unboxed:
            names = list(self._unboxed)
            name = names[rng.integers(len(names))]
            index = int(rng.choice(self._unboxed[name]))
        else:
            boxed = self._boxed
            if kind >= 1 - self._cad_share:
                source, boxed = self._cad, self._boxed_cad
            # A class, a recording, a frame, each uniformly: long-standing states do not dominate.
            classes = list(boxed)
            names = boxed[classes[rng.integers(len(classes))]]
            name, frames = names[rng.integers(len(names))]
            index = int(rng.choice(frames))
        recording = source.recordings[name]
        return {
            "image": source.frames(name, [recording.first_frame + index])[0],
            "box": np.asarray(recording.boxes[index], np.float32),
            "class": np.int32(recording.classes[index]),
            "cad": np.bool_(source is self._cad),
        }


def _by_class(source: ClipSource) -> dict[int, list[tuple[str, np.ndarray]]]:
    """{class: [(recording, indices of its boxed frames)]}; class 0 (uncatalogued) is left out."""
    found: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, r in source.recordings.items():
        for label in np.unique(r.classes[r.classes > 0]).tolist():
            found.setdefault(label, []).append((name, np.flatnonzero(r.classes == label)))
    return found


def detector_pictures(
    source: ClipSource,
    cad: ClipSource | None,
    *,
    background: float,
    cad_share: float,
    batch: int,
    seed: int,
    workers: int = 0,
) -> grain.DatasetIterator:
    """Batches for stage `detector`.

    Yields:
      image uint8 (B, H, W, 3); box float32 (B, 4) cx, cy, w, h in 0…1, NaN without one;
      class int32 (B,), 1…S, S + 1 error state, −1 no box; cad bool (B,), from a clean render.
    """
    if cad_share and cad is None:
        raise ValueError(
            f"detector.cad={cad_share}, but the shards have no split 'cad'; render CAD pictures or "
            "set it to 0"
        )
    element = _DetectorPicture(source, cad, background, cad_share)
    return _iterate(element, seed, _local_batch(batch, "detector.batch"), workers)
