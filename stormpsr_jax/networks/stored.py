"""What files hold of networks: fields, each in its module with what it may be."""

import dataclasses
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

MAX_COMPONENTS = 10_000  # K
MAX_CLIP = 4_096  # T
_MAX_LIST = 8  # values of a field that is a list
# What fields of users' own networks may be, by their types; `stored` sets other bounds.
_INT = Annotated[int, msgspec.Meta(ge=-(2**16), le=2**16)]
_HELD: dict[Any, Any] = {bool: bool, int: _INT, float: float, str: str}
_HELD |= {tuple[int, ...]: tuple[_INT, ...], tuple[float, ...]: tuple[float, ...]}


def stored(*values: Any, default: Any = dataclasses.MISSING) -> Any:
    """A field that has to be known to build the network again for recognition.

    Args:
        values: the lowest and highest number, or the texts to choose from, or (False, True).
        default: a tuple makes it a list of such values; by default there is no default.
    """
    kind: Any = type(values[0])
    if kind is str:
        kind = Literal[values]
    elif kind is not bool:
        kind = Annotated[kind, msgspec.Meta(ge=values[0], le=values[1])]
    if isinstance(default, tuple):
        kind = Annotated[tuple[kind, ...], msgspec.Meta(max_length=_MAX_LIST)]
    return dataclasses.field(default=default, metadata={"stored": kind})


def stored_types(module: type) -> dict[str, Any]:
    """The types of a module's stored fields, by name; of a user's own, of all plain ones."""
    hints = {} if is_ours(module) else get_type_hints(module)
    kinds = {
        field.name: field.metadata.get("stored", _HELD.get(hints.get(field.name)))
        for field in dataclasses.fields(module)
    }
    return {name: kind for name, kind in kinds.items() if kind is not None}


def is_ours(module: type) -> bool:
    """Whether a network is one of this package."""
    return module.__module__.split(".")[0] == __name__.split(".")[0]


def training_only(module: type) -> dict[str, Any]:
    """The defaults of the fields that change nothing in recognition, such as dropout, by name."""
    return {
        field.name: field.default
        for field in dataclasses.fields(module)
        if "stored" not in field.metadata
        and field.default is not dataclasses.MISSING
        and field.name not in ("parent", "name", "dtype")
    }
