"""Fields of `model.json`: each is checked for its type and its bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stormpsr_jax.base.files import field, shorten


def check_file(declared: Any, place: str) -> None:
    """Raises ValueError unless an object's `sha256` and `size` can be those of a file."""
    integer(declared, "size", place, 0, 2**48)
    if not re.fullmatch("[0-9a-f]{64}", field(declared, "sha256", str, place)):
        raise ValueError(f"{place}: sha256: {shorten(declared['sha256'])} is none")


def check_keys(data: Any, known: tuple[str, ...], place: str) -> None:
    """Raises ValueError unless it is an object with these fields and no others."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{place}: {shorten(data)} is not an object")
    for key in known:
        if key not in data:
            raise ValueError(f"{place}: {key}: is missing")
    for key in data:
        if key not in known:
            raise ValueError(f"{place}: {shorten(key)}: unknown key; known are {', '.join(known)}")


def integer(data: Any, key: str, place: str, low: int, high: int) -> int:
    """A field that is a whole number in low…high; ValueError if it is not."""
    value = field(data, key, int, place)
    if not low <= value <= high:
        raise ValueError(f"{place}: {key}: {shorten(value)} is not in {low}…{high}")
    return value


def choice(data: Any, key: str, choices: tuple[str, ...], place: str) -> str:
    """A field that is one of these texts; ValueError if it is not."""
    value = field(data, key, str, place)
    if value not in choices:
        raise ValueError(f"{place}: {key}: {shorten(value)} is not one of {', '.join(choices)}")
    return value
