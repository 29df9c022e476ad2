"""Videos, pictures and zip files that somebody made to do harm, given to `data_prep.own`.

What nobody can notice, nobody has to: a bit of a picture's data, or the end of a stream that says
nowhere how long it is. A container that says so and was cut off has to be an error, as has a
picture that ends too early.
"""

import contextlib
import ctypes
import json
import os
import random
import shutil
import socket
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

from data_prep import own
from stormpsr_jax.data.clips import ClipSource, list_splits
from tests.hostile.pictures import FOLDERS
from tests.hostile.processes import MEMORY, call, made_once
from tests.hostile.references import REFERENCES
from tests.hostile.runs import Found
from tests.hostile.sources import BROKEN, CODECS, DRAWN, LYING, SECONDS, Place
from tests.hostile.zips import WAYS_OF_ZIPS, pack, spoil_zip
from tests.support.own_data import PROCEDURE, write_video

SOURCES = BROKEN | LYING | DRAWN | FOLDERS | REFERENCES
IN_OPEN = 0x20  # of inotify


def write_media(folder: Path) -> None:
    """Writes small videos and pictures of every kind into a folder."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 6, 8, 3), np.uint8)
    times = np.arange(0, SECONDS, 1 / 12)

    def picture(i: int) -> np.ndarray:
        return np.ascontiguousarray(noise[i % 60].repeat(8, 0).repeat(8, 1))

    formats = {"mjpeg": "yuvj420p", "png": "rgb24"}
    for name, codec in {**{f"video.{e}": c for e, c in CODECS.items()}, "png.mov": "png"}.items():
        rate = 25 if name.endswith("mpg") else 12
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height = (128, 96) if codec == "h263" else (64, 48)
            stream.pix_fmt = formats.get(codec, "yuv420p")
            for i in range(SECONDS * rate):
                frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
                container.mux(stream.encode(frame.reformat(stream.width, stream.height)))
            container.mux(stream.encode())
    write_video(folder / "clean.mp4", times[:12], "mpeg4", picture)
    write_video(folder / "one.mp4", times[:1], "mpeg4", picture)
    write_video(folder / "uneven.mkv", times**2 / SECONDS, "mpeg4", picture)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    image = Image.fromarray(picture(0))
    image.save(folder / "plain.jpg", quality=95)
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "plain.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    for mode in ("L", "P", "1", "RGBA"):
        image.convert(mode).save(folder / f"{mode}.png")
    image.convert("L").convert("I;16").save(folder / "I16.png")
    for kind in ("gif", "bmp", "tiff", "webp", "ppm"):
        image.save(folder / f"other.{kind}")


def hostile_media(rng: random.Random, place: Path, base: Path) -> Found:
    """Two sound recordings and a hostile one, as they are or in a zip file, or a hostile zip."""
    media = made_once(base / "media", write_media)
    videos, labels, out = place / "videos", place / "labels", place / "out"
    videos.mkdir()
    (place / "procedure.json").write_text(json.dumps(PROCEDURE.to_json()))
    for name in ("bench1", "bench2"):
        shutil.copy(media / "clean.mp4", videos / f"{name}.mp4")
    for name in ("bench1", "bench2", "bench3"):
        (labels / name).mkdir(parents=True)
        (labels / name / "PSR_labels_raw.csv").write_text("000000.jpg,0,0,0\n")
    (place / "secret").mkdir()
    secrets = (place / "secret" / "secret.mp4", videos / "beside.dat")
    with watched(secrets, media / "video.mp4") as (port, touched):
        names, fails, frames = {"bench3", "videos"}, False, 0
        if rng.random() < 0.2:
            shutil.copy(media / "video.mp4", videos / "bench3.mp4")
            pack(rng, videos, place / "videos.zip")
            way = rng.choice((*WAYS_OF_ZIPS, "large"))
            whole = media / "video.mp4"
            what, name, fails = spoil_zip(rng, way, place / "videos.zip", "bench3.mp4", whole)
            names = {name}
        else:
            what = rng.choice(list(SOURCES))
            source = SOURCES[what]
            made = source.make(Place(videos, media, *secrets, port, rng, "bench3"))
            if made.is_file() and made.stem != "bench3":  # a name that no file should have
                with contextlib.suppress(OSError):
                    (labels / "bench3").rename(labels / made.stem)
                names = {""}
            fails, frames = bool(source.text), source.frames
            if rng.random() < 0.2:
                pack(rng, videos, place / "videos.zip")  # what cannot be packed is not there
                what = f"in a zip file: {what}"
        touched()  # by the packing
        before = _inside(place)
        words = [f"--videos={videos if videos.exists() else place / 'videos.zip'}"]
        words += [f"--labels={labels}", f"--procedure={place / 'procedure.json'}", f"--out={out}"]
        words += ["--workers=1", "--size=16", "--aspect=pad"]
        outcome = call(_made(words, out), place, memory=MEMORY)
        elsewhere = touched() or _inside(place) != before
    sound = False
    if not outcome.code and not fails:
        found = json.loads(outcome.output.rpartition("\nmade ")[2])
        sound = found.pop("bench1") == found.pop("bench2")  # copies of one video
        sound = sound and all(count >= frames for count, _ in found.values()) and len(found) == 1
    wrong = outcome.judged(names, sound)
    return what, wrong | ({"outside"} if elsewhere else set()), outcome.output


def _made(words: list[str], out: Path) -> Callable[[], None]:
    """The command; then a checksum of the pictures of each recording that it has made."""

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
