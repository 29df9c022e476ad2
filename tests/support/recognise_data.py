import csv
from pathlib import Path

import av
import numpy as np
import simplejpeg

from stormpsr_jax import recognise
from tests.support import videos

HEIGHT, WIDTH = 48, 64
COUNT = 75
# Uneven: at 10 frames/s some pictures are repeated, and others are left out.
TIMES = np.cumsum(np.random.default_rng(0).uniform(0.03, 0.16, COUNT)).round(3)
TIMES -= TIMES[0]


def write_video(path: Path, pictures: np.ndarray, times: np.ndarray) -> Path:
    """Pictures (N, H, W, 3) shown from these times on, in seconds."""
    return videos.write(path, pictures, times, fps=30)


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def write_pictures(folder: Path, pictures: np.ndarray, first: int) -> Path:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), 95)
        (folder / f"{first + i:05d}.jpg").write_bytes(jpeg)
    return folder


def run(model: Path, *words) -> int:
    try:
        return recognise.main([f"--model={model}", *map(str, words)])
    except SystemExit as error:
        return error.code


def by_the_clock(path) -> np.ndarray:
    """The pictures of a video at 10 frames a second: the last one at or before each instant."""
    pictures = decoded(path)
    num = int(np.floor(TIMES[-1] * 10 + 1e-6)) + 1
    return pictures[[np.flatnonzero(TIMES <= i / 10 + 1e-3)[-1] for i in range(num)]]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "events.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def found(folder: Path) -> list[tuple[int, int]]:
    return [(int(row["frame"]), int(row["step_id"])) for row in rows_of(folder)]
