"""Ranges that looks are drawn from."""

from typing import NamedTuple

import numpy as np


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
