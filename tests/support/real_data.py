"""A data folder as data_prep.own leaves one of labelled real recordings: grey pictures."""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import simplejpeg

from data_prep.writing import shards
from stormpsr_jax.recordings.procedure import Procedure


def _recording(
    split: str, name: str, *, procedure: Procedure, frames: int, size: int, boxed: bool
) -> shards.RecordingData:
    """Parts are put on in turn, each for as long as the next; `name` ends with its grey level."""
    (variant,) = procedure.variants.values()
    steps = list(variant.expected)
    states = np.zeros((frames, procedure.num_components), np.int8)
    for i, step in enumerate(steps, start=1):
        states[i * frames // (len(steps) + 1) :, step // 3] = 1
    level = np.full((size, size, 3), int(name.rpartition("_")[2]), np.uint8)
    boxes = np.tile(np.float32((0.5, 0.5, 0.6, 0.4)), (frames, 1))
    classes = procedure.state_classes(states)
    if not boxed:
        boxes[:], classes = np.nan, np.full(frames, -2)
    return shards.RecordingData(
        name,
        0,
        iter([simplejpeg.encode_jpeg(level)] * frames),
        states,
        boxes,
        classes,
        np.full(frames, np.nan),
    )


def write(
    folder: Path,
    procedure: Procedure,
    counts: Mapping[str, int],
    *,
    name: str = "bench",
    frames: int = 40,
    size: int = 32,
    boxed: bool = True,
    aspect: str = "stretch",
) -> Path:
    """Writes so many recordings of each split, `bench_000` first; returns the folder."""
    numbers = iter(range(sum(counts.values())))
    splits = {s: [f"{name}_{next(numbers):03d}" for _ in range(n)] for s, n in counts.items()}
    shards.build(
        folder,
        procedure=procedure,
        image_size=(size, size),
        splits=splits,
        make=functools.partial(
            _recording, procedure=procedure, frames=frames, size=size, boxed=boxed
        ),
        settings={"aspect": aspect},
    )
    return folder
