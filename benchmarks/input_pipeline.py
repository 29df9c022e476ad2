"""How fast are training clips served, against loaders that open picture files?

python benchmarks/input_pipeline.py [--rounds=3] [--seconds=10] [--frames=2000] [--recordings=4]

Makes its own data in a temporary folder: smooth pictures of 1920x1080 whose JPEG files are as large
as those of photographs, the same pictures at 224x224, clip shards of these, and embeddings. Each
loader serves batches of windows, 65 frames, every 4th of 257 (window.frames=256, window.stride=4),
that end at random frames of random recordings:

* shards: `pipelines.picture_clips`, as stage `finetune` does;
* 1080p files: opens 65 JPEG files of 1920x1080 a window with Pillow and resizes them to 224x224
  (bilinear, antialiased), as is done in training on the data as shipped;
* 224 files: opens 65 JPEG files that have 224x224 already;
* embeddings: `pipelines.embedded_clips` on memory-mapped files, as stage `temporal` does, against
  218 clips a second, which the released code's data set class was measured to give.

All have two threads in one process and read from the page cache. Clips a second of wall-clock time
and of CPU time; the median of the rounds, in which the loaders take turns. Targets: shards at least
20 times the 1080p files, embeddings at least 20 times 218.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from made_up import QUALITY, rates, smooth_picture, write_shards
from PIL import Image

from stormpsr_jax.data import pipelines, sampling
from stormpsr_jax.data.features import EmbeddingFile
from stormpsr_jax.psr.procedure import load_procedure

SPAN, STRIDE, SIZE = 256, 4, 224
THREADS = 2  # those that pipelines.batches gives a pipeline
RELEASED = 218  # embedding clips a second of the released code's data set class (2-core CPU)
PROCEDURE = load_procedure("meccano")


def write_files(folder: Path, args) -> dict[str, list[list[Path]]]:
    """JPEG files of every recording's frames; only `args.pictures` of them are different ones."""
    rng = np.random.default_rng(0)
    files: dict[str, list[list[Path]]] = {"1080p": [], "224": []}
    originals: dict[str, list[Path]] = {"1080p": [], "224": []}
    for i in range(args.pictures):
        large = smooth_picture(rng, args.width, args.height)
        small = large.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        for kind, picture in (("1080p", large), ("224", small)):
            path = folder / f"{kind}-{i}.jpg"
            picture.save(path, quality=QUALITY)
            originals[kind].append(path)
    for kind, recording in itertools.product(files, range(args.recordings)):
        to = folder / kind / str(recording)
        to.mkdir(parents=True)
        files[kind].append([to / f"{frame:05d}.jpg" for frame in range(args.frames)])
        for frame, path in enumerate(files[kind][-1]):
            os.link(originals[kind][(frame + recording) % args.pictures], path)
    return files


def write_embeddings(folder: Path, args) -> dict[str, list[EmbeddingFile]]:
    files = {}
    for i in range(args.recordings):
        rows = np.random.default_rng(i).normal(size=(args.frames, args.embedding_width))
        np.save(folder / f"{i}.npy", rows.astype(np.float32))
        files[str(i)] = [EmbeddingFile(folder / f"{i}.npy")]
    return files


def open_files(paths: list[Path]) -> np.ndarray:
    """One window from picture files, uint8 (T, H, W, 3)."""
    pictures = []
    for path in paths:
        with Image.open(path) as file:
            picture = file.convert("RGB")
        if picture.size != (SIZE, SIZE):
            picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def file_batches(files: list[list[Path]], batch: int) -> Iterator[int]:
    """Yields the number of windows of each batch, which two threads fill."""
    rng = np.random.default_rng(0)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        while True:
            windows = []
            for _ in range(batch):
                paths = files[rng.integers(len(files))]
                last = int(rng.integers(len(paths)))
                rows = sampling.window_frames(last, frames=SPAN, stride=STRIDE)
                windows.append([paths[row] for row in rows])
            yield len(np.stack(list(pool.map(open_files, windows))))


def pipeline_batches(batches: pipelines.Batches, field: str) -> Iterator[int]:
    data = batches(0)
    try:
        for batch in data:
            yield len(batch[field])
    finally:
        data.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="the median is reported")
    add("--seconds", type=float, default=10, help="of each loader in each round, at least")
    add("--recordings", type=int, default=4)
    add("--frames", type=int, default=2000, help="per recording")
    add("--pictures", type=int, default=32, help="different ones; the others are links to them")
    add("--width", type=int, default=1920)
    add("--height", type=int, default=1080)
    add("--embedding_width", type=int, default=128)
    add("--batch", type=int, default=2, help="windows of pictures in a batch")
    add("--embedding_batch", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_files(folder, args)
        source = write_shards(folder / "shards", PROCEDURE, files["224"], args.frames, SIZE)
        embeddings = write_embeddings(folder, args)
        sampler = sampling.ClipSampler(source.recordings, sampling="uniform")
        states = {name: r.states for name, r in source.recordings.items()}
        window = {"frames": SPAN, "stride": STRIDE, "seed": 0}
        loaders = {
            "shards": lambda: pipeline_batches(
                pipelines.picture_clips(source, sampler, batch=args.batch, **window), "image"
            ),
            "1080p files": lambda: file_batches(files["1080p"], args.batch),
            "224 files": lambda: file_batches(files["224"], args.batch),
            "embeddings": lambda: pipeline_batches(
                pipelines.embedded_clips(
                    embeddings, states, sampler, batch=args.embedding_batch, **window
                ),
                "embeddings",
            ),
        }
        measured = {loader: [] for loader in loaders}
        for _, loader in itertools.product(range(args.rounds), loaders):
            measured[loader].append(rates(loaders[loader](), args.seconds))
        size = statistics.mean(path.stat().st_size for path in files["1080p"][0])
    medians = {
        loader: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for loader, rows in measured.items()
    }
    print(
        f"{os.cpu_count()} CPU cores, {args.width}x{args.height} files of {size / 1024:.0f} KiB, "
        f"median of {args.rounds} rounds\n"
    )
    print("| loader | clips/s | clips per CPU second |\n|---|---|---|")
    for loader, (wall, cpu) in medians.items():
        print(f"| {loader} | {wall:,.1f} | {cpu:,.1f} |")
    print("\n| ratio | of clips/s | of clips per CPU second | target |\n|---|---|---|---|")
    for other, target in (("1080p files", "≥ 20"), ("224 files", "")):
        ratios = (a / b for a, b in zip(medians["shards"], medians[other], strict=True))
        print(f"| shards / {other} | {' | '.join(f'{r:.1f}' for r in ratios)} | {target} |")
    print(f"| embeddings / released code | {medians['embeddings'][0] / RELEASED:.1f} | – | ≥ 20 |")


if __name__ == "__main__":
    main()
