"""Pictures of a user's bench, to be behind renders: from picture files and from videos."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stormpsr_jax.base import folders
from stormpsr_jax.base.folders import printable
from stormpsr_jax.media import pictures, video
from stormpsr_jax.media.framing import Framing

MOST = 64  # pictures that are kept
_OF_VIDEO = 8  # frames of each video, from its first to its last
_LARGER = 1.5  # a background than a picture, of which a part is in view
_QUALITY = 95


def read(folder: str | Path, size: int) -> tuple[bytes, ...]:
    """Reads the pictures and videos of a folder, and of those in it.

    Args:
        folder: of JPEG and PNG files with any names, and of videos.
        size: of the pictures that they are to be behind.

    Returns:
        JPEG files of one size; at most MOST, evenly of all that there are.

    Raises:
        ValueError: there is none, or one that cannot be read.
    """
    paths = [inner / name for inner, _, names in folders.walk(Path(folder)) for name in names]
    paths = [p for p in paths if video.is_video(p.name) or pictures.has_images([p.name])]
    if not paths:
        raise ValueError(
            f"{folder} holds no picture (.jpg, .png) and no video of a bench (--backgrounds)."
        )
    paths = [paths[i] for i in _evenly(len(paths), MOST)]
    side = round(_LARGER * size)
    framing = Framing((side, side), aspect="crop", quality=_QUALITY)
    found = [
        jpeg
        for path in paths
        for place, picture in _pictures(path)
        for jpeg in pictures.encode([(place, picture)], framing)
    ]
    return tuple(found[i] for i in _evenly(len(found), MOST))


def _pictures(path: Path) -> Iterator[tuple[str, pictures.Picture]]:
    if not video.is_video(path.name):
        yield printable(path), pictures.read_file(path)
        return
    frames = video.open_resampled(path, 1.0)
    wanted = set(_evenly(frames.num_frames, _OF_VIDEO))
    for i, (place, picture) in enumerate(frames.read()):
        if i in wanted:
            yield place, picture


def _evenly(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, from first to last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
