"""Ranges that looks are drawn from, and their halves, for tests on looks that no training saw."""

import dataclasses
from typing import Any, NamedTuple, TypeVar

import numpy as np

HALVES = ("all", "lower", "upper")
_SHARE = 0.45  # of a range that is in a half; what lies in the middle is in neither

T = TypeVar("T")


class Range(NamedTuple):
    """Of a uniform draw."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """A number of it. What is always the same takes nothing from `rng`."""
        return float(rng.uniform(*self)) if self.low < self.high else self.low


def one(options: tuple[T, ...], rng: np.random.Generator) -> T:
    """One of the options. The only one takes nothing from `rng`."""
    return options[int(rng.integers(len(options)))] if len(options) > 1 else options[0]


def half(value: Any, which: str) -> Any:
    """The value with every `Range` in it, and every choice of several options, cut to a half.

    Args:
        value: a Range, a tuple of options, or a dataclass of such; anything else stays.
        which: of HALVES. "lower" and "upper" have nothing in common.
    """
    if which == "all":
        return value
    if isinstance(value, Range):
        reach = _SHARE * (value.high - value.low)
        if which == "lower":
            return Range(value.low, value.low + reach)
        return Range(value.high - reach, value.high)
    if isinstance(value, tuple) and len(value) > 1:
        middle = len(value) // 2
        return value[:middle] if which == "lower" else value[middle:]
    if isinstance(value, tuple):
        return tuple(half(item, which) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cut = {f.name: half(getattr(value, f.name), which) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **cut)
    return value
