"""One grain pipeline per training stage: index → draw → pictures or embeddings → batch.

An element is a function of (seed, index) alone, so batches are the same for any number of loader
processes and hosts, and no loader repeats another's draws. Each host builds its own rows of the
global batch. A pipeline is a function step → iterator over the batches from there on: starting it
at a step is all that resuming takes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

import grain
import jax
import numpy as np
from absl import flags

from stormpsr_jax.base import memory
from stormpsr_jax.base.interruption import deaf_to_ctrl_c, exit_with_parent
from stormpsr_jax.data import sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.folder import EMPTY, NOT_ANNOTATED, LabelledFrames

ENDLESS = 2**40  # elements; a pipeline never ends before its stage does

# Batches in memory at once: those loaded ahead, and the one in use.
_LOADED_BATCHES = 5

Groups = dict[int, list[tuple[str, np.ndarray]]]  # {group: [(recording, indices of frames)]}


class BatchIterator(Iterator[dict[str, np.ndarray]], Protocol):
    """An iterator over batches, fields by name."""

    def close(self) -> None:
        """Ends what loads them ahead, as generators have it."""


Batches = Callable[[int], BatchIterator]  # step → those of the steps after it


class _HostRows(grain.MapDataset):
    """Of every `batch` elements of a data set, the `rows` from `first` on."""

    def __init__(self, parent: grain.MapDataset, batch: int, first: int, rows: int):
        super().__init__(parent)
        self._batch, self._first, self._rows = batch, first, rows

    def __len__(self) -> int:
        return len(self._parent) // self._batch * self._rows

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, self._rows)
        return self._parent[batch * self._batch + self._first + row]


def of_elements(
    element: Callable[[int, np.random.Generator], dict], seed: int, batch: int, workers: int
) -> Batches:
    """Makes batches of `batch` elements that `element` draws, of which this host has its share."""
    rows = batch // jax.process_count()
    dataset = grain.MapDataset.range(ENDLESS).seed(seed).random_map(element)
    row_bytes = sum(array.nbytes for array in dataset[0].values())
    if jax.process_count() > 1:
        dataset = _HostRows(dataset, batch, jax.process_index() * rows, rows)
    return batches(dataset.batch(rows, drop_remainder=True), workers, rows * row_bytes)


def batches(dataset: grain.MapDataset, workers: int, num_bytes: int) -> Batches:
    """The elements of a data set as batches, loaded ahead by threads or `workers` processes.

    To start them raises MemoryError if batches of `num_bytes` have no room: they would be put
    together row by row until the system ends the process.
    """

    def start(step: int) -> BatchIterator:
        memory.check_fits(_LOADED_BATCHES * num_bytes, "loading batches ahead")
        threads = grain.ReadOptions(num_threads=2, prefetch_buffer_size=_LOADED_BATCHES - 1)
        iterable = dataset[step:].to_iter_dataset(threads)
        if not workers:
            return iter(iterable)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain hands those of absl to its workers
        options = grain.MultiprocessingOptions(num_workers=workers)
        return _from_workers(iterable.mp_prefetch(options, worker_init_fn=exit_with_parent))

    return start


def _from_workers(dataset: grain.IterDataset) -> Generator[dict[str, np.ndarray], None, None]:
    iterator = iter(dataset)
    try:
        with deaf_to_ctrl_c():
            first = [next(iterator)]  # starts the workers
        yield first.pop()  # not kept, as it is in shared memory
        yield from iterator
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        raise ChildProcessError(
            "a process that loads data died (killed, or no memory or /dev/shm left?); run the same "
            "command again, perhaps with fewer --config.data.workers, or a container with "
            "--shm-size=16g"
        ) from error
    finally:
        iterator.close()


def _key_frame_batch(
    sources: Sequence[ClipSource],
    sampler: sampling.KeyFrameSampler,
    rows: slice,
    _: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """This host's rows of one KFS batch, which every host draws alike, of pictures and renders."""
    picked = sampler.draw(rng)[rows]
    images, states = [], []
    for p in picked:
        source = sources[p.cad]
        images.append(source.rows(p.recording, [p.index])[0])
        states.append(sampling.binarise(source.recordings[p.recording].states[p.index]))
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
) -> Batches:
    """Batches for stage `pretrain`.

    Yields:
        image uint8 (B, H, W, 3); label int32 (B,), state 1…S or −1; state float32 (B, K) in {0, 1};
        cad bool (B,), from a clean render. Frames from anywhere stand last.
    """
    if cad is not None:
        _check_size(source, cad)
    rows = sampler.batch_size // jax.process_count()
    own = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
    sources = (source, cad or source)  # without renders, the sampler picks none
    element = functools.partial(_key_frame_batch, sources, sampler, own)
    dataset = grain.MapDataset.range(ENDLESS).seed(seed).random_map(element)
    return batches(dataset, workers, rows * 3 * math.prod(source.image_size))


