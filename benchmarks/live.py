"""Live recognition: windows a second, latency, files against real time, memory over a day.

    python -m benchmarks.live [--model=DIR | --config=meccano [--size=224] | --tiny]
        [--parts windows latency files memory] [--seconds=60] [--hours=1] [--frames=128]
        [--windows=4] [--rounds=3] [--config.FIELD=value …]

Of a model folder, or of a config's networks with random weights: without any flag, ViT-S/16 at 224.
`--tiny` is a network of a few hundred weights, with which a day of frames goes by in minutes.

* windows: a second, each frame encoded once and all frames of every window encoded anew, the median
  of rounds in which they take turns;
* latency: pictures of 480 x 640 at 10 frames a second through capture, recognition and the lines,
  for so many seconds; percentiles of the time from capture to the end of its recognition;
* files: a video of so many seconds of 480 x 640 to the folder of its results, decoding included;
* memory: that many hours of frames at 10 a second, as fast as they go, through recognition and the
  lines: the memory that the process has for itself, and the processor's time of a frame, which does
  not depend on what else the machine does, in each tenth. The first tenth, in which buffers and
  caches grow, is left out of the growth.

Targets, with the demo's model on two cores but for the first: once ≥ 50 times every window, at full
size; p99 < 100 ms and nothing dropped; files ≥ 20 times real time; over 24 hours, memory within 16
MiB and the time of a frame within a quarter.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import jax
import numpy as np

from stormpsr_jax.data import sampling
from stormpsr_jax.live import station
from stormpsr_jax.live.capture import Capture, Clock, TimedPicture
from stormpsr_jax.media import sources
from stormpsr_jax.psr import STREAMS, Settings
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.serving import frames, model
from stormpsr_jax.serving.content import Content, Pictures, StreamRecord
from stormpsr_jax.serving.files import recording
from stormpsr_jax.serving.files.unit import Reset
from stormpsr_jax.serving.folder import load_model
from stormpsr_jax.serving.functions import FlaxNetworks, Network
from stormpsr_jax.serving.writing import write_model
from stormpsr_jax.stages import config_flag
from stormpsr_jax.stages.detector import MAX_DETECTIONS
from tests.support.tiny import TINY, opened

PARTS = ("windows", "latency", "files", "memory")
HEIGHT, WIDTH, FPS = 480, 640, 10.0
MEASURED = "| measured | | target | met |\n|---|---|---|---|"
SHAPES = ("encoder", "temporal_model", "detector")
TOLERANCE = 2e-2  # of probabilities: bfloat16
GROWTH, SLOWER = 16.0, 1.25  # MiB, and times, that a day of frames may cost


def untrained(config, size: int, folder: Path) -> None:
    """Writes a model of the config's networks with random weights."""
    run, stages = opened(config, Path())
    window, data = stages["temporal"].clip, config.data
    large = config.detector.image_size or size
    images = np.zeros((2, size, size, 3), np.float32)
    embeddings = np.zeros((1, window.num_frames, config.encoder.hidden), np.float32)
    networks = {}
    for role, name, x in (
        ("encoder", "pretrain", images),
        ("temporal", "temporal", embeddings),
        ("detector", "detector", images),
    ):
        module = stages[name].network(run)
        networks[role] = Network(module, dict(jax.jit(module.init)(jax.random.key(0), x)))
    record = StreamRecord(Settings(window=window.frames), {}, {}, None)
    content = Content(
        procedure=run.procedure,
        fps=run.procedure.fps,
        pictures=Pictures(
            (size, size),
            tuple(data.mean),
            tuple(data.std),
            detector_size=(large, large) if large != size else None,
        ),
        window=window,
        networks=FlaxNetworks(networks, "float32"),
        max_detections=MAX_DETECTIONS,
        streams=dict.fromkeys(STREAMS, record),
        origin={"config": "untrained"},
        batch=config.predict.batch,
    )
    write_model(folder, content)


