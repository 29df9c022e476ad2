"""Live recognition: windows a second, latency, files against real time, memory over hours.

    python benchmarks/live.py [--model=DIR | --config=meccano [--size=224]] [--seconds=60]
        [--hours=1] [--frames=128] [--windows=4] [--rounds=3] [--config.FIELD=value …]

Of a model folder, or of a config's networks with random weights: without any flag, ViT-S/16 at 224.

* windows a second, each frame encoded once and all frames of every window encoded anew, the median
  of rounds in which they take turns;
* latency: pictures of 480 x 640 at 10 frames a second through capture, recognition and the lines,
  for so many seconds; percentiles of the time from capture to the end of its recognition;
* files: a video of so many seconds of 480 x 640 to the folder of its results, decoding included;
* memory: that many hours of frames, as fast as they go, one by one: resident memory, and the time
  of a frame, after each tenth.

Targets: once ≥ 50 times every window; with the demo's model on two cores, p99 < 100 ms and files
≥ 20 times real time; memory and time flat.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import jax
import numpy as np
from absl import app, flags, logging

from stormpsr_jax import config_flag, model
from stormpsr_jax.data import sampling
from stormpsr_jax.model import Network, Pictures, StreamRecord, Window, load_model
from stormpsr_jax.psr.decoding import STREAMS, Settings
from stormpsr_jax.recognition import recording, sources, station
from stormpsr_jax.recognition.capture import Capture, Clock
from stormpsr_jax.recognition.unit import Reset
from stormpsr_jax.stages import networks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stream import stack
from stormpsr_jax.training.sharding import make_mesh

_CONFIG = config_flag.define_config("meccano")
_MODEL = flags.DEFINE_string("model", "", "A model folder; otherwise the config, untrained.")
_SIZE = flags.DEFINE_integer("size", 224, "Picture height and width of the config's encoder.")
_FRAMES = flags.DEFINE_integer("frames", 128, "Frames of a round of each frame once.")
_WINDOWS = flags.DEFINE_integer("windows", 4, "Windows of a round of every window anew.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "The median is reported.")
_SECONDS = flags.DEFINE_float("seconds", 60.0, "Of video, for the latency and for files.")
_HOURS = flags.DEFINE_float("hours", 1.0, "Of frames, for the memory.")
HEIGHT, WIDTH, FPS = 480, 640, 10.0


def untrained(config, folder: Path) -> None:
    """Writes a model of the config's networks with random weights."""
    context = Context(config, Path(), make_mesh())
    size, num, window, data = _SIZE.value, context.num_frames, context.window, config.data
    large = config.detector.image_size or size
    images = np.zeros((2, size, size, 3), np.float32)
    embeddings = np.zeros((1, num, config.encoder.hidden), np.float32)
    found = {}
    for role, module, x in (
        ("encoder", networks.spatial_encoder(context), images),
        ("temporal", networks.temporal_encoder(context), embeddings),
        ("detector", networks.detector(context), images),
    ):
        found[role] = Network(module, dict(jax.jit(module.init)(jax.random.key(0), x)))
    record = StreamRecord(Settings(window=window.frames), {}, {}, None)
    model.write_model(
        folder,
        procedure=context.procedure,
        fps=context.procedure.fps,
        pictures=Pictures(
            (size, size),
            tuple(data.mean),
            tuple(data.std),
            detector_size=(large, large) if large != size else None,
        ),
        window=Window(window.frames, window.stride),
        networks=found,
        max_detections=config.detector.max_detections,
        streams=dict.fromkeys(STREAMS, record),
        origin={"config": "untrained"},
        batch=config.predict.batch,
    )


def windows(loaded: model.Model) -> tuple[float, float]:
    """Windows a second: each frame encoded once, and every window anew."""
    window, size = loaded.window, loaded.pictures.size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_FRAMES.value, *size, 3), np.uint8)
    num = window.frames // window.stride + 1
    clip, one = (loaded._functions_at(batch) for batch in (num, 1))

    def once(count):
        recogniser = loaded.recogniser(stream="temporal")
        for start in range(0, count, loaded.batch):
            recogniser(images[start : min(start + loaded.batch, count)])

    def anew(count):
        for last in range(count):
            rows = sampling.window_frames(last, frames=window.frames, stride=window.stride)
            one["temporal"](clip["encode"](images[rows])[None])

    once(loaded.batch), anew(1)  # warms up
    rates = []
    for _ in range(_ROUNDS.value):
        for run, count in ((once, _FRAMES.value), (anew, _WINDOWS.value)):
            start = time.perf_counter()
            run(count)
            rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates[::2]), statistics.median(rates[1::2])


