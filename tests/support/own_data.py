import json
import struct
from pathlib import Path

import numpy as np
import simplejpeg

from data_prep import own
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.recordings.procedure import Procedure
from tests.support import toy, videos

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
    picture = picture or (lambda i: np.full((48, 64, 3), grey(i), np.uint8))
    shown = map(picture, range(len(times)))
    # The index of an .mp4 in front, of a .mov at the end.
    faststart = path.suffix == ".mp4"
    return videos.write(path, shown, times, fps=30, codec=codec, faststart=faststart)


STEPS = "time,step\n1,0\n2.05,Install cover\n3.4,6\n"


def make_data(folder: Path, names=("bench1", "bench2", "bench3")) -> Path:
    """folder/videos/<name>.mp4, folder/labels/<name>.csv"""
    (folder / "labels").mkdir(parents=True)
    for name in names:
        write_video(folder / "videos" / f"{name}.mp4", codec="mpeg4")
        (folder / "labels" / f"{name}.csv").write_text(STEPS)
    return folder


def write_pictures(folder: Path, first: int = 0, shape=(48, 64), levels=grey) -> None:
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


def make(data: Path, out: Path, **changes) -> None:
    arguments = {
        "videos": data / "videos",
        "labels": data / "labels",
        "procedure": PROCEDURE,
        "framing": Framing((24, 32)),
    }
    own.make_dataset(out, **(arguments | changes))


def words(data: Path, out: Path, *more: str) -> list[str]:
    """Those of the command `data own`."""
    (data / "pump.json").write_text(json.dumps(PROCEDURE.to_json()))
    given = {"videos": "videos", "labels": "labels", "procedure": "pump.json"}
    return [*(f"--{flag}={data / name}" for flag, name in given.items()), f"--out={out}", *more]


def opened(out: Path) -> dict:
    sources = [ClipSource(out, split, PROCEDURE) for split in list_splits(out)]
    return {name: (r, s) for s in sources for name, r in s.recordings.items()}


def rotate(path: Path) -> None:
    """Turns an MP4's pictures by a quarter, by the display matrix of its video track."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # version 0
    assert struct.unpack_from(">9i", content, start)[::4] == (0x10000, 0x10000, 0x40000000)
    struct.pack_into(">9i", content, start, 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(content)
