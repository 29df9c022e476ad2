"""Where what is drawn comes from: a generator for each concern of each recording."""

import zlib

import numpy as np


def streams(seed: int, kind: str, split: str = "", name: str = "") -> list[np.random.Generator]:
    """Independent generators of one recording (or whatever `kind` is), for its four concerns."""
    words = [zlib.crc32(text.encode()) for text in (kind, split, name)]
    sequence = np.random.SeedSequence([seed, *words])
    return [np.random.default_rng(child) for child in sequence.spawn(4)]
