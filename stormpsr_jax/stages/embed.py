"""Stage `embed`: every frame of the training and validation split through the encoder, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stream import Batched
from stormpsr_jax.training import checkpoint

SPLITS = ("train", "val")


def run(context: Context) -> None:
    """Writes WORKDIR/embed/<split>/<recording>.<view>.npy, float32 (N, D); view 0 is the plain one.

    Recordings are shared out over the hosts, and one that is already there is not embedded again.
    """
    folder = context.workdir / "embed"
    params, batch_stats = checkpoint.load_best(context.workdir / "pretrain")
    batch = context.config.embed.batch
    encoder = context.frame_encoder(params, batch_stats, batch)
    for split in SPLITS:
        source = context.source(split)
        views = 1 + (context.config.embed.views if split == "train" else 0)
        names = list(source.recordings)[jax.process_index() :: jax.process_count()]
        total = sum(source.recordings[name].num_frames for name in names) * views
        (folder / split).mkdir(parents=True, exist_ok=True)
        with tqdm(total=total, desc=f"embed {split}", unit="frame", smoothing=0.05) as progress:
            for name in names:
                recording = source.recordings[name]
                for view in range(views):
                    path = _path(folder, split, name, view)
                    if path.exists():
                        progress.update(recording.num_frames)
                        continue
                    part = path.with_suffix(".part")
                    shape = (recording.num_frames, context.config.encoder.hidden)
                    out = np.lib.format.open_memmap(part, "w+", np.float32, shape)
                    key = context.key(f"embed/{name}/{view}")
                    for start, images in chunks(source, name, batch):
                        if view:
                            shaken = context.augment(jax.random.fold_in(key, start), images)
                            images = np.asarray(shaken).astype(np.uint8)
                        out[start : start + len(images)] = encoder(images)
                        progress.update(len(images))
                    out.flush()
                    part.rename(path)


def chunks(source: ClipSource, name: str, batch: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index of the first frame, pictures uint8 (≤ batch, H, W, 3)) along a recording."""
    recording = source.recordings[name]
    for start in range(0, recording.num_frames, batch):
        stop = min(start + batch, recording.num_frames)
        numbers = range(recording.first_frame + start, recording.first_frame + stop)
        yield start, source.frames(name, numbers)


def embed_recording(encoder: Batched, source: ClipSource, name: str) -> np.ndarray:
    """The embeddings (N, D) of one recording."""
    return np.concatenate([encoder(images) for _, images in chunks(source, name, encoder.batch)])


def load(context: Context, split: str) -> dict[str, list[np.ndarray]]:
    """{recording: its views (N, D), memory-mapped} as `run` left them."""
    folder = context.workdir / "embed"
    source = context.source(split)
    views = 1 + (context.config.embed.views if split == "train" else 0)
    loaded = {}
    for name, recording in source.recordings.items():
        loaded[name] = []
        for view in range(views):
            path = _path(folder, split, name, view)
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{path} cannot be read ({error}); delete it with "
                    f"{folder / 'done.json'} and run the same command again"
                ) from error
            if array.shape != (recording.num_frames, context.config.encoder.hidden):
                raise ValueError(
                    f"{path} holds {array.shape}, expected "
                    f"{(recording.num_frames, context.config.encoder.hidden)}; delete it with "
                    f"{folder / 'done.json'} and run the same command again"
                )
            loaded[name].append(array)
    return loaded


def _path(folder: Path, split: str, name: str, view: int) -> Path:
    return folder / split / f"{name}.{view}.npy"
