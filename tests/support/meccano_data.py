from pathlib import Path

import numpy as np
import simplejpeg

from data_prep import meccano
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.recordings.procedure import load_procedure

REPOSITORY = Path(__file__).parents[2]
PROCEDURE = load_procedure("meccano")
SIZE = Framing((16, 16))
FRAMES = {"0001": 14, "0002": 9, "0007": 11, "0008": 12}
SPLITS = {"0001": "train", "0002": "train", "0007": "val", "0008": "test"}


def state(*installed: int, wrong: tuple[int, ...] = ()) -> str:
    return ",".join("1" if k in installed else "-1" if k in wrong else "0" for k in range(17))


# Its label files as shipped; the steps leave out what the states also have, as in train/0016.
RAW = f"""00001.jpg,{state()}
00004.jpg,{state(0)}
00006.jpg,{state(0, 4, 8)}
00008.jpg,{state(0, 4, 8, wrong=(1,))}
00009.jpg,{state(0, 4, 8)}
"""
STEPS = "00004.jpg,0,Install left dampling fork\n00006.jpg,12,Install left frame\n"
WITH_ERRORS = STEPS + "00008.jpg,4,Incorrectly installed right dampling fork\n"
BOXES = """5,0,0,0.5,0.5,0.2,0.4
6,0,0,0.5,0.5,0.01,0.01
6,0,1,0.25,0.5,0.2,0.4
7,0,1,0.95,0.5,0.2,0.4
8,1,1,0.5,0.5,0.2,0.4
10,1,1,0.5,0.5,0.2,0.4
"""


def picture(name: str, frame: int) -> np.ndarray:
    rng = np.random.default_rng([int(name), frame])
    coarse = rng.integers(0, 256, (6, 12, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(9, 0).repeat(8, 1))  # 54 x 96


def make_data(folder: Path, frames=FRAMES) -> Path:
    """A small MECCANO: frames/RGB_frames/Train/0001/00001.jpg …, psr/train/0001, asd/train."""
    for name, count in frames.items():
        split = SPLITS[name]
        images = folder / "frames/RGB_frames" / split.title() / name
        images.mkdir(parents=True)
        for frame in range(1, count + 1):
            jpeg = simplejpeg.encode_jpeg(picture(name, frame), 95)
            (images / f"{frame:05d}.jpg").write_bytes(jpeg)
        psr = folder / "psr" / split / name
        psr.mkdir(parents=True)
        (psr / "PSR_labels_raw.csv").write_text(RAW)
        (psr / "PSR_labels.csv").write_text(STEPS)
        (psr / "PSR_labels_with_errors.csv").write_text(WITH_ERRORS)
        if name != "0002":
            (folder / "asd" / split).mkdir(parents=True, exist_ok=True)
            (folder / "asd" / split / f"{name}_GT.csv").write_text(BOXES)
    return folder


def make(data: Path, out: Path, **changes) -> None:
    arguments = {
        "frames": data / "frames",
        "labels": data / "psr",
        "asd_labels": data / "asd",
        "framing": SIZE,
    }
    meccano.make_dataset(out, **(arguments | changes))
