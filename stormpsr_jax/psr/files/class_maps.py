"""From the classes of somebody's detector to those of a procedure."""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.psr.procedure import Procedure

_NAMED = {
    "background": lambda procedure: 0,
    "error": lambda procedure: procedure.error_class,
    "error_state": lambda procedure: procedure.error_class,
}
# Characters of a file of names, of which YAML takes a second for 60,000. Those of LVIS, of 1203
# classes, has 40,000.
_MAX_NAMES = 2**18


class ClassMap:
    """Translates a detector's classes into those of a procedure.

    Args:
        data: {the detector's class: ours}, where ours is a number in 0…S+1, a catalogued state
            such as "1100", "background" or "error"; or a whole number that is added to the
            detector's class.

    Raises:
        ValueError: a class that the procedure does not have, or a catalogued state given twice.
    """

    def __init__(self, data: Mapping[str, Any] | int, procedure: Procedure) -> None:
        self._procedure = procedure
        self._offset = data if isinstance(data, int) else None
        self._classes: dict[str, int] = {}
        if isinstance(data, int):
            return
        if not isinstance(data, Mapping):
            raise ValueError("a class map is an object {detector's class: class of the procedure}")
        self._states = {state: c for c, state in enumerate(procedure.to_json()["states"], start=1)}
        source: dict[int, str] = {}
        for name, value in data.items():
            c = self._parse(name, value)
            if c in source and 1 <= c <= procedure.num_states:
                both = f"{files.shorten(source[c])} and {files.shorten(name)}"
                raise ValueError(f"classes {both} both map to class {c}")
            source[c] = name
            self._classes[str(name)] = c

    def _parse(self, name: str, value: Any) -> int:
        procedure = self._procedure
        if isinstance(value, int) and not isinstance(value, bool):
            if 0 <= value <= procedure.error_class:
                return value
        elif isinstance(value, str):
            if value in _NAMED:
                return _NAMED[value](procedure)
            if value in self._states:
                return self._states[value]
        raise ValueError(
            f"class {files.shorten(name)} maps to {files.shorten(value)}, which is none of "
            f"0…{procedure.error_class}, 'background', 'error' or a catalogued state of procedure "
            f"{procedure.name!r}"
        )

    def __call__(self, detected: int | str) -> int:
        """Returns the procedure's class; ValueError for a class that the map does not have."""
        if self._offset is not None:
            c = int(detected) + self._offset
            if not 0 <= c <= self._procedure.error_class:
                raise ValueError(
                    f"class {detected} with offset {self._offset} is not in "
                    f"0…{self._procedure.error_class}"
                )
            return c
        if str(detected) not in self._classes:
            raise ValueError(f"class {files.shorten(detected)} is not in the class map")
        return self._classes[str(detected)]

    def missing(self) -> list[int]:
        """Catalogued states (1…S) that no class of the map leads to."""
        if self._offset is not None:
            return []
        return sorted(set(range(1, self._procedure.error_class)) - set(self._classes.values()))

    def __str__(self) -> str:
        if self._offset is not None:
            return f"classes are the detector's with {self._offset} added"
        procedure, values = self._procedure, set(self._classes.values())
        num = procedure.num_states
        text = f"{len(self._classes)} classes: {num - len(self.missing())} of the {num} states of "
        text += f"procedure {procedure.name!r}"
        for c, what in ((procedure.error_class, "error state"), (0, "background")):
            text += f", {what if c in values else 'no ' + what}"
        return text


def read_names(path: str | os.PathLike) -> dict[int, str]:
    """Reads the names of a detector's classes, by number from 0.

    Args:
        path: a YAML file with `names` (the data.yaml of Ultralytics), a list or numbers with names;
            or a text file with a name a line. In YAML a name of digits alone stays as it is
            written.

    Raises:
        ValueError: not such a file.
    """
    path = pathlib.Path(path)
    text = files.read_text(path)
    if len(text) > _MAX_NAMES:
        raise ValueError(f"{path}: has more than {_MAX_NAMES} characters; it is no list of names")
    if path.suffix.lower() not in (".yaml", ".yml"):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            raise ValueError(f"{path}: has no names of classes")
        return dict(enumerate(lines))
    try:
        import yaml  # only here, as nothing else needs it
    except ModuleNotFoundError:
        what = "YAML needs pip install pyyaml; or give a text file with a name a line"
        raise ValueError(f"{path}: {what}") from None
    try:
        # The base loader makes texts, lists and mappings and nothing else: no number in base 8 of
        # the state 0110, and no object.
        data = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{path}: not YAML that can be read ({what})") from error
    names = data.get("names") if isinstance(data, Mapping) else None
    if isinstance(names, list):
        names = {str(i): name for i, name in enumerate(names)}
    if not isinstance(names, Mapping) or not names:
        raise ValueError(f"{path}: has no 'names' of classes, as the data.yaml of Ultralytics has")
    for key, name in names.items():
        if not (isinstance(key, str) and re.fullmatch("[0-9]{1,6}", key, re.ASCII)):
            raise ValueError(f"{path}: names: {files.shorten(key)} is no number of a class")
        if not isinstance(name, str):
            raise ValueError(f"{path}: names: {key}: {files.shorten(name)} is no name")
    return {int(key): name for key, name in names.items()}


def first_category(categories: Iterable[Any], names: Mapping[int, str]) -> int:
    """Returns the `category_id` that class 0 has in COCO results, given the names by number from 0.

    Ultralytics counted from 0 once and counts from 1 by now; the files do not say which.

    Raises:
        ValueError: both are possible, or neither is.
    """
    numbers = {c for c in categories if isinstance(c, int) and abs(c) <= files.MAX_WHOLE}
    last = max(names)
    if not numbers:
        return 0
    possible = [first for first in (0, 1) if all(0 <= c - first <= last for c in numbers)]
    if len(possible) == 1:
        return possible[0]
    what = (
        "may count classes from 0 or from 1" if possible else f"are not those of {last + 1} names"
    )
    raise ValueError(
        f"category_id: the numbers {min(numbers, default='')}…{max(numbers, default='')} {what}; "
        "give --first_category=1 if the first class is 1, as Ultralytics writes it by now, or 0"
    )
