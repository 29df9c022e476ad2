"""Procedures as data: the components, catalogued states and variants of one product.

A procedure file is JSON: ``{"name", "fps", "components": [names], "states": ["1000…", …],
"variants": {NAME: {"initial_state": "0000…", "expected": [step ids], "recordings": [globs],
"precedence": [[before, after], …]}}}``; only ``precedence`` is optional. Step ids are 3k (install
component k), 3k+1 (incorrectly install) and 3k+2 (remove).
"""

import dataclasses
import fnmatch
import functools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PACKAGED = pathlib.Path(__file__).parents[1] / "procedures"
_KEYS = ("name", "fps", "components", "states", "variants")
_VARIANT_KEYS = ("initial_state", "expected", "recordings")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of carrying out a procedure.

    Attributes:
        name: its key in the procedure file.
        initial_state: K values in {0, 1} that hold before the first step.
        expected: step ids that may complete (decoder B3), ascending.
        recordings: globs; a recording belongs to the one variant with a glob that matches its name.
        precedence: pairs (before, after) of step ids, free of cycles.
    """

    name: str
    initial_state: tuple[int, ...]
    expected: tuple[int, ...]
    recordings: tuple[str, ...]
    precedence: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Procedure:
    """The product: K components, S catalogued states (S, K) int8 and the variants by name."""

    name: str
    fps: float
    components: tuple[str, ...]
    states: np.ndarray
    variants: dict[str, Variant]

    @property
    def num_components(self) -> int:
        """K."""
        return len(self.components)

    @property
    def num_states(self) -> int:
        """S, the catalogued states (background and error state not counted)."""
        return len(self.states)

    @property
    def error_class(self) -> int:
        """S + 1, the detector class of every state with an incorrectly installed component."""
        return self.num_states + 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Procedure) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.components))

    def variant_for(self, recording: str, override: str | None = None) -> Variant:
        """Returns the variant of a recording: ``override`` if given, else the one that matches.

        Raises:
            ValueError: no variant of that name, or none or several match the recording.
        """
        if override is not None:
            if override not in self.variants:
                raise ValueError(
                    f"variant {override!r} is not in procedure {self.name!r}; "
                    f"--variant takes one of {', '.join(self.variants)}"
                )
            return self.variants[override]
        found = [
            v
            for v in self.variants.values()
            if any(fnmatch.fnmatchcase(recording, glob) for glob in v.recordings)
        ]
        if len(found) != 1:
            what = "no variant matches" if not found else "several variants match"
            names = "" if not found else f" ({', '.join(v.name for v in found)})"
            raise ValueError(
                f"{what} recording {recording!r} in procedure {self.name!r}{names}; "
                f"pass --variant or mend the 'recordings' globs of the procedure file"
            )
        return found[0]

    def step_name(self, step_id: int) -> str:
        """Returns the description of a step, worded as in the label files of the data sets."""
        if not 0 <= step_id < 3 * self.num_components:
            raise ValueError(
                f"step id {step_id} is not in 0…{3 * self.num_components - 1} "
                f"(procedure {self.name!r} has {self.num_components} components)"
            )
        verb = ("Install", "Incorrectly installed", "Remove")[step_id % 3]
        return f"{verb} {self.components[step_id // 3]}"

    def state_class(self, state: Sequence[int] | np.ndarray) -> int:
        """Returns the detector class of one state vector (K,); see `state_classes`."""
        return int(self.state_classes(np.asarray(state)[None])[0])

    def state_classes(self, states: np.ndarray) -> np.ndarray:
        """Returns the detector class of each state vector.

        Args:
            states: (N, K) values in {-1, 0, 1}.

        Returns:
            (N,) int64: 1…S for a catalogued state, S+1 where any value is -1, and 0 for an
            uncatalogued state, which a detector ignores (neither positive nor background).
        """
        states = np.ascontiguousarray(states, np.int8)
        if states.ndim != 2 or states.shape[1] != self.num_components:
            raise ValueError(
                f"states have shape {states.shape}, procedure {self.name!r} has "
                f"{self.num_components} components"
            )
        classes = np.fromiter(
            (self._class_of_state.get(row.tobytes(), 0) for row in states), np.int64, len(states)
        )
        return np.where((states == -1).any(axis=1), self.error_class, classes)

    @functools.cached_property
    def _class_of_state(self) -> dict[bytes, int]:
        return {row.tobytes(): c for c, row in enumerate(self.states, start=1)}

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the procedure file that `from_json` reads back."""
        variants = {}
        for variant in self.variants.values():
            entry: dict[str, Any] = {
                "initial_state": _digits(variant.initial_state),
                "expected": list(variant.expected),
                "recordings": list(variant.recordings),
            }
            if variant.precedence:
                entry["precedence"] = [list(pair) for pair in variant.precedence]
            variants[variant.name] = entry
        return {
            "name": self.name,
            "fps": self.fps,
            "components": list(self.components),
            "states": [_digits(row) for row in self.states],
            "variants": variants,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], source: str = "procedure") -> "Procedure":
        """Builds a procedure from the content of its file.

        Raises:
            ValueError: the first mistake, with its place, and how many more there are.
        """
        mistakes = find_mistakes(data)
        if mistakes:
            more = f" (and {len(mistakes) - 1} more mistakes)" if len(mistakes) > 1 else ""
            raise ValueError(f"{source}: {mistakes[0]}{more}")
        variants = {
            name: Variant(
                name=name,
                initial_state=tuple(int(c) for c in v["initial_state"]),
                expected=tuple(sorted(v["expected"])),
                recordings=tuple(v["recordings"]),
                precedence=tuple((before, after) for before, after in v.get("precedence", ())),
            )
            for name, v in data["variants"].items()
        }
        states = np.array([[int(c) for c in s] for s in data["states"]], np.int8)
        states.setflags(write=False)
        return cls(data["name"], float(data["fps"]), tuple(data["components"]), states, variants)


