"""Pictures and clip shards that several benchmarks read, and how fast something is read."""

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from data_prep.writing import shards
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.pictures import SUBSAMPLING
from stormpsr_jax.psr.procedure import Procedure

QUALITY = 90  # of the JPEG files of a source


def smooth_picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Coarse shapes with finer and fainter ones on them, no noise between pixels.

    Its JPEG file is as large as that of a photograph.
    """
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64, 256):
        grid = rng.normal(0, 60 / np.sqrt(cells), (cells, cells, 3)).astype(np.float32)
        channels = [
            Image.fromarray(grid[..., c]).resize((width, height), Image.Resampling.BICUBIC)
            for c in range(3)
        ]
        picture += np.stack([np.asarray(channel) for channel in channels], -1)
    return Image.fromarray(np.clip(128 + picture, 0, 255).astype(np.uint8))


def smooth_jpegs(count: int, size: int, seed: int = 0) -> list[bytes]:
    """JPEG files of different smooth pictures of size x size, as `data_prep` stores them."""
    rng, quality = np.random.default_rng(seed), Framing((size, size)).quality
    pictures = (np.asarray(smooth_picture(rng, size, size)) for _ in range(count))
    return [simplejpeg.encode_jpeg(p, quality, "RGB", SUBSAMPLING, fastdct=False) for p in pictures]


def write_shards(
    out: Path,
    procedure: Procedure,
    recordings: Sequence[Sequence[bytes | Path]],
    frames: int,
    size: int,
    **options,
) -> ClipSource:
    """Clip shards of the split train, in which one component is installed halfway.

    Args:
        out: the folder.
        procedure: of the labels.
        recordings: of each the JPEG files, which come again and again.
        frames: of each.
        size: of the pictures, both ways.
        options: those of `shards.build`.
    """
    states = np.zeros((frames, procedure.num_components), np.int8)
    states[frames // 2 :, 0] = 1

    def make(split: str, name: str) -> shards.RecordingData:
        del split
        files = itertools.islice(itertools.cycle(recordings[int(name)]), frames)
        return shards.RecordingData(
            name=name,
            first_frame=0,
            jpegs=(file.read_bytes() if isinstance(file, Path) else file for file in files),
            states=states,
            boxes=np.full((frames, 4), np.nan),
            classes=np.full(frames, -1),
            visible=np.full(frames, np.nan),
        )

    shards.build(
        out,
        procedure=procedure,
        fps=procedure.fps,
        image_size=(size, size),
        splits={"train": [str(i) for i in range(len(recordings))]},
        make=make,
        **options,
    )
    return ClipSource(out, "train", procedure)


def rates(counts: Iterator[int], seconds: float) -> tuple[float, float]:
    """What an iterator counts, per second of wall-clock and of CPU time of this process.

    Its first count, for which threads start, is left out; it is closed at the end.
    """
    next(counts)
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        count += next(counts)
    result = count / (time.perf_counter() - wall), count / (time.process_time() - cpu)
    counts.close()
    return result
