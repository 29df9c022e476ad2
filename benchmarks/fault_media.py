"""Videos, pictures and zip files that somebody made to do harm, for `data_prep.own`.

What nobody can notice, nobody has to: a bit of a picture's data, or the end of a stream that says
nowhere how long it is. A container that says so and was cut off has to be an error, as has a
picture that ends too early.
"""

import contextlib
import ctypes
import json
import os
import random
import resource
import shutil
import socket
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from fault_pictures import hostile_picture, hostile_zip
from fault_processes import Outcome, call, limited, made_once
from fault_runs import Found, verdicts
from fault_videos import CODECS, SECONDS, Way, hostile_video
from PIL import Image

from data_prep import own
from stormpsr_jax.data.clips import ClipSource, list_splits
from tests.support.own_data import PROCEDURE, write_video

MEMORY = 2**33
IN_OPEN = 0x20  # of inotify


def prepare_media(base: Path) -> Path:
    """Makes the files that attempts start from, once; returns their folder."""
    return made_once(base / "media", write_media)


def write_media(folder: Path) -> None:
    """Writes small videos and pictures of every kind into a folder."""
    import av

    noise = np.random.default_rng(0).integers(0, 256, (60, 6, 8, 3), np.uint8)
    times = np.arange(0, SECONDS, 1 / 12)

    def picture(i: int) -> np.ndarray:
        return np.ascontiguousarray(noise[i % 60].repeat(8, 0).repeat(8, 1))

    for ending, codec in CODECS.items():
        path = folder / f"video.{ending}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25 if ending == "mpg" else 12)
            stream.width, stream.height = (128, 96) if ending == "3gp" else (64, 48)
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for i in range(SECONDS * (25 if ending == "mpg" else 12)):
                frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
                container.mux(stream.encode(frame.reformat(stream.width, stream.height)))
            container.mux(stream.encode())
    write_video(folder / "clean.mp4", times[:12], "mpeg4", picture)
    write_video(folder / "one.mp4", times[:1], "mpeg4", picture)
    write_video(folder / "uneven.mkv", times**2 / SECONDS, "mpeg4", picture)
    with av.open(str(folder / "png.mov"), "w") as container:
        stream = container.add_stream("png", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for i in range(12 * SECONDS):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (folder / "procedure.json").write_text(json.dumps(PROCEDURE.to_json()))
    image = Image.fromarray(picture(0))
    image.save(folder / "plain.jpg", quality=95)
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "plain.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    for mode in ("L", "P", "1", "RGBA", "I;16"):
        image.convert("L" if mode == "I;16" else mode).convert(mode).save(
            folder / f"{mode.replace(';', '')}.png"
        )
    for kind in ("gif", "bmp", "tiff", "webp", "ppm"):
        image.save(folder / f"other.{kind}")


# --- The attempt ----------------------------------------------------------------------------------


def hostile_media(rng: random.Random, place: Path, base: Path) -> Found:
    """Two sound recordings and a hostile one: a video, a folder of pictures, or a zip of all."""
    media = prepare_media(base)
    videos, labels = place / "videos", place / "labels"
    videos.mkdir()
    labels.mkdir()
    for name in ("bench1", "bench2"):
        shutil.copy(media / "clean.mp4", videos / f"{name}.mp4")
        (labels / f"{name}.csv").write_text("time,step\n0.5,0\n")
    (labels / "bench3").mkdir()
    (labels / "bench3" / "PSR_labels_raw.csv").write_text("000000.jpg,0,0,0\n")
    (place / "secret").mkdir()
    secrets = (place / "secret" / "secret.mp4", videos / "beside.dat")
    with watched(secrets, media / "video.mp4") as (port, touched):
        make = rng.choice((hostile_video, hostile_video, hostile_picture, hostile_zip))
        way = make(rng, media, place, port)
        touched()  # by the packing of a zip file
        before = _inside(place)
        source = videos if videos.exists() else place / "videos.zip"
        words = [f"--videos={source}", f"--labels={labels}", f"--out={place / 'out'}"]
        words += [f"--procedure={media / 'procedure.json'}", "--workers=1"]
        words += ["--size=16", "--aspect=pad"]
        outcome = call(limited(resource.RLIMIT_AS, MEMORY, _made(words, place / "out")), place)
        wrong = verdicts(outcome)
        if touched() or _inside(place) != before:
            wrong.add("outside")
    return way.what, wrong | _of_media(outcome, way), outcome.output


def _made(words: list[str], out: Path) -> Callable[[], None]:
    def function() -> None:
        sys.argv = ["own", *words]
        if code := own.main():
            sys.exit(code)
        made = {}
        for split in list_splits(out):
            source = ClipSource(out, split, PROCEDURE)
            for name, recording in source.recordings.items():
                digest = 0
                for _, pictures in source.chunks(name, 64):
                    digest = zlib.crc32(pictures.tobytes(), digest)
                made[name] = recording.num_frames, digest
        print(f"\nmade {json.dumps(made)}")

    return function


def _of_media(outcome: Outcome, way: Way) -> set[str]:
    if outcome.code:
        lines = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
        wrong = {"different"} if way.has_to == "work" else set()
        if not lines:
            return wrong | {"traceback"}
        return wrong | (set() if any(way.name in line for line in lines) else {"silent"})
    if way.has_to == "fail":
        return {"silent"}
    made = json.loads(outcome.output.rpartition("\nmade ")[2])
    sound = made.pop("bench1") == made.pop("bench2")  # copies of one video
    ((count, _),) = made.values()
    return set() if sound and count >= way.frames else {"silent"}


def _inside(place: Path) -> list[tuple]:
    """All files of an attempt but the result and what was said: names, sizes, times of change."""
    found = []
    for path in sorted(place.rglob("*")):
        if path.relative_to(place).parts[0] not in ("out", "output"):
            status = path.lstat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
    return found


@contextlib.contextmanager
def watched(paths: Iterable[Path], video: Path) -> Iterator[tuple[int, Callable[[], bool]]]:
    """Copies a video to paths, and listens on a port of this machine.

    Gives the port, and a function that says whether somebody has opened a copy or called.
    """
    library = ctypes.CDLL(None)
    events = library.inotify_init1(os.O_NONBLOCK)
    for path in paths:
        shutil.copy(video, path)
        library.inotify_add_watch(events, os.fsencode(path), IN_OPEN)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def touched() -> bool:
            found = False
            for look in (server.accept, lambda: os.read(events, 4096)):
                try:
                    look()
                    found = True
                except BlockingIOError:
                    pass
            return found

        try:
            yield server.getsockname()[1], touched
        finally:
            os.close(events)
