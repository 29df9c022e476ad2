"""Stage `embed`: every frame of the training and validation split through the encoder, once.

Pictures that repeat the one before, as where a video was brought to a higher frame rate, take no
time of it. With `embed.every`, frames between those that are encoded repeat the one before as well.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from stormpsr_jax.base import files, results
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.base.results import Record
from stormpsr_jax.stages import learning, networks, pretrain
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import SPLITS, Reads, Stage
from stormpsr_jax.training import checkpoint, loop


def run(context: Context) -> dict:
    """Writes WORKDIR/embed/<split>/<recording>.npy, float32 (N, D).

    Recordings are shared out over the hosts, and a finished one is not embedded again.

    Raises:
        MemoryError, OSError: no memory for predict.batch, a full disk; the message says what to do.
    """
    params, batch_stats = checkpoint.load_best(context.workdir / "pretrain")
    batch, every = context.config.predict.batch, context.config.embed.every
    encoder = networks.frame_encoder(context, params, batch_stats, context.clip_source(SPLITS[0]))
    for split in SPLITS:
        source = context.clip_source(split)
        names = list(source.recordings)[jax.process_index() :: jax.process_count()]
        total = sum(source.recordings[name].num_frames for name in names)
        explained = loop.explained(context.workdir / "embed", "predict.batch")
        with explained, Bar(total=total, desc=f"embed {split}", unit="frame") as progress:
            for name in names:
                path, left = context.embedding_path(split, name), source.recordings[name].num_frames
                part_of = context.workdir / "embed" / "completed" / split / name
                if results.holds(part_of, context.workdir, [path]):
                    progress.update(left)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                # Written and not mapped: where the disk is full, a map ends the process.
                with files.replacing(path) as part, part.open("wb") as file:
                    shape = (left, context.config.encoder.hidden)
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    under_way: deque[list[int]] = deque()
                    pictures = distinct(source.chunks(name, batch, every), batch, under_way)
                    for found in encoder.over(pictures):
                        counts = np.asarray(under_way.popleft())
                        held = np.asarray(found, np.float32).repeat(every * counts, axis=0)[:left]
                        file.write(held.tobytes())
                        progress.update(len(held))
                        left -= len(held)
                made = results.checksums(context.workdir, [path])
                results.write(part_of, Record({}, results=made))
    return {}


def distinct(
    chunks: Iterable[tuple[int, np.ndarray]], batch: int, under_way: deque[list[int]]
) -> Iterator[np.ndarray]:
    """Yields pictures, without those that are the very same as the one before.

    Args:
        chunks: (row of the first one, pictures (N, …)), without gaps.
        batch: the most pictures at once.
        under_way: is given how many rows in a row each of the pictures is of, before these come.
    """
    pictures: list[np.ndarray] = []
    counts: list[int] = []
    for image in itertools.chain.from_iterable(images for _, images in chunks):
        if pictures and np.array_equal(image, pictures[-1]):
            counts[-1] += 1
            continue
        if len(pictures) == batch:
            under_way.append(counts)
            yield np.stack(pictures)
            pictures, counts = [], []
        pictures.append(image)
        counts.append(1)
    if pictures:
        under_way.append(counts)
        yield np.stack(pictures)


STAGE = Stage(
    name="embed",
    run=run,
    fields=(
        *learning.PICTURES,
        *learning.ENCODER,
        "embed",
        "!predict.batch",
    ),
    reads=lambda _: [Reads(("pictures",), SPLITS, Context.clip_source)],
    after=lambda _: (pretrain.STAGE,),
    results=("embed/**/*.npy",),
)
