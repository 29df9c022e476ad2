"""Small videos of every container, and pictures of every mode."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

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
    """Writes two seconds of video into a file of each container."""
    for ending, codec in {**CODECS, "png.mov": "png"}.items():
        rate = 25 if ending == "mpg" else 12
        with av.open(str(folder / f"video.{ending}"), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height = (128, 96) if codec == "h263" else (64, 48)
            stream.pix_fmt = FORMATS.get(codec, "yuv420p")
            for i in range(2 * rate):
                frame = av.VideoFrame.from_ndarray(shown(i), format="rgb24")
                container.mux(stream.encode(frame.reformat(stream.width, stream.height)))
            container.mux(stream.encode())


def image(mode: str) -> Image.Image:
    """A picture of a mode of Pillow."""
    picture = Image.fromarray(shown(0))
    return picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