def windows(loaded: model.Model, args: argparse.Namespace) -> tuple[float, float]:
    """Windows a second: each frame encoded once, and every window anew."""
    window, size = loaded.window, loaded.pictures.size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.frames, *size, 3), np.uint8)
    num = window.frames // window.stride + 1
    content = loaded._content
    clip, single = (content.networks.functions(content, batch) for batch in (num, 1))

    def once(count):
        parts = frames.chunks((frames.Views(i, None) for i in images[:count]), loaded.batch)
        chunks = loaded.frames(stream="temporal").over(parts)
        return np.stack([frame.changed for chunk in chunks for frame in chunk])

    def anew(count):
        chunks = []
        for last in range(count):
            rows = sampling.window_frames(last, frames=window.frames, stride=window.stride)
            chunks.append(single["temporal"](clip["encode"](images[rows])[None])[0][0])
        return np.stack(chunks)

    # Warms up; both have to say the same.
    count = min(args.windows, args.frames)
    np.testing.assert_allclose(once(args.frames)[:count], anew(count), atol=TOLERANCE)
    rates = []
    for _ in range(args.rounds):
        for run, count in ((once, args.frames), (anew, args.windows)):
            start = time.perf_counter()
            run(count)
            rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates[::2]), statistics.median(rates[1::2])


class Pace:
    """A camera of `FPS` pictures a second, for so many seconds."""

    name, is_file = "pictures", True

    def __init__(self, seconds: float):
        self._count = int(seconds * FPS)

    @contextlib.contextmanager
    def open(self) -> Iterator:
        """Gives (time, function that returns the picture) of each, to be waited for."""
        shown = pictures(16)
        yield ((i / FPS, lambda i=i: shown[i % 16]) for i in range(self._count))


