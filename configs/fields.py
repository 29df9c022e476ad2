"""What stands in configs/default.py: the default of each field with the values that it may have."""

import dataclasses
import math
import types
from collections.abc import Iterator, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a config.

    Attributes:
        default: its value, whose type every other value has to have.
        low, high: range of a number, or of each number of a list.
        choices: of a text, or of each text of a list; None: any text.
        also: a number outside of the range that is allowed too, and what it means.
        of: what the numbers of a list are of, one for each; it may be empty if the default is.
        like: a value to name in messages, where the default is an empty list.
        own: whether an import path MODULE:NAME, of a user's own code, stands for a choice too.
    """

    default: Any
    low: float = -math.inf
    high: float = math.inf
    choices: Sequence[str] | None = None
    also: tuple[float, str] | None = None
    of: Sequence[str] = ()
    like: tuple[float | str, ...] = ()
    own: bool = False

    @property
    def example(self) -> Any:
        """A value of its type."""
        return self.like or self.default


def field(default: Any, low: float, high: float = math.inf, **rest: Any) -> Field:
    """A number, or a list of numbers, in low … high."""
    return Field(default, low, high, **rest)


def one_of(*choices: str, default: Any = None, own: bool = False) -> Field:
    """A text, or a list of texts, out of `choices`, by default the first; `own`: see `Field`."""
    like = choices[:1] if default == () else ()
    return Field(choices[0] if default is None else default, choices=choices, like=like, own=own)


class Section(types.SimpleNamespace):
    """Fields, or plain values where any of their type will do, and further sections, by name."""


def flatten(section: Section, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Yields the name of each field, joined by dots, with its Field."""
    for name, value in vars(section).items():
        if isinstance(value, Section):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, Field) else Field(value)


def values(section: Section) -> dict[str, Any]:
    """The default of each field, and the same of each section."""
    found = {}
    for name, value in vars(section).items():
        if isinstance(value, Section):
            found[name] = values(value)
        else:
            found[name] = value.default if isinstance(value, Field) else value
    return found


def wrong_with(field: Field, value: Any) -> list[str]:
    """Says what is wrong with a value of the right type; an empty list if nothing is."""
    if field.choices is not None:
        if field.own and ":" in value:
            return []
        what = f"is not one of {', '.join(field.choices)}{', or MODULE:NAME of yours' * field.own}"
        if isinstance(value, list | tuple):
            return [f"{item!r} {what}" for item in value if item not in field.choices]
        return [] if value in field.choices else [what]
    if field.of:
        if not value and not field.default:
            return []
        good = len(value) == len(field.of) and all(field.low <= i <= field.high for i in value)
        what = f"{field.low:g}…{field.high:g} is needed for each of {', '.join(field.of)}"
        return [] if good else [what]
    if isinstance(value, list | tuple):
        return [f"{item}: {what}" for item in value for what in wrong_with(field, item)]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    if not math.isfinite(value):
        return ["is not a finite number"]
    if field.low <= value <= field.high or (field.also and value == field.also[0]):
        return []
    if math.isinf(field.high):
        also = f", or {field.also[0]} for {field.also[1]}" if field.also else ""
        return [f"at least {field.low:g} is needed{also}"]
    return [f"{field.low:g}…{field.high:g} is needed"]
