"""Stage `embed`: every frame of the training and validation split through the encoder, once.

Pictures that repeat the one before, as where a video was brought to a higher frame rate, take no
time of it. With `embed.every`, frames between those that are encoded repeat the one before as well.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.base import files, results
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.base.results import Record
from stormpsr_jax.stages import learning, networks, pretrain
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import SPLITS, Reads, Stage
from stormpsr_jax.training import checkpoint, loop


def run(context: Context) -> dict:
    """Writes WORKDIR/embed/<split>/<recording>.<view>.npy, float32 (N, D); view 0 is the plain one.

    Recordings are shared out over the hosts, and a finished one is not embedded again.

    Raises:
        MemoryError, OSError: no memory for embed.batch, a full disk; the message says what to do.
    """
    params, batch_stats = checkpoint.load_best(context.workdir / "pretrain")
    batch, every = context.config.embed.batch, context.config.embed.every
    encoder = networks.frame_encoder(context, params, batch_stats, context.clip_source(SPLITS[0]))
    for split in SPLITS:
        source = context.clip_source(split)
        views = context.num_views(split)
        names = list(source.recordings)[jax.process_index() :: jax.process_count()]
        total = sum(source.recordings[name].num_frames for name in names) * views
        explained = loop.explained(context.workdir / "embed", "batch")
        with explained, Bar(total=total, desc=f"embed {split}", unit="frame") as progress:
            for name in names:
                paths = [context.embedding_path(split, name, view) for view in range(views)]
                part_of = context.workdir / "embed" / "completed" / split / name
                if results.holds(part_of, context.workdir, paths):
                    progress.update(source.recordings[name].num_frames * views)
                    continue
                for view, path in enumerate(paths):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    key = context.key(f"embed/{name}/{view}")
                    # Written and not mapped: where the disk is full, a map ends the process.
                    with files.replacing(path) as part, part.open("wb") as file:
                        left = source.recordings[name].num_frames
                        shape = (left, context.config.encoder.hidden)
                        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(file, header)
                        chunks = source.chunks(name, batch, every)
                        under_way: deque[list[int]] = deque()
                        pictures = _shown(
                            context, key, distinct(chunks, batch), bool(view), under_way
                        )
                        for found in encoder.over(pictures):
                            counts = np.asarray(under_way.popleft())
                            held = np.asarray(found, np.float32).repeat(every * counts, axis=0)
                            held = held[:left]
                            file.write(held.tobytes())
                            progress.update(len(held))
                            left -= len(held)
                made = results.checksums(context.workdir, paths)
                results.write(part_of, Record({}, results=made))
    return {}


def distinct(
    chunks: Iterable[tuple[int, np.ndarray]], batch: int
) -> Iterator[tuple[int, np.ndarray, list[int]]]:
    """Leaves out pictures that are the very same as the one before.

    Args:
        chunks: (row of the first one, pictures (N, …)), without gaps.
        batch: the most pictures at once.

    Yields:
        The row of the first one, pictures, and how many rows in a row each is of.
    """
    row = 0
    pictures: list[np.ndarray] = []
    counts: list[int] = []
    for image in itertools.chain.from_iterable(images for _, images in chunks):
        if pictures and np.array_equal(image, pictures[-1]):
            counts[-1] += 1
            continue
        if len(pictures) == batch:
            yield row, np.stack(pictures), counts
            row, pictures, counts = row + sum(counts), [], []
        pictures.append(image)
        counts.append(1)
    if pictures:
        yield row, np.stack(pictures), counts


def _shown(
    context: Context,
    key: jax.Array,
    parts: Iterable[tuple[int, np.ndarray, list[int]]],
    augmented: bool,
    under_way: deque[list[int]],
) -> Iterator[np.ndarray]:
    """The pictures of parts as the encoder sees them; notes how many rows each is of."""
    for start, images, counts in parts:
        under_way.append(counts)
        rows = start + np.cumsum([0, *counts[:-1]])
        yield _augmented(context, key, rows, images) if augmented else images


def _augmented(
    context: Context, key: jax.Array, rows: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """Pictures (B, H, W, 3), augmented each by a draw of its row, however many are at once."""

    def one(row: jax.Array, image: jax.Array) -> jax.Array:
        return context.augment(jax.random.fold_in(key, row), image[None])[0]

    return np.asarray(jax.vmap(one)(jnp.asarray(rows), jnp.asarray(images))).astype(np.uint8)


STAGE = Stage(
    name="embed",
    run=run,
    fields=(
        *learning.TRAINING,
        *learning.AUGMENTED,
        *learning.ENCODER,
        "embed",
        "!embed.batch",
    ),
    reads=lambda _: [Reads(("pictures",), SPLITS, Context.clip_source)],
    after=lambda _: (pretrain.STAGE,),
    results=("embed/**/*.npy",),
)
