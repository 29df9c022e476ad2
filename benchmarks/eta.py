"""Is the time left that data preparation prints right, and how long does Ctrl-C take?

    python benchmarks/eta.py --inputs=DIR SOURCE [--interrupt=S] [FLAG …]

for SOURCE synthetic, meccano, industreal or own; other flags go to its command.

Prepares recordings of different lengths with the command of that source and two workers, for two
to three minutes. Prints the time left that the command itself printed first after --after seconds
(60), the time that it really took from there on, and their difference as a share of the latter.

With --interrupt, sends SIGINT to all its processes S seconds after the start, as Ctrl-C on a
terminal does, and prints how long they took to end, and their last line.

Inputs are made in DIR on first use: pictures and videos of 1920 x 1080, few different ones under
many names, as only their size matters here.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg

from stormpsr_jax.psr.procedure import load_procedure

HEIGHT, WIDTH = 1080, 1920
SPLITS = ("train",) * 6 + ("val",) * 2 + ("test",) * 3
FRAMES = (500, 700, 900, 1100, 1300, 1500, 700, 1300, 800, 1100, 1600)  # of the recordings
_LEFT = re.compile(r"\[[0-9:]+<([0-9:]+),")


def pictures(count: int) -> list[np.ndarray]:
    """Pictures with about the detail of photographs."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        small = rng.uniform(0, 255, (HEIGHT // 40, WIDTH // 40, 3))
        scene = small.repeat(40, 0).repeat(40, 1) + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
        found.append(np.clip(scene, 0, 255).astype(np.uint8))
    return found


def write_images(folder: Path, first_frame: int, count: int, originals: list[Path]) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        os.link(originals[i % len(originals)], folder / f"{first_frame + i:06d}.jpg")


def write_states(folder: Path, first_frame: int, num_components: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    row = f"{first_frame:06d}.jpg" + ",1" + ",0" * (num_components - 1)
    (folder / "PSR_labels_raw.csv").write_text(row + "\n")


def write_video(path: Path, count: int) -> None:
    """A few seconds of video, encoded once and repeated."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        shown = [picture for picture in pictures(6) for _ in range(12)]
        encoded = [
            packet
            for picture in [*shown, None]
            for packet in stream.encode(
                None if picture is None else av.VideoFrame.from_ndarray(picture, format="rgb24")
            )
        ]
        for i in range(count):
            original = encoded[i % len(encoded)]
            packet = av.Packet(bytes(original))
            packet.stream, packet.time_base = stream, original.time_base
            packet.pts = packet.dts = i
            packet.is_keyframe = original.is_keyframe
            container.mux(packet)


def make_inputs(source: str, folder: Path) -> None:
    """Writes recordings in the layout of a source."""
    folder.mkdir(parents=True)
    names = [f"{i:04d}" if source == "meccano" else f"{i:02d}_assy_0_1" for i in range(1, 12)]
    originals = [folder / f"original_{i}" for i in range(8)]
    for path, picture in zip(originals, pictures(8), strict=True):
        path.write_bytes(simplejpeg.encode_jpeg(picture, 88, "RGB", "420"))
    for name, split, count in zip(names, SPLITS, FRAMES, strict=True):
        if source == "meccano":
            write_images(folder / "frames" / name, 1, 2 * count, originals)
            write_states(folder / "labels" / split / name, 1, 17)
        elif source == "industreal":
            write_images(folder / "data" / split / name / "rgb", 0, 2 * count, originals)
            write_states(folder / "data" / split / name, 0, 11)
        else:
            (folder / "videos").mkdir(exist_ok=True)
            write_video(folder / "videos" / f"{name}.mp4", 2 * count)
            (folder / "labels").mkdir(exist_ok=True)
            step = load_procedure("industreal").step_name(3)
            (folder / "labels" / f"{name}.csv").write_text(f"time,step\n5,{step}\n")


def command_of(source: str, inputs: Path, out: Path) -> list[str]:
    words = [sys.executable, "-m", f"data_prep.{source}", f"--out={out}", "--workers=2"]
    if source == "synthetic":
        return [*words, "--size=96"]
    if not (inputs / source).is_dir():
        print(f"making {inputs / source}", file=sys.stderr)
        partial = inputs / f"{source}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        make_inputs(source, partial)
        partial.rename(inputs / source)
    folder = inputs / source
    return (
        words
        + {
            "meccano": [f"--frames={folder / 'frames'}", f"--labels={folder / 'labels'}"],
            "industreal": [f"--data={folder / 'data'}"],
            "own": [
                f"--videos={folder / 'videos'}",
                f"--labels={folder / 'labels'}",
                "--procedure=industreal",
            ],
        }[source]
    )


def seconds(text: str) -> int:
    """Of 1:15 or 1:01:15."""
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total


def measure_eta(process: subprocess.Popen, start: float, after: float) -> None:
    said = None
    for line in process.stderr:
        now = time.perf_counter() - start
        print(f"{now:6.1f} s  {line}", end="", file=sys.stderr)
        if said is None and now >= after and (match := _LEFT.search(line)):
            said = (now, seconds(match[1]))
    if process.wait():
        sys.exit("the command failed")
    end = time.perf_counter() - start
    if said is None:
        sys.exit(f"it took {end:.0f} s only; nothing was printed after {after:g} s")
    at, left = said
    error = left / (end - at) - 1
    print(f"at {at:.1f} s: said {left} s left, it took {end - at:.1f} s: {100 * error:+.1f} %")


def measure_interrupt(process: subprocess.Popen, delay: float) -> None:
    time.sleep(delay)
    start = time.perf_counter()
    os.killpg(process.pid, signal.SIGINT)
    lines = process.stderr.read().splitlines()  # ends when the last of its processes does
    code = process.wait()
    took = time.perf_counter() - start
    print(f"interrupted after {delay:g} s: took {took:.2f} s, exit code {code}: {lines[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=("synthetic", "meccano", "industreal", "own"))
    parser.add_argument("--inputs", type=Path, required=True, help="folder for what is prepared")
    parser.add_argument("--after", type=float, default=60, help="seconds")
    parser.add_argument("--interrupt", type=float, help="seconds after the start")
    args, flags = parser.parse_known_args()
    # A shell's background jobs ignore Ctrl-C, and so would the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as out:
        words = command_of(args.source, args.inputs, Path(out, "shards")) + flags
        start = time.perf_counter()
        process = subprocess.Popen(
            words,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell that runs this in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        if args.interrupt is None:
            measure_eta(process, start, args.after)
        else:
            measure_interrupt(process, args.interrupt)


if __name__ == "__main__":
    main()
