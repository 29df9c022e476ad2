"""Pictures as small JPEG files, for reports, pages and short videos."""

import math

import numpy as np
import simplejpeg
from PIL import Image

THUMBNAIL = 320  # pixels of the longer side, at most
# Pixels of a picture that goes into a video. Of larger ones (4K becomes 1920 x 1080) an encoder
# holds some GiB, and a screen shows no more.
MAX_SHOWN = 2**22
_QUALITY, _THUMBNAIL_QUALITY = 95, 85  # of pictures that wait for a video, and of a report's


def reduced(picture: np.ndarray) -> np.ndarray:
    """Returns a picture uint8 (H, W, 3) as a video shows it.

    One of more than MAX_SHOWN pixels is reduced to a half, a third and so on.
    """
    return _reduced(picture, math.ceil(math.sqrt(picture[..., 0].size / MAX_SHOWN)))


def to_jpeg(picture: np.ndarray) -> bytes:
    """Returns a picture uint8 (H, W, 3) as a JPEG file that looks the same."""
    return simplejpeg.encode_jpeg(picture, _QUALITY, "RGB", "444")


def thumbnail(picture: np.ndarray, longest: int = THUMBNAIL) -> bytes:
    """Returns a picture uint8 (H, W, 3) as a JPEG file of at most `longest` pixels a side."""
    factor = math.ceil(max(picture.shape[:2]) / longest)
    return simplejpeg.encode_jpeg(_reduced(picture, factor), _THUMBNAIL_QUALITY)


def _reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    if factor > 1:
        picture = np.asarray(Image.fromarray(picture).reduce(factor))
    return np.ascontiguousarray(picture)
