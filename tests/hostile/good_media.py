"""Small videos of every container, and pictures of every mode."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import videos

# fmt: off
CODECS = {
    "mp4": "libx264", "mov": "mpeg4", "avi": "mjpeg", "mkv": "mpeg4", "webm": "libvpx",
    "flv": "flv", "ts": "mpeg2video", "mpg": "mpeg1video", "wmv": "wmv2", "3gp": "h263",
}
# fmt: on
FORMATS = {"mjpeg": "yuvj420p", "png": "rgb24"}


def shown(i: int) -> np.ndarray:
    """Pictures of 48 x 64 pixels, all different."""
    noise = np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8)
    return np.ascontiguousarray(noise.repeat(8, 0).repeat(8, 1))


def write_videos(folder: Path) -> None:
    for ending, codec in {**CODECS, "png.mov": "png"}.items():
        rate = 25 if ending == "mpg" else 12
        fields = {"pix_fmt": FORMATS.get(codec, "yuv420p")}
        fields |= {"height": 96, "width": 128} if codec == "h263" else {}
        path = folder / f"video.{ending}"
        videos.write(path, map(shown, range(2 * rate)), fps=rate, codec=codec, **fields)


def image(mode: str) -> Image.Image:
    picture = Image.fromarray(shown(0))
    return picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
