"""The pictures of a recording, as labels and shards see them; `media` opens videos and folders."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

Picture = bytes | np.ndarray  # a JPEG or PNG file, or (H, W, 3) uint8 RGB


class Timestamps(NamedTuple):
    """The pictures of a recording, M as they are stored, by the frames that show them.

    Attributes:
        times: (M,) seconds after the first one, ascending.
        frames: (M,) the first frame, from 0, that shows each picture or a later one.
    """

    times: np.ndarray
    frames: np.ndarray


class Pictures(Protocol):
    """The pictures of one recording, of numbers first_frame … first_frame + num_frames - 1."""

    @property
    def first_frame(self) -> int:
        """The number of the first one."""

    @property
    def num_frames(self) -> int:
        """N."""

    def timestamps(self, fps: float) -> Timestamps:
        """Returns its pictures as they are stored, by the frames that show them at a rate."""

    def read(self) -> Iterator[tuple[str, Picture]]:
        """Yields (its place as messages name it, picture) in order, one at a time."""

    def first(self) -> tuple[str, Picture]:
        """Returns (place, picture) of the first one, without looking at the others."""

    def fingerprint(self) -> int:
        """Returns a number that tells other pictures, without reading them all."""
