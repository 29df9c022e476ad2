"""Fields of networks that a model folder holds: each stands in its module with its bounds."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

MAX_COMPONENTS = 10_000  # K
MAX_CLIP = 4_096  # T


class Bounds(NamedTuple):
    """What a field may be.

    Attributes:
        values: the lowest and highest number, or the texts to choose from, or (False, True).
        many: whether it is a list, of such values.
    """

    values: tuple
    many: bool = False


def stored(*values: Any, default: Any = dataclasses.MISSING) -> Any:
    """A field that has to be known to build the network again for recognition.

    Args:
        values: as in `Bounds`.
        default: a tuple makes it a list; by default there is no default.
    """
    bounds = Bounds(values, isinstance(default, tuple))
    return dataclasses.field(default=default, metadata={Bounds: bounds})


def bounds_of(kind: type) -> dict[str, Bounds]:
    """The bounds of a module's stored fields, by name."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata[Bounds] for field in fields if Bounds in field.metadata}


def training_only(kind: type) -> dict[str, Any]:
    """The defaults of the fields that change nothing in recognition, such as dropout, by name."""
    return {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if Bounds not in field.metadata
        and field.default is not dataclasses.MISSING
        and field.name not in ("parent", "name", "dtype")
    }
