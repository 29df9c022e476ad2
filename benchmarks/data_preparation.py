"""How fast do JPEG files become clip shards, against a plain loop over Pillow?

python benchmarks/data_preparation.py [--frames=1000] [--workers=2] [--rounds=3] [--size=224]
    [--pictures=1920x1080]

Makes a recording per worker of --frames different JPEG files each, of 1920 x 1080 pixels as those
of MECCANO are (those of IndustReal are of 1280 x 720), in MECCANO's layout, then times in turn, in
this one run:

* plain: one process that opens each file with Pillow, resizes it with antialiasing (bicubic) to
  --size and saves it as a JPEG file of the same quality and colour resolution;
* ours: `data_prep.writing.from_files.build`, the whole of it: labels, worker processes (they take a
  second or two to start, so that few frames give a lower ratio), shards, checks.

Prints frames per second of both, their ratio, the processor time that ours takes a frame, and how
well the pictures agree: the PSNR of the two files' pixels, and of ours to the plain loop's picture
before it was saved, which shows what saving costs. tests/media/test_pictures.py holds the
bounds on a small picture: 46 dB before saving, 36 dB after it.
"""

import argparse
import functools
import io
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from data_prep.meccano import read_boxes
from data_prep.reading.data_sets import Format, RecordingFiles
from data_prep.reading.recording_labels import read_labels
from data_prep.writing import from_files
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.psr.files.label_files import Labelled
from stormpsr_jax.psr.procedure import load_procedure

QUALITY = 92


def write_frames(
    folder: Path, count: int, width: int, height: int, rng: np.random.Generator
) -> None:
    """Pictures with the spectrum of photographs, and their edges and size (about .17 B a pixel)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.3
        noise = np.fft.irfft2(spectrum, (height, width))
        channels.append(120 + 45 * noise / noise.std())
    scene = np.stack(channels, axis=-1)
    for _ in range(40):
        y, x = rng.integers(height), rng.integers(width)
        h, w = rng.integers(20, 300, 2)
        part = scene[y : y + h, x : x + w]
        part[...] = 0.3 * part + 0.7 * rng.uniform(0, 255, 3)
    scene = np.clip(scene, 0, 255).astype(np.uint8)
    folder.mkdir(parents=True)
    for frame in range(1, count + 1):
        moved = np.roll(scene, (3 * frame, 5 * frame), axis=(0, 1))
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(moved), 88, "RGB", "420")
        (folder / f"{frame:05d}.jpg").write_bytes(jpeg)


def plain_loop(files: list[Path], out: Path, size: int) -> None:
    out.mkdir()
    for file in files:
        with Image.open(file) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        small.save(out / file.name, "JPEG", quality=QUALITY, subsampling=0)


def make_shards(frames: Path, names: list[str], count: int, out: Path, args) -> None:
    procedure = load_procedure("meccano")
    labels = frames.parent / "labels"
    recordings = [
        RecordingFiles(
            name, "train", ImageFiles(frames / name, 1, count), Labelled(labels / name), None
        )
        for name in names
    ]
    from_files.build(
        functools.partial(read_labels, Format("MECCANO", 1, "--frames", read_boxes)),
        recordings,
        out,
        procedure=procedure,
        framing=Framing((args.size, args.size), quality=QUALITY),
        workers=args.workers,
    )


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def agreement(files: list[Path], size: int) -> tuple[float, float]:
    """(dB before saving, dB after it), the worst of the pictures."""
    before, after = [], []
    for file in files:
        with Image.open(file) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        plain = simplejpeg.decode_jpeg(buffer.getvalue())
        for quality, found, other in (
            (100, before, np.asarray(small)),
            (QUALITY, after, plain),
        ):
            framing = Framing((size, size), quality=quality)
            (jpeg,) = pictures.encode([(str(file), file.read_bytes())], framing)
            found.append(psnr(simplejpeg.decode_jpeg(jpeg), other))
    return min(before), min(after)


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1000, help="of each recording")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--pictures", default="1920x1080", help="width x height, pixels")
    args = parser.parse_args()
    width, height = map(int, args.pictures.split("x"))
    names = [f"{i:04d}" for i in range(1, args.workers + 1)]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder, "frames")
        for i, name in enumerate(names):
            write_frames(frames / name, args.frames, width, height, np.random.default_rng(i))
            labels = Path(folder, "labels", name)
            labels.mkdir(parents=True)
            (labels / "PSR_labels_raw.csv").write_text("00001.jpg" + ",0" * 17 + "\n")
        files = sorted(frames.rglob("*.jpg"))
        size = sum(file.stat().st_size for file in files) / len(files)
        print(f"{len(files)} JPEG files of {width}x{height}, {size / 1e3:.0f} kB each")
        for number in range(args.rounds):
            start = time.perf_counter()
            plain_loop(files, Path(folder, f"plain{number}"), args.size)
            middle, before = time.perf_counter(), processor_seconds()
            make_shards(frames, names, args.frames, Path(folder, f"shards{number}"), args)
            end, spent = time.perf_counter(), processor_seconds() - before
            plain, ours = len(files) / (middle - start), len(files) / (end - middle)
            ratios.append(ours / plain)
            print(
                f"plain {plain:.0f} frames/s, ours {ours:.0f} frames/s, ratio {ratios[-1]:.2f}; "
                f"ours {1e3 * spent / len(files):.1f} ms of processor time a frame"
            )
        before, after = agreement(files[:: max(1, len(files) // 20)], args.size)
    print(f"ratio {statistics.median(ratios):.2f} (median), {args.workers} workers")
    print(f"pictures agree within {before:.1f} dB before saving, {after:.1f} dB after it")


if __name__ == "__main__":
    main()
