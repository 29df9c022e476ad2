"""Videos and folders of pictures to recognise."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import simplejpeg

from stormpsr_jax import recognise

HEIGHT, WIDTH = 48, 65  # odd: annotated videos need even numbers


def write_video(path: Path, pictures: np.ndarray, times: np.ndarray) -> Path:
    """Pictures (N, H, W, 3) shown from these times on, in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
        stream.codec_context.time_base = stream.time_base = unit
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> np.ndarray:
    """All pictures of a video, as FFmpeg gives them."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def write_pictures(folder: Path, pictures: np.ndarray, first: int) -> Path:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), 95)
        (folder / f"{first + i:05d}.jpg").write_bytes(jpeg)
    return folder


def run(model: Path, *words) -> int:
    """The exit status of the command."""
    try:
        return recognise.main([f"--model={model}", *map(str, words)])
    except SystemExit as error:
        return error.code
