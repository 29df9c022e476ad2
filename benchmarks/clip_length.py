"""How many frames should a record of the clip shards hold?

python benchmarks/clip_length.py [--rounds=5] [--frames=2000] [--recordings=8]

Writes the same recordings with 1, 16, 32 and 64 frames a record and times the three ways in which
training reads them, through ClipSource, decoding included, with the files in the page cache and in
seconds of CPU time (nothing waits for a disk, and other load on the machine counts little):

* random: single images of random recordings (KFS);
* window: 65 images, every 4th of 257 frames that end at a random frame (end-to-end training);
* sequential: every frame of every recording, 64 at a time (embedding).

The choice is the length whose worst ratio to the best is the highest.

Result (idle 2-core CPU, median of 5 rounds, items per CPU second and ratio to the best):

| pattern | image | 1 a record | 16 a record | 32 a record | 64 a record |
|---|---|---|---|---|---|
| random | 64 px | 13,207 (1.00) | 11,483 (0.87) | 10,333 (0.78) | 8,369 (0.63) |
| random | 224 px | 3,772 (1.00) | 3,120 (0.83) | 2,690 (0.71) | 2,090 (0.55) |
| window | 64 px | 311 (0.64) | 429 (0.89) | 483 (1.00) | 485 (1.00) |
| window | 224 px | 64 (1.00) | 63 (0.98) | 63 (0.99) | 62 (0.97) |
| sequential | 64 px | 21,951 (0.57) | 35,346 (0.92) | 36,464 (0.95) | 38,240 (1.00) |
| sequential | 224 px | 4,223 (0.90) | 4,598 (0.98) | 4,655 (0.99) | 4,700 (1.00) |
| worst ratio | | 0.57 | 0.83 | 0.71 | 0.55 |

Chosen: 16.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from made_up import smooth_jpegs, write_shards

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.procedure import load_procedure

CLIP_LENGTHS = (1, 16, 32, 64)
IMAGE_SIZES = (64, 224)
SPAN, STRIDE = 256, 4  # w and stride of the paper


def random_images(source: ClipSource, rng: np.random.Generator, args) -> Iterator[int]:
    names = list(source.recordings)
    for _ in range(args.items):
        name = names[rng.integers(len(names))]
        yield len(source.frames(name, [rng.integers(args.frames)]))


def windows(source: ClipSource, rng: np.random.Generator, args) -> Iterator[int]:
    names = list(source.recordings)
    for _ in range(args.items // 50):
        last = rng.integers(SPAN, args.frames)
        name = names[rng.integers(len(names))]
        source.frames(name, range(last - SPAN, last + 1, STRIDE))
        yield 1


def sequential(source: ClipSource, rng: np.random.Generator, args) -> Iterator[int]:
    del rng
    for name in list(source.recordings)[: max(1, args.items // args.frames)]:
        for first in range(0, args.frames, 64):
            yield len(source.frames(name, range(first, min(first + 64, args.frames))))


PATTERNS = {"random": random_images, "window": windows, "sequential": sequential}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="the median is reported")
    parser.add_argument("--frames", type=int, default=2000, help="per recording")
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--items", type=int, default=4000, help="images read per measurement")
    args = parser.parse_args()
    procedure = load_procedure("industreal")
    rates, sources = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for size, length in itertools.product(IMAGE_SIZES, CLIP_LENGTHS):
            recordings = args.recordings * [smooth_jpegs(100, size)]
            out = Path(folder, f"{size}-{length}")
            sources[size, length] = write_shards(
                out, procedure, recordings, args.frames, size, clip_length=length
            )
        # Rounds outermost: whatever else slows the machine for a while hits every length.
        for seed, (pattern, read), (key, source) in itertools.product(
            range(args.rounds + 1), PATTERNS.items(), sources.items()
        ):
            start = time.process_time()
            count = sum(read(source, np.random.default_rng(seed), args))
            rate = count / (time.process_time() - start)
            if seed:  # round 0 fills the page cache
                rates.setdefault((pattern, *key), []).append(rate)
    medians = {key: statistics.median(values) for key, values in rates.items()}
    cores = os.cpu_count()
    print(f"{cores} CPU cores, median of {args.rounds} rounds, items per CPU second (ratio)\n")
    print("| pattern | image | " + " | ".join(f"{n} a record" for n in CLIP_LENGTHS) + " |")
    print("|---" * (2 + len(CLIP_LENGTHS)) + "|")
    ratios = {length: [] for length in CLIP_LENGTHS}
    for pattern, size in itertools.product(PATTERNS, IMAGE_SIZES):
        row = [medians[pattern, size, length] for length in CLIP_LENGTHS]
        for length, rate in zip(CLIP_LENGTHS, row, strict=True):
            ratios[length].append(rate / max(row))
        cells = " | ".join(f"{rate:,.0f} ({rate / max(row):.2f})" for rate in row)
        print(f"| {pattern} | {size} px | {cells} |")
    print("| worst ratio | | " + " | ".join(f"{min(r):.2f}" for r in ratios.values()) + " |")
    print(f"\nchosen: {max(ratios, key=lambda n: min(ratios[n]))} frames a record")


if __name__ == "__main__":
    main()