def pictures(count: int) -> np.ndarray:
    """Smooth random ones, uint8 (count, HEIGHT, WIDTH, 3)."""
    small = np.random.default_rng(0).integers(0, 256, (count, 12, 16, 3), np.uint8)
    return small.repeat(HEIGHT // 12, 1).repeat(WIDTH // 16, 2)


def latency(loaded: model.Model, variant: str, seconds: float) -> dict:
    """The status at the end."""
    records: list[dict] = []

    class Last:
        def send(self, record):
            records.append(dict(record))

        def close(self):
            pass

    station.STATUS_EVERY = float("inf")  # one of all pictures
    live, clock = loaded.live(variant), Clock(FPS)
    live.fps = FPS  # whatever the model's: every picture is a frame
    live.update(pictures(1)[0], 0.0)
    live.reset()
    one = station.Station(live, "x", clock=clock, reset=Reset(), tell=lambda line: None)
    with Capture(Pace(seconds), clock, live.frame_at, depth=10) as capture:
        one.run(capture, (), [Last()])
    # The first one, as pictures begin to come, is empty.
    return next(line for line in reversed(records) if line["latency_p99_ms"] is not None)


def file_speed(loaded: model.Model, variant: str, folder: Path, seconds: float) -> float:
    """Seconds of video in a second."""
    path, count = folder / "video.mp4", int(seconds * FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=int(FPS), options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        shown = pictures(16)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(shown[i % 16], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    one = frames.chunks(iter([loaded.preparing()(pictures(1)[0])]), 1)
    list(loaded.frames(stream=loaded.default_stream).over(one))
    start = time.perf_counter()
    opened = sources.open_source(path).open(loaded.fps)
    (folder / "results").mkdir()
    wanted = recording.RecordingOptions()
    recording.write(loaded, "video", opened, variant, folder / "results", wanted, path.name)
    return opened.num_frames / loaded.fps / (time.perf_counter() - start)


class AsFast:
    """A capture whose pictures are there as soon as they are asked for.

    After each tenth it prints, and adds to `rows`, frames so far, MiB, and ms a frame since the row
    before.
    """

    dropped = reconnections = 0
    connected, error, trouble = True, None, ""

    def __init__(self, shown: np.ndarray, count: int):
        """Gives so many pictures, which are those `shown` again and again."""
        self._shown, self._count, self._number = shown, count, 0
        self._before, self._start = 0, time.process_time()
        self.ended = False
        self.rows: list[tuple[int, float, float]] = []

    def get(self, seconds: float) -> TimedPicture | None:
        """The next picture, None after the last."""
        del seconds
        if self.ended:
            return None
        i, count = self._number, self._count
        if i and i * 10 // count > (i - 1) * 10 // count:
            passed = time.process_time() - self._start
            self.rows.append((i, own(), 1000 * passed / (i - self._before)))
            print("| {} | {:.1f} | {:.2f} |".format(*self.rows[-1]), flush=True)
            self._before, self._start = i, time.process_time()
        self.ended = i == count
        if self.ended:
            return None
        self._number += 1
        return TimedPicture(i / FPS, self._shown[i % len(self._shown)], time.monotonic())


def memory(
    loaded: model.Model, variant: str, args: argparse.Namespace
) -> list[tuple[int, float, float]]:
    """(frames so far, MiB, ms a frame since the row before) after each tenth."""
    live = loaded.live(variant)
    live.fps = FPS
    images = pictures(64)
    if args.tiny:  # a day of resizing would take longer than the rest
        images = np.ascontiguousarray(images[:, ::10, ::10])
    live.update(images[0], 0.0)
    live.reset()
    capture = AsFast(images, max(10, int(args.hours * 3600 * FPS)))
    tell = lambda line: None  # noqa: E731
    one = station.Station(live, "x", clock=Clock(FPS, 0.0), reset=Reset(), tell=tell)
    one.run(capture, ())
    return capture.rows


def own() -> float:
    """MiB that this process has for itself: what is mapped from files comes and goes."""
    text = Path("/proc/self/status").read_text()
    return sum(int(text.partition(f)[2].split()[0]) for f in ("RssAnon:", "VmSwap:")) / 1024


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    config_flag.add_config(parser, "meccano")
    add = parser.add_argument
    add("--model", default="", help="a model folder; otherwise the config, untrained")
    add("--size", type=int, default=224, help="picture height and width of the config's encoder")
    add("--frames", type=int, default=128, help="of a round of each frame once")
    add("--windows", type=int, default=4, help="of a round of every window anew")
    add("--rounds", type=int, default=3, help="the median is reported")
    add("--seconds", type=float, default=60.0, help="of video, for the latency and for files")
    add("--hours", type=float, default=1.0, help="of frames, for the memory")
    add("--tiny", action="store_true", help="a tiny network, for the memory")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="of these, those to measure")
    args = config_flag.parse(parser, None)
    with tempfile.TemporaryDirectory() as place:
        folder, subject = Path(args.model or Path(place, "model")), args.model
        if not subject:
            subject = "untrained"
            if args.tiny:
                subject = "untrained and tiny"
                fields = {k: v for k, v in TINY.items() if k.split(".")[0] in SHAPES}
                args.config.update_from_flattened_dict(fields)
            untrained(args.config, args.size, folder)
        loaded = load_model(folder)
        variant = next(iter(loaded.procedure.variants))
        by = " x ".join(map(str, loaded.pictures.size))
        where = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores"
        print(f"{subject}: pictures of {by}, {loaded.fps:g} frames/s; {where}\n")
        print(MEASURED)
        if "windows" in args.parts and "temporal" in loaded.streams:
            once, anew = windows(loaded, args)
            row("windows/s, each frame once", f"{once:.2f}")
            row("windows/s, every window anew", f"{anew:.3f}")
            row("once / anew", f"{once / anew:.1f}", "≥ 50", once / anew >= 50)
        if "latency" in args.parts:
            said = latency(loaded, variant, args.seconds)
            p99, dropped = said["latency_p99_ms"], said["dropped"]
            row(f"latency at {FPS:g} frames/s, p50", f"{said['latency_p50_ms']:.1f} ms")
            row("p99", f"{p99:.1f} ms", "< 100 ms", p99 < 100)
            row("dropped", dropped, "0", dropped == 0)
        if "files" in args.parts:
            speed = file_speed(loaded, variant, Path(place), args.seconds)
            row("files / real time", f"{speed:.1f}", "≥ 20", speed >= 20)
        if "memory" in args.parts:
            print("\n| frames, one by one | MiB | ms a frame |\n|---|---|---|", flush=True)
            rows = memory(loaded, variant, args)
            print(f"\n{MEASURED}")
            growth, slower = rows[-1][1] - rows[0][1], rows[-1][2] / rows[1][2]
            row(f"growth over {args.hours:g} h", f"{growth:.1f} MiB", "≤ 16 MiB", growth <= GROWTH)
            row("time of a frame, last / second tenth", f"{slower:.2f}", "≤ 1.25", slower <= SLOWER)


def row(name: str, value: object, target: str = "", met: bool | None = None) -> None:
    """Prints one, as soon as it is known."""
    print(
        f"| {name} | {value} | {target} | {'' if met is None else 'yes' if met else 'NO'} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
