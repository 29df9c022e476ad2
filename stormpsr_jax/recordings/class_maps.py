"""From the classes of somebody's detector to those of a procedure."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.recordings.boxes import Id
from stormpsr_jax.recordings.procedure import Procedure

# Characters of a file of names, of which YAML takes a second for 60,000. Those of LVIS, of 1203
# classes, has 40,000.
_MAX_NAMES = 2**18


def by_name(procedure: Procedure) -> dict[str, int]:
    """Returns the classes of a procedure by what boxes are called: digits of a state, and others.

    The others are "background", "error" and "error_state".
    """
    states = procedure.to_json()["states"]
    errors = dict.fromkeys(("error", "error_state"), procedure.error_class)
    return {"background": 0, **{state: c for c, state in enumerate(states, start=1)}, **errors}


def of_table(names: Mapping[Id, str], procedure: Procedure, place: str) -> dict[Id, int]:
    """Returns the class of each category id of a COCO file, given their names.

    A category is named as in `by_name`; a state that is not catalogued has class 0. IndustReal's
    own files, though, name class n as n + 1 (1 "background" … S + 2 "error_state"), while the ids
    of their boxes are classes: with such a table a class is its id.

    Raises:
        ValueError: a name that is none of these, or a table that is shifted in part.
    """
    known, classes, last = by_name(procedure), dict[Id, int](), procedure.error_class
    for key, name in names.items():
        state = len(name) == procedure.num_components and set(name) <= {"0", "1"}
        if name not in known and not state:
            raise ValueError(
                f"{place}: categories: {files.shorten(name)} is neither a state of procedure "
                f"{procedure.name!r} nor background or error_state"
            )
        classes[key] = known.get(name, 0)
    if names.get(1) != "background" or classes.get(last + 1) != last:
        return classes
    if any(key != c + 1 for key, c in classes.items()):
        raise ValueError(
            f"{place}: categories: background is 1, but not every state is one above its class in "
            f"procedure {procedure.name!r}"
        )
    return {c: c for c in range(last + 1)}


class ClassMap:
    """Translates a detector's classes into those of a procedure.

    Args:
        data: {the detector's class: ours}, where ours is a number in 0…S+1, a catalogued state
            such as "1100", "background" or "error".

    Raises:
        ValueError: a class that the procedure does not have, or a catalogued state given twice.
    """

    def __init__(self, data: Mapping[str, Any], procedure: Procedure) -> None:
        if not isinstance(data, Mapping):
            raise ValueError("a class map is an object {detector's class: class of the procedure}")
        self._procedure, self._reported = procedure, set[Id]()
        self._classes: dict[str, int] = {}
        named, source = by_name(procedure), dict[int, str]()
        for name, value in data.items():
            c = named.get(value, -1) if isinstance(value, str) else value
            if type(c) is not int or not 0 <= c <= procedure.error_class:
                raise ValueError(
                    f"class {files.shorten(name)} maps to {files.shorten(value)}, which is none of "
                    f"0…{procedure.error_class}, 'background', 'error' or a catalogued state of "
                    f"procedure {procedure.name!r}"
                )
            if c in source and 1 <= c <= procedure.num_states:
                both = f"{files.shorten(source[c])} and {files.shorten(name)}"
                raise ValueError(f"classes {both} both map to class {c}")
            source[c], self._classes[str(name)] = name, c

    def __call__(self, detected: Id, place: str) -> int:
        """Returns the procedure's class; of one it has not ValueError, and then at others 0."""
        if str(detected) in self._classes or detected in self._reported:
            return self._classes.get(str(detected), 0)
        self._reported.add(detected)
        raise ValueError(f"{place}: class {files.shorten(detected)} is not in the class map")

    def __str__(self) -> str:
        procedure, values = self._procedure, set(self._classes.values())
        missing = sorted({*range(1, procedure.error_class)} - values)
        text = f"{len(self._classes)} classes: {procedure.num_states - len(missing)} of the "
        text += f"{procedure.num_states} states of procedure {procedure.name!r}"
        for c, what in ((procedure.error_class, "error state"), (0, "background")):
            text += f", {what if c in values else 'no ' + what}"
        return f"{text}; not {', '.join(map(str, missing))}" if missing else text


def read_names(path: str | os.PathLike) -> dict[int, str]:
    """Reads the names of a detector's classes, by number from 0.

    Args:
        path: a YAML file with `names` (the data.yaml of Ultralytics), a list or numbers with names;
            or a text file with a name a line. In YAML a name of digits alone stays as it is
            written. ValueError where it is neither.
    """
    text, path = files.read_text(path), os.fspath(path)
    if len(text) > _MAX_NAMES:
        raise ValueError(f"{path}: has more than {_MAX_NAMES} characters; it is no list of names")
    if not path.lower().endswith((".yaml", ".yml")):
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


def first_category(categories: Iterable[Any], names: Mapping[int, str], place: str) -> int:
    """Returns the `category_id` that class 0 has in COCO results, given the names by number from 0.

    Ultralytics counted from 0 once and counts from 1 by now; the files do not say which.

    Raises:
        ValueError: both are possible, or neither is; names the place.
    """
    numbers = {c for c in categories if isinstance(c, int) and abs(c) <= files.MAX_WHOLE}
    last = max(names)
    possible = [first for first in (0, 1) if all(0 <= c - first <= last for c in numbers)]
    if len(possible) == 1 or not numbers:
        return possible[0]
    what = (
        "may count classes from 0 or from 1" if possible else f"are not those of {last + 1} names"
    )
    raise ValueError(
        f"{place}: category_id: the numbers {min(numbers)}…{max(numbers)} {what}; give "
        "--first_category=1 if the first class is 1, as Ultralytics writes it by now, or 0"
    )
