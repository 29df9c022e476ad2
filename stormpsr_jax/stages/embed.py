"""Stage `embed`: every frame of the training and validation split through the encoder, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.features import EmbeddingFile, FeatureSource
from stormpsr_jax.progress import Bar
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stream import Batched
from stormpsr_jax.training import checkpoint, loop

SPLITS = ("train", "val")


def run(context: Context) -> None:
    """Writes WORKDIR/embed/<split>/<recording>.<view>.npy, float32 (N, D); view 0 is the plain one.

    Recordings are shared out over the hosts, and one that is already there is not embedded again.

    Raises:
      MemoryError, OSError: no memory for embed.batch, a full disk; the message says what to do.
    """
    folder = context.workdir / "embed"
    with loop.explained(folder, "batch"):
        _run(context, folder)


def _run(context: Context, folder: Path) -> None:
    params, batch_stats = checkpoint.load_best(context.workdir / "pretrain")
    batch = context.config.embed.batch
    encoder = context.frame_encoder(params, batch_stats, batch)
    for split in SPLITS:
        source = context.source(split)
        views = 1 + (context.config.embed.views if split == "train" else 0)
        names = list(source.recordings)[jax.process_index() :: jax.process_count()]
        total = sum(source.recordings[name].num_frames for name in names) * views
        (folder / split).mkdir(parents=True, exist_ok=True)
        with Bar(total=total, desc=f"embed {split}", unit="frame") as progress:
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


def chunks(
    source: ClipSource | FeatureSource, name: str, batch: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (row of the first frame, ≤ batch frames) along a recording.

    The frames are pictures uint8 (B, H, W, 3), or embeddings (B, D) where the source has these.
    """
    numbers = frame_numbers(source, name)
    for start in range(0, len(numbers), batch):
        yield start, source.frames(name, numbers[start : start + batch])


def frame_numbers(source: ClipSource | FeatureSource, name: str) -> np.ndarray:
    """(N,) frame numbers of a recording's rows."""
    recording = source.recordings[name]
    step = source.stride if isinstance(source, FeatureSource) else 1
    return recording.first_frame + step * np.arange(recording.num_frames)


def embed_recording(encoder: Batched, source: ClipSource, name: str) -> np.ndarray:
    """The embeddings (N, D) of one recording."""
    return np.concatenate([encoder(images) for _, images in chunks(source, name, encoder.batch)])


def load(context: Context, split: str) -> dict[str, list[EmbeddingFile]]:
    """{recording: its views (N, D)}, as `run` left them or as they came ready-made."""
    source = context.source(split)
    if isinstance(source, FeatureSource):
        return {name: [file] for name, file in source.embeddings.items()}
    folder = context.workdir / "embed"
    views = 1 + (context.config.embed.views if split == "train" else 0)
    loaded = {}
    for name, recording in source.recordings.items():
        wanted = (recording.num_frames, context.config.encoder.hidden)
        loaded[name] = []
        for view in range(views):
            path = _path(folder, split, name, view)
            try:
                file = EmbeddingFile(path)
                if file.shape != wanted:
                    raise ValueError(f"it holds {file.shape}, expected {wanted}")
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{path} cannot be read ({error}); delete it with "
                    f"{folder / 'done.json'} and run the same command again"
                ) from error
            loaded[name].append(file)
    return loaded


def _path(folder: Path, split: str, name: str, view: int) -> Path:
    return folder / split / f"{name}.{view}.npy"