class Pace:
    """A camera of `FPS` pictures a second, for so many seconds."""

    name, is_file = "pictures", True

    @contextlib.contextmanager
    def open(self) -> Iterator:
        """Gives (time, function that returns the picture) of each, to be waited for."""
        shown = pictures(16)
        count = int(_SECONDS.value * FPS)
        yield ((i / FPS, lambda i=i: shown[i % 16]) for i in range(count))


def pictures(count: int) -> np.ndarray:
    """Smooth random ones, uint8 (count, HEIGHT, WIDTH, 3)."""
    small = np.random.default_rng(0).integers(0, 256, (count, 12, 16, 3), np.uint8)
    return small.repeat(HEIGHT // 12, 1).repeat(WIDTH // 16, 2)


def latency(loaded: model.Model, variant: str) -> dict:
    """The status at the end."""
    said: list[dict] = []

    class Last:
        def send(self, record):
            said.append(dict(record))

        def close(self):
            pass

    station.STATUS_EVERY = float("inf")  # one of all pictures
    live, clock = loaded.live(variant), Clock(FPS)
    live.fps = FPS  # whatever the model's: every picture is a frame
    live.update(pictures(1)[0], 0.0)
    live.reset()
    one = station.Station(live, "x", clock=clock, reset=Reset(), tell=lambda line: None)
    with Capture(Pace(), clock, live.frame_at, depth=10) as capture:
        one.run(capture, (), [Last()])
    # The first one, as pictures begin to come, is empty.
    return next(line for line in reversed(said) if line["latency_p99_ms"] is not None)


def file_speed(loaded: model.Model, variant: str, folder: Path) -> float:
    """Seconds of video in a second."""
    path, count = folder / "video.mp4", int(_SECONDS.value * FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=int(FPS), options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        shown = pictures(16)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(shown[i % 16], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    one = stack([loaded.prepare(pictures(1)[0])])
    loaded.recogniser(stream=loaded.default_stream)(one)
    start = time.perf_counter()
    opened = sources.open_source(path).open(loaded.fps)
    (folder / "results").mkdir()
    recording.recognise(
        loaded,
        "video",
        opened,
        loaded.decoder(variant=variant),
        folder / "results",
        source=path.name,
        batch=loaded.batch,
        video=False,
        clips=False,
        certain=0.0,
        progress=lambda count: None,
    )
    return opened.num_frames / loaded.fps / (time.perf_counter() - start)


def memory(loaded: model.Model, variant: str) -> list[tuple[int, float, float]]:
    """(frames so far, MiB resident, ms a frame since the row before) after each tenth."""
    count = max(10, int(_HOURS.value * 3600 * loaded.fps))
    live, shown, rows = loaded.live(variant), pictures(64), []
    live.update(shown[0], 0.0)
    start, before = time.perf_counter(), 0
    for i in range(1, count + 1):
        live.update(shown[i % 64], i / loaded.fps)
        if i * 10 // count > (i - 1) * 10 // count:
            passed = time.perf_counter() - start
            rows.append((i, resident(), 1000 * passed / (i - before)))
            start, before = time.perf_counter(), i
    return rows


def resident() -> float:
    """MiB of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(_MODEL.value or Path(place, "model"))
        if not _MODEL.value:
            untrained(_CONFIG.value, folder)
        loaded = load_model(folder)
        variant = next(iter(loaded.procedure.variants))
        by = " x ".join(map(str, loaded.pictures.size))
        print(f"{_MODEL.value or 'untrained'}: pictures of {by}, {loaded.fps:g} frames/s\n")
        print("| measured | |\n|---|---|")
        if "temporal" in loaded.streams:
            once, anew = windows(loaded)
            print(f"| windows/s, each frame once | {once:.2f} |")
            print(f"| windows/s, every window anew | {anew:.3f} |")
            print(f"| once / anew (target ≥ 50) | {once / anew:.1f} |")
        said = latency(loaded, variant)
        print(f"| latency at {FPS:g} frames/s, p50 | {said['latency_p50_ms']:.1f} ms |")
        print(f"| p99 (target < 100 ms) | {said['latency_p99_ms']:.1f} ms |")
        print(f"| dropped | {said['dropped']} |")
        speed = file_speed(loaded, variant, Path(place))
        print(f"| files / real time (target ≥ 20) | {speed:.1f} |")
        print("\n| frames, one by one | MiB | ms a frame |\n|---|---|---|")
        for frames, size, each in memory(loaded, variant):
            print(f"| {frames} | {size:.0f} | {each:.2f} |")


if __name__ == "__main__":
    app.run(main, flags_parser=config_flag.parse_flags)