def load_procedure(name_or_path: str | pathlib.Path) -> Procedure:
    """Loads a packaged procedure by name ("meccano") or a procedure file by path.

    Raises:
        ValueError: no such procedure, or a mistake in the file, named with its place.
    """
    path = procedure_path(name_or_path)
    return Procedure.from_json(read_json(path), source=str(path))


def procedure_path(name_or_path: str | pathlib.Path) -> pathlib.Path:
    """Returns the file of a packaged procedure's name, or the path itself.

    Raises:
        ValueError: neither a packaged name nor an existing path.
    """
    packaged = PACKAGED / f"{name_or_path}.json"
    path = pathlib.Path(name_or_path)
    if path.name == str(name_or_path) and packaged.is_file():
        return packaged
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in PACKAGED.glob("*.json")))
        raise ValueError(
            f"procedure {str(name_or_path)!r} is neither a file nor a packaged procedure; "
            f"--procedure takes a path or one of {names}"
        )
    return path


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file in UTF-8; a key given twice in one object is a mistake too.

    Raises:
        ValueError: naming the file, and the line where the text stops being JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from error
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise ValueError(f"{path}: not JSON that can be read (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"key {key!r} is given twice in one object")
    return dict(pairs)


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that JSON allows")


def _digits(state: Sequence[int] | np.ndarray) -> str:
    return "".join(str(int(value)) for value in state)


def find_mistakes(data: Any) -> list[str]:
    """Returns every mistake in the content of a procedure file as "place: what is wrong"."""
    if not isinstance(data, Mapping):
        return [f"a procedure is an object with the keys {', '.join(_KEYS)}"]
    mistakes = _key_mistakes(data, _KEYS, (), "")
    if "name" in data and not (isinstance(data["name"], str) and data["name"].strip()):
        mistakes.append(f"name: {data['name']!r} is not a text")
    if "fps" in data and not _positive_number(data["fps"]):
        mistakes.append(f"fps: {data['fps']!r} is not a positive number")
    components = data.get("components")
    if components is None:
        return mistakes
    if not isinstance(components, list) or not components:
        return [*mistakes, f"components: {components!r} is not a list of names"]
    for i, name in enumerate(components):
        if not (isinstance(name, str) and name.strip()):
            mistakes.append(f"components[{i}]: {name!r} is not a name")
        elif components.index(name) < i:
            mistakes.append(
                f"components[{i}]: {name!r} is also components[{components.index(name)}]"
            )
    num_components = len(components)
    if "states" in data:
        mistakes += _states_mistakes(data["states"], num_components)
    if "variants" in data:
        variants = data["variants"]
        if not isinstance(variants, Mapping) or not variants:
            return [*mistakes, "variants: at least one variant is needed, {NAME: {…}}"]
        for name, variant in variants.items():
            mistakes += _variant_mistakes(variant, f"variants.{name}", num_components)
    return mistakes


def _key_mistakes(
    data: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str], prefix: str
) -> list[str]:
    mistakes = [f"{prefix}{key}: is missing" for key in needed if key not in data]
    known = (*needed, *optional)
    for key in data:
        if key not in known:
            mistakes.append(f"{prefix}{key}: unknown key; known are {', '.join(known)}")
    return mistakes


