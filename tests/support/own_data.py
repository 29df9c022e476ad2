"""What the tests of a user's own videos have in common: small videos, and labels for them."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import simplejpeg

from data_prep import own
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.psr.procedure import Procedure
from tests.support import toy

FPS = 5
CONTENT = toy.content("seal, cover, screw", name="pump", fps=FPS, variant="assembly")
CONTENT["variants"]["assembly"]["recordings"] = ["bench*"]
CONTENT["variants"]["repair"] = {
    "initial_state": "111",
    "expected": [8],
    "recordings": ["repair*"],
}
PROCEDURE = Procedure.from_json(CONTENT)
LEVELS = 12  # grey levels between two frames of a video
TIMES = np.arange(0, 4, 0.2)


def grey(i: int) -> int:
    return 8 + LEVELS * (i % 20)


def write_video(path: Path, times=TIMES, codec="libx264", picture=None) -> Path:
    """Frames of one grey level each (or picture(i)) at the given times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = Fraction(1, 1000)
    # The index of an .mp4 in front, of a .mov at the end.
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = unit
        for i, time in enumerate(times):
            image = np.full((48, 64, 3), grey(i), np.uint8) if picture is None else picture(i)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


STEPS = "time,step\n1,0\n2.05,Install cover\n3.4,6\n"


def make_data(folder: Path, names=("bench1", "bench2", "bench3")) -> Path:
    """folder/videos/<name>.mp4, folder/labels/<name>.csv"""
    (folder / "labels").mkdir(parents=True)
    for name in names:
        write_video(folder / "videos" / f"{name}.mp4", codec="mpeg4")
        (folder / "labels" / f"{name}.csv").write_text(STEPS)
    return folder


def write_pictures(folder: Path, first: int = 0, shape=(48, 64), levels=grey) -> None:
    """The same as image files."""
    folder.mkdir(parents=True)
    for i in range(len(TIMES)):
        jpeg = simplejpeg.encode_jpeg(np.full((*shape, 3), levels(i), np.uint8), 95)
        (folder / f"{first + i:06d}.jpg").write_bytes(jpeg)


def make_pictures(folder: Path, names=("bench1", "bench2", "bench3")) -> Path:
    """folder/videos/<name>/000000.jpg …, folder/labels/<name>.csv"""
    (folder / "labels").mkdir(parents=True)
    for name in names:
        write_pictures(folder / "videos" / name)
        (folder / "labels" / f"{name}.csv").write_text(STEPS)
    return folder


def make(data: Path, out: Path, **changes) -> bool:
    arguments = {
        "videos": data / "videos",
        "labels": data / "labels",
        "procedure": PROCEDURE,
        "framing": Framing((24, 32)),
    }
    return own.make_dataset(out, **(arguments | changes))


def opened(out: Path) -> dict:
    """All recordings of a folder by name, and their sources."""
    sources = [ClipSource(out, split, PROCEDURE) for split in list_splits(out)]
    return {name: (r, s) for s in sources for name, r in s.recordings.items()}


def rotate(path: Path, matrix: tuple[int, ...]) -> None:
    """Sets the display matrix of an MP4's video track."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # version 0
    assert struct.unpack_from(">9i", content, start)[::4] == (0x10000, 0x10000, 0x40000000)
    struct.pack_into(">9i", content, start, *matrix)
    path.write_bytes(content)
