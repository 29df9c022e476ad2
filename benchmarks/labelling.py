"""The labelling page: how long an index, a seek and a step take, and the memory of its server.

    python -m benchmarks.labelling [--minutes=60] [--keys=60] [--fps=5] [--size=1080] [--seeks=100]
        [--steps=150] [--width=1280] [--seconds=20]

It makes a video of H.264 with PyAV, 30 pictures a second, a key frame for every `keys`: a pan over
a texture, so many seconds that come again and again. Then it asks a server of the page as the page
does: frames at random, then one after the other, on and back.

A seek is timed until its JPEG is there. Beside it stands what the server has spent of the
processors on it, as that is the same however busy the machine is: half of it is the time on two
idle cores if the decoder keeps both at work.

Targets: a seek within 150 ms (p95) where key frames are at most 60 apart, else within 1 s; 25
frames a second; memory that does not grow with the video.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image

from stormpsr_jax.psr.procedure import load_procedure
from tests.support.label_page import LabelPage

RATE = 30  # pictures a second


def write_film(path: Path, args: argparse.Namespace) -> None:
    """A piece of video, encoded once, whose packets come again and again."""
    draw = np.random.default_rng(0)
    height, width = args.size, args.size * 16 // 9
    texture = draw.integers(0, 256, (height // 3, width // 3, 3), np.uint8)
    texture = np.asarray(Image.fromarray(texture).resize((width * 5 // 4, height * 5 // 4)))
    options = {"preset": "veryfast", "g": str(args.keys), "keyint_min": str(args.keys)}
    piece, num = path.with_name("piece.mp4"), args.seconds * RATE
    with av.open(str(piece), "w") as container:
        stream = container.add_stream(
            "libx264", rate=RATE, options={**options, "sc_threshold": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(num):
            x, y = (
                int((1 + np.sin(i / slow)) * side / 8.5)
                for slow, side in ((25, width), (40, height))
            )
            picture = np.ascontiguousarray(texture[y : y + height, x : x + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(piece)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        unit = float(source.streams.video[0].time_base)
        for i in range(args.minutes * 60 // args.seconds):
            source.seek(0)
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    shift = round(i * args.seconds / unit)
                    packet.pts, packet.dts, packet.stream = (
                        packet.pts + shift,
                        packet.dts + shift,
                        stream,
                    )
                    container.mux(packet)
    piece.unlink()


class Tab(LabelPage):
    """A server, and one who asks it."""

    def get(self, path: str) -> bytes | dict:
        """What the server answers."""
        status, _, content = self.ask(path)
        assert status == 200, content
        return content

    def frame(self, number: int, width: int) -> tuple[float, float]:
        """The milliseconds that a frame takes: of a clock, and of the server's processors."""
        begun, used = time.perf_counter(), self.used()
        self.get(f"/api/videos/film/frames/{number}.jpg?width={width}")
        return 1000 * (time.perf_counter() - begun), self.used() - used

    def used(self) -> float:
        """Milliseconds of processors that the server has taken."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6

    def memory(self, field: str) -> float:
        """MiB of the server."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def show(what: str, times: list[tuple[float, float]]) -> None:
    """Prints a row."""
    wall, used = (np.percentile(column, (50, 95)) for column in zip(*times, strict=True))
    rate = 1000 * len(times) / sum(time for time, _ in times)
    print(
        f"| {what} | {wall[0]:.0f} | {wall[1]:.0f} | {used[0]:.0f} | {used[1]:.0f} | {rate:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    defaults = {"minutes": 60, "keys": 60, "size": 1080, "seeks": 100, "steps": 150}
    for name, default in (defaults | {"width": 1280, "seconds": 20}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--fps", type=float, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "videos").mkdir()
        write_film(folder / "videos/film.mp4", args)
        size = (folder / "videos/film.mp4").stat().st_size
        print(f"{args.minutes} minutes, {8 * size / args.minutes / 60e6:.1f} Mbit/s, ", end="")
        procedure = folder / "procedure.json"
        procedure.write_text(json.dumps(load_procedure("synthetic").at(args.fps).to_json()))
        begun = time.perf_counter()
        with Tab(folder, procedure) as tab:
            while (frames := tab.get("/api/videos/film")["frames"]) is None:
                time.sleep(0.1)
            print(f"{frames} frames; index in {time.perf_counter() - begun:.1f} s")
            before = tab.memory("VmRSS")
            print("| | p50, ms | p95, ms | p50 of processors | p95 | frames/s |")
            print("|---|---|---|---|---|---|")
            anywhere = np.random.default_rng(0).integers(0, frames, args.seeks).tolist()
            show("seek", [tab.frame(number, args.width) for number in anywhere])
            middle = frames // 2
            on = range(middle, min(middle + args.steps, frames))
            show("step on", [tab.frame(number, args.width) for number in on])
            show("step back", [tab.frame(number, args.width) for number in reversed(on)])
            print(f"memory: {before:.0f} MiB, at most {tab.memory('VmHWM'):.0f} MiB")


if __name__ == "__main__":
    main()
