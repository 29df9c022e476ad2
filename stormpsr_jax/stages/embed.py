"""Stage `embed`: every frame of the training and validation split through the encoder, once."""

from __future__ import annotations

from typing import BinaryIO

import jax
import numpy as np

from stormpsr_jax import files
from stormpsr_jax.progress import Bar
from stormpsr_jax.stages import completed, networks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import checkpoint, loop

SPLITS = ("train", "val")


def run(context: Context) -> dict:
    """Writes WORKDIR/embed/<split>/<recording>.<view>.npy, float32 (N, D); view 0 is the plain one.

    Recordings are shared out over the hosts, and a finished one is not embedded again.

    Raises:
      MemoryError, OSError: no memory for embed.batch, a full disk; the message says what to do.
    """
    with loop.explained(context.workdir / "embed", "batch"):
        _run(context)
    return {}


def _run(context: Context) -> None:
    params, batch_stats = checkpoint.load_best(context.workdir / "pretrain")
    batch = context.config.embed.batch
    encoder = networks.frame_encoder(context, params, batch_stats, context.source(SPLITS[0]))
    for split in SPLITS:
        source = context.source(split)
        views = context.num_views(split)
        names = list(source.recordings)[jax.process_index() :: jax.process_count()]
        total = sum(source.recordings[name].num_frames for name in names) * views
        with Bar(total=total, desc=f"embed {split}", unit="frame") as progress:
            for name in names:
                paths = [context.embedding_path(split, name, view) for view in range(views)]
                if completed.holds(context.workdir, "embed", split, name, paths):
                    progress.update(source.recordings[name].num_frames * views)
                    continue
                for view, path in enumerate(paths):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    key = context.key(f"embed/{name}/{view}")
                    # Written and not mapped: where the disk is full, a map ends the process.
                    with files.replacing(path) as part, part.open("wb") as file:
                        _write_header(file, source.recordings[name].num_frames, context)
                        for start, images in source.chunks(name, batch):
                            if view:
                                shaken = context.augment(jax.random.fold_in(key, start), images)
                                images = np.asarray(shaken).astype(np.uint8)
                            file.write(np.asarray(encoder(images), np.float32).tobytes())
                            progress.update(len(images))
                completed.add(context.workdir, "embed", split, name, paths)


def _write_header(file: BinaryIO, num_frames: int, context: Context) -> None:
    shape = (num_frames, context.config.encoder.hidden)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