def _check_size(source: ClipSource, cad: ClipSource) -> None:
    if cad.image_size != source.image_size:
        raise ValueError(
            f"{cad.directory}: the CAD pictures are {cad.image_size} pixels (H, W), those of the "
            f"recordings {source.image_size}; render them anew with --size, or set .image_size of "
            "the network to what both can be made of"
        )


def _clip(
    source: ClipSource,
    sampler: sampling.ClipSampler,
    frames: int,
    stride: int,
    _: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    name, last = sampler.draw(rng)
    states = source.recordings[name].states
    image = source.rows(name, sampling.window_frames(last, frames=frames, stride=stride))
    label = sampling.clip_labels(states, last, frames=frames)
    return {"image": image, "label": np.float32(label), "state": states[last]}


def picture_clips(
    source: ClipSource,
    sampler: sampling.ClipSampler,
    *,
    frames: int,
    stride: int,
    batch: int,
    seed: int,
    workers: int = 0,
) -> Batches:
    """Batches for stage `finetune`.

    Yields:
        image uint8 (B, T, H, W, 3), T = frames / stride + 1; label float32 (B, K);
        state int8 (B, K) in {-1, 0, 1}, of the last frame.
    """
    element = functools.partial(_clip, source, sampler, frames, stride)
    return of_elements(element, seed, batch, workers)


@dataclasses.dataclass(eq=False)
class _DetectorPicture:
    """Index → one picture with its box and class; fields as of `detector_pictures`."""

    source: ClipSource
    cad: ClipSource | None
    background: float
    unboxed_share: float
    cad_share: float
    cad_wrong: float

    def __post_init__(self) -> None:
        source, cad = self.source, self.cad
        self._all = _groups(source, lambda r: {0: np.arange(r.num_frames)})
        self._wrong, self._boxed = _groups(source, _wrong), _groups(source, _boxed)
        self._boxed_cad: Groups = {}
        self._wrong_cad: Groups = {}
        if cad is not None and self.cad_share:
            error = source.procedure.error_class
            self._boxed_cad = {c: rows for c, rows in _groups(cad, _boxed).items() if c != error}
            # Hidden ones too: they teach that what cannot be seen is not known to sit right.
            self._wrong_cad = _groups(cad, _wrong)
        # Most of them show the object partly hidden.
        self._empty = _groups(source, lambda r: {EMPTY: np.flatnonzero(r.classes == EMPTY)})
        if not self._boxed:
            raise ValueError(
                "no frame of the training split has a box of a catalogued or error state: the "
                "detector has nothing to learn from; drop 'detector' from stages or label boxes"
            )

    def check_renders(self, with_poses: bool) -> None:
        """Raises ValueError if renders do not show what is to be learnt from them."""
        assert self.cad is not None
        lacking = []
        if self.cad_wrong and not self._wrong_cad:
            lacking.append(
                "shows an incorrect installation, which detector.cad_wrong asks for; render some "
                "with data_prep.synthetic --cad_wrong=N"
            )
        if self.cad_wrong < 1 and not self._boxed_cad:
            lacking.append(
                "shows a state with all parts correct and a box around it, which detector.cad asks "
                "for; render some with data_prep.synthetic --cad_per_state=N, or set detector.cad "
                "to 0"
            )
        recordings = self.cad.recordings.values()
        if with_poses and not any(np.isfinite(r.poses).any() for r in recordings):
            lacking.append(
                "says how the product lies in it, which detector.pose_loss asks for; render them "
                "again, or set it to 0"
            )
        if lacking:
            raise ValueError("\n".join(f"{self.cad.directory}: no render {w}" for w in lacking))

    def __call__(self, _: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        kind = rng.random()
        source, groups, parts_alone = self.source, self._boxed, False
        if kind < self.background:
            groups = self._empty or self._boxed
        elif kind < self.background + self.unboxed_share:
            groups = self._wrong if self._wrong and rng.random() < 0.5 else self._all
            parts_alone = True
        elif self.cad is not None and kind >= 1 - self.cad_share:
            source = self.cad
            groups = self._wrong_cad if rng.random() < self.cad_wrong else self._boxed_cad
        # A group, a recording, a frame, each uniformly: neither states that last long nor parts
        # that go on early, which most pictures show, dominate.
        keys = list(groups)
        names = groups[keys[rng.integers(len(keys))]]
        name, frames = names[rng.integers(len(names))]
        index = int(rng.choice(frames))
        recording = source.recordings[name]
        return {
            "image": source.rows(name, [index])[0],
            "box": np.asarray(recording.boxes[index], np.float32),
            "class": np.int32(NOT_ANNOTATED if parts_alone else recording.classes[index]),
            "state": recording.states[index],
            "pose": np.asarray(recording.poses[index], np.float32),
            "cad": np.bool_(source is self.cad),
        }


def _groups(source: ClipSource, rows_of: Callable[[Any], dict[int, np.ndarray]]) -> Groups:
    """{group: [(recording, indices of its frames)]}, of those that `rows_of` finds in each."""
    groups: Groups = {}
    for name, recording in source.recordings.items():
        for group, rows in rows_of(recording).items():
            if len(rows):
                groups.setdefault(group, []).append((name, rows))
    return groups


def _wrong(r: LabelledFrames) -> dict[int, np.ndarray]:
    return {k: np.flatnonzero(wrong) for k, wrong in enumerate((r.states == -1).T)}


def _boxed(r: LabelledFrames) -> dict[int, np.ndarray]:
    """By class, the boxed frames; class 0 (uncatalogued) is left out."""
    labels = np.unique(r.classes[r.classes > 0]).tolist()
    return {label: np.flatnonzero(r.classes == label) for label in labels}


def detector_pictures(
    source: ClipSource,
    cad: ClipSource | None,
    *,
    background: float,
    unboxed_share: float,
    cad_share: float,
    cad_wrong: float,
    batch: int,
    seed: int,
    workers: int = 0,
    with_poses: bool = False,
) -> Batches:
    """Batches for stage `detector`.

    Args:
        background: share of the batch from frames annotated as empty; if there are none, they have
            boxes too.
        unboxed_share: share of the batch from any frames of recordings, every other one with a part
            that is incorrect where there are such; only the parts' conditions are learnt from them.
        cad_share, cad_wrong: share from clean renders, and of those that show incorrect parts.
        with_poses: whether renders have to tell how the product lies.

    Yields:
        image uint8 (B, H, W, 3); box float32 (B, 4) cx, cy, w, h in 0…1, NaN without one;
        class int32 (B,), 1…S, S + 1 error state, −1 empty, −2 from anywhere; state int8 (B, K) in
        {-1, 0, 1}; pose float32 (B, 6), NaN where unknown; cad bool (B,), from a clean render.
    """
    if (total := background + unboxed_share + cad_share) > 1:
        raise ValueError(
            f"--config.detector.background={background}, .unboxed_share={unboxed_share}, "
            f".cad={cad_share}: are shares of a batch, and {total:g} is more than all of it"
        )
    element = _DetectorPicture(source, cad, background, unboxed_share, cad_share, cad_wrong)
    if cad is not None:
        _check_size(source, cad)
        element.check_renders(with_poses)
    return of_elements(element, seed, batch, workers)
