from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import simplejpeg


def write(
    path: Path,
    pictures: Iterable[np.ndarray],
    times: Sequence[float] | None = None,
    *,
    fps: int = 12,
    codec: str = "mpeg4",
    ticks: int = 1000,
    faststart: bool = False,
    options: dict[str, str] | None = None,
    **fields,
) -> Path:
    """Writes pictures uint8 (H, W, 3) of one size; returns the path.

    They are shown from `times` on, which are rounded to ticks of a second, or `fps` a second. With
    `faststart` the index of an MP4 or MOV file is in front. `fields` are those of the codec.
    """
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as file:
        stream = file.add_stream(codec, rate=fps, options=options)
        for i, picture in enumerate(pictures):
            if i == 0:
                height, width, _ = picture.shape
                fields = {"height": height, "width": width, "pix_fmt": "yuv420p"} | fields
                fields |= {} if times is None else {"time_base": Fraction(1, ticks)}
                for name, value in fields.items():
                    setattr(stream.codec_context, name, value)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[i] * ticks), Fraction(1, ticks)
            file.mux(stream.encode(frame.reformat(stream.width, stream.height)))
        file.mux(stream.encode())
    return path


HEIGHT, WIDTH = 54, 96


def photograph(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Something with the spectrum of a photograph, and edges."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    image = np.empty((height, width, 3))
    for c in range(3):
        spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.2
        noise = np.fft.irfft2(spectrum, (height, width))
        image[..., c] = 120 + 40 * noise / noise.std()
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, **options) -> bytes:
    return simplejpeg.encode_jpeg(image, 95, "RGB", "444", **options)
