"""What do larger pictures in clip shards cost the stages that look at smaller ones?

python benchmarks/stored_sizes.py [--small=224] [--large=640] [--rounds=5] [--seconds=2]

Decodes the windows of stage `finetune` (65 frames, every 4th of 257) from two folders of the same
smooth pictures, in turn: at --small from pictures stored so, at --small from pictures stored at
--large, and at --large. Also from --large without decoding at a fraction in the DCT domain: whole,
then resized. Pictures a second of CPU time, medians of the rounds, and bytes of a picture.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import stage_loops
from made_up import rates
from PIL import Image

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.procedure import load_procedure

WINDOW = 4 * np.arange(65)


def windows(source: ClipSource, read: Callable[[str, np.ndarray], object]) -> Iterator[int]:
    """Reads random windows; yields their pictures."""
    rng = np.random.default_rng(0)
    name, recording = next(iter(source.recordings.items()))
    last = recording.num_frames - WINDOW[-1]
    while True:
        read(name, recording.first_frame + int(rng.integers(last)) + WINDOW)
        yield len(WINDOW)


def whole_then_resized(source: ClipSource, size: int) -> Callable[[str, np.ndarray], object]:
    """Reads windows without the decoder's help."""

    def read(name: str, frames: np.ndarray) -> np.ndarray:
        pictures = map(Image.fromarray, source.frames(name, frames))
        return np.stack([p.resize((size, size), Image.Resampling.BICUBIC) for p in pictures])

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", type=int, default=224)
    parser.add_argument("--large", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    procedure = load_procedure("meccano")
    with tempfile.TemporaryDirectory() as name:
        sources = {}
        for size in (args.small, args.large):
            folder = Path(name, str(size))
            stage_loops.make_data(folder, procedure, size, recordings=1)
            sources[size] = ClipSource(folder, "train", procedure)
        small, large = sources[args.small], sources[args.large]
        reduced = large.at(args.small, "encoder.image_size")
        loaders = {
            f"{args.small} from {args.small}": (small, small.frames),
            f"{args.small} from {args.large}": (reduced, reduced.frames),
            f"{args.small} from {args.large}, decoded whole": (
                large,
                whole_then_resized(large, args.small),
            ),
            f"{args.large} from {args.large}": (large, large.frames),
        }
        measured = {loader: [] for loader in loaders}
        for _, loader in itertools.product(range(args.rounds), loaders):
            measured[loader].append(rates(windows(*loaders[loader]), args.seconds)[1])
        print("| pictures | a CPU second | times as long | kB stored |\n|---|---|---|---|")
        medians = {loader: statistics.median(values) for loader, values in measured.items()}
        first = next(iter(medians.values()))
        for loader, rate in medians.items():
            source = loaders[loader][0]
            recording = next(iter(source.recordings.values()))
            jpegs = source.jpegs(recording.name, source.numbers(recording.name)[:64])
            size = np.mean([len(jpeg) for jpeg in jpegs]) / 1e3
            print(f"| {loader} | {rate:,.0f} | {first / rate:.2f} | {size:.1f} |")


if __name__ == "__main__":
    main()
