"""Ranges that looks are drawn from."""

import zlib
from typing import NamedTuple

import numpy as np


def streams(seed: int, kind: str, split: str = "", name: str = "") -> list[np.random.Generator]:
    """Independent generators of one recording (or whatever `kind` is), for its four concerns."""
    words = [zlib.crc32(text.encode()) for text in (kind, split, name)]
    sequence = np.random.SeedSequence([seed, *words])
    return [np.random.default_rng(child) for child in sequence.spawn(4)]


class Range(NamedTuple):
    """Of a uniform draw."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """A number of it. What is always the same takes nothing from `rng`."""
        return float(rng.uniform(*self)) if self.low < self.high else self.low


def one(options: tuple[str, ...], rng: np.random.Generator) -> str:
    """One of the options. The only one takes nothing from `rng`."""
    return options[int(rng.integers(len(options)))] if len(options) > 1 else options[0]
