"""Pictures of a user's bench, to be behind renders: from picture files and from videos."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stormpsr_jax.base.trees import Tree, join
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
    tree = Tree(str(folder))
    names = [join(inside, name) for inside, _, files in tree.walk() for name in files]
    names = [name for name in names if video.is_video(name) or pictures.has_images([name])]
    if not names:
        raise ValueError(
            f"{folder} holds no picture (.jpg, .png) and no video of a bench (--backgrounds)."
        )
    names = [names[i] for i in _evenly(len(names), MOST)]
    side = round(_LARGER * size)
    framing = Framing((side, side), aspect="crop", quality=_QUALITY)
    found = [
        jpeg
        for name in names
        for place, picture in _pictures(tree, name)
        for jpeg in pictures.encode([(place, picture)], framing)
    ]
    return tuple(found[i] for i in _evenly(len(found), MOST))


def _pictures(tree: Tree, name: str) -> Iterator[tuple[str, pictures.Picture]]:
    if not video.is_video(name):
        yield tree.show(name), tree.read(name)
        return
    frames = video.open_resampled(tree, name, 1.0)
    wanted = set(_evenly(frames.num_frames, _OF_VIDEO))
    for i, (place, picture) in enumerate(frames.read()):
        if i in wanted:
            yield place, picture


def _evenly(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, from first to last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