def _positive_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < 1e9 and math.isfinite(value)


def _states_mistakes(states: Any, num_components: int) -> list[str]:
    if not isinstance(states, list) or not states:
        return [f"states: {states!r} is not a list of states such as {'0' * num_components!r}"]
    mistakes = []
    for i, state in enumerate(states):
        mistake = _state_mistake(state, num_components)
        if mistake:
            mistakes.append(f"states[{i}]: {mistake}")
        elif states.index(state) < i:
            mistakes.append(f"states[{i}]: {state!r} is also states[{states.index(state)}]")
    return mistakes


def _state_mistake(state: Any, num_components: int) -> str | None:
    if not isinstance(state, str) or set(state) - {"0", "1"}:
        return f"{state!r} is not a text of 0 and 1, one per component"
    if len(state) != num_components:
        return f"{state!r} has length {len(state)}, there are {num_components} components"
    return None


def _variant_mistakes(variant: Any, place: str, num_components: int) -> list[str]:
    if not isinstance(variant, Mapping):
        return [f"{place}: a variant is an object with the keys {', '.join(_VARIANT_KEYS)}"]
    mistakes = _key_mistakes(variant, _VARIANT_KEYS, ("precedence",), f"{place}.")
    if "initial_state" in variant:
        mistake = _state_mistake(variant["initial_state"], num_components)
        if mistake:
            mistakes.append(f"{place}.initial_state: {mistake}")
    if "expected" in variant:
        expected = variant["expected"]
        if not isinstance(expected, list):
            mistakes.append(f"{place}.expected: {expected!r} is not a list of step ids")
        else:
            for i, step_id in enumerate(expected):
                mistake = _step_mistake(step_id, num_components)
                if not mistake and step_id % 3 == 1:
                    mistake = f"{step_id} is an incorrect installation, which is never expected"
                if not mistake and expected.index(step_id) < i:
                    mistake = f"{step_id} is also expected[{expected.index(step_id)}]"
                if mistake:
                    mistakes.append(f"{place}.expected[{i}]: {mistake}")
    if "recordings" in variant:
        globs = variant["recordings"]
        if not isinstance(globs, list) or not all(isinstance(g, str) and g for g in globs):
            mistakes.append(f"{place}.recordings: {globs!r} is not a list of globs such as '*'")
    if "precedence" in variant:
        mistakes += _precedence_mistakes(
            variant["precedence"], f"{place}.precedence", num_components
        )
    return mistakes


def _step_mistake(step_id: Any, num_components: int) -> str | None:
    if isinstance(step_id, bool) or not isinstance(step_id, int):
        return f"{step_id!r} is not a step id"
    if not 0 <= step_id < 3 * num_components:
        return (
            f"{step_id} is not a step id in 0…{3 * num_components - 1} "
            f"({num_components} components)"
        )
    return None


def _precedence_mistakes(pairs: Any, place: str, num_components: int) -> list[str]:
    if not isinstance(pairs, list):
        return [f"{place}: {pairs!r} is not a list of [before, after] pairs of step ids"]
    mistakes = []
    after: dict[int, list[int]] = {}
    for i, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            mistakes.append(f"{place}[{i}]: {pair!r} is not a pair [before, after] of step ids")
            continue
        wrong = [m for m in (_step_mistake(step, num_components) for step in pair) if m]
        if wrong:
            mistakes.append(f"{place}[{i}]: {wrong[0]}")
            continue
        after.setdefault(pair[0], []).append(pair[1])
    cycle = _find_cycle(after)
    if cycle:
        mistakes.append(f"{place}: the rules form a cycle {' → '.join(map(str, cycle))}")
    return mistakes


def _find_cycle(after: Mapping[int, Sequence[int]]) -> list[int] | None:
    """Returns the nodes of one cycle, first one repeated at the end, or None."""
    done: set[int] = set()
    for start in after:
        path: list[int] = []
        branches = [iter([start])]
        while branches:
            node = next(branches[-1], None)
            if node is None:
                branches.pop()
                if path:
                    done.add(path.pop())
            elif node in path:
                return [*path[path.index(node) :], node]
            elif node not in done:
                path.append(node)
                branches.append(iter(after.get(node, ())))
    return None
