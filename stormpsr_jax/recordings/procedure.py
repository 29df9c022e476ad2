"""Procedures as data: the components, catalogued states and variants of one product.

A procedure file is JSON: ``{"name", "fps", "components": [names], "states": ["1000…", …],
"variants": {NAME: {"initial_state": "0000…", "expected": [step ids], "recordings": [globs],
"allowed": [step ids], "precedence": [[before, after], …]}}, "draft": [texts]}``; only ``allowed``,
``precedence`` and ``draft`` are optional. Step ids are 3k (install component k), 3k+1 (incorrectly
install) and 3k+2 (remove).
"""

import dataclasses
import fnmatch
import functools
import graphlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.base.errors import gathering, one_line, raise_all
from stormpsr_jax.base.files import MAX_FPS, MIN_FPS, name_error, number, read_json, shorten

PACKAGED = pathlib.Path(__file__).parents[1] / "procedures"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of carrying out a procedure.

    Attributes:
        initial_state: K values in {0, 1} that hold before the first step.
        expected: step ids that must happen, ascending; decoder B3 completes these.
        recordings: globs; a recording belongs to the one variant with a glob that matches its name.
        precedence: pairs (before, after) of step ids, free of cycles.
        allowed: step ids that may happen besides, ascending; None where the file does not say.
    """

    name: str
    initial_state: tuple[int, ...]
    expected: tuple[int, ...]
    recordings: tuple[str, ...]
    precedence: tuple[tuple[int, int], ...] = ()
    allowed: tuple[int, ...] | None = None

    @property
    def possible(self) -> frozenset[int]:
        """Step ids that must or may happen.

        Where the file does not say what may, every component that is installed at the start or by
        an expected step may come off and go on again.
        """
        if self.allowed is not None:
            return frozenset((*self.expected, *self.allowed))
        initial = {k for k, bit in enumerate(self.initial_state) if bit}
        parts = initial | {step // 3 for step in self.expected if step % 3 == 0}
        return frozenset(self.expected).union(*((3 * k, 3 * k + 2) for k in parts))


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

    def at(self, fps: float | None) -> "Procedure":
        """Returns the procedure with other frames per second (or ValueError); itself for None."""
        if fps is None or fps == self.fps:
            return self
        if not MIN_FPS <= fps <= MAX_FPS:
            raise ValueError(f"--fps={fps} is not in {MIN_FPS:g}…{MAX_FPS:g} frames a second")
        return dataclasses.replace(self, fps=fps)

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
        matching = [
            v
            for v in self.variants.values()
            if any(fnmatch.fnmatchcase(recording, glob) for glob in v.recordings)
        ]
        if len(matching) != 1:
            what = "no variant matches" if not matching else "several variants match"
            names = "" if not matching else f" ({', '.join(v.name for v in matching)})"
            raise ValueError(
                f"{what} recording {recording!r} in procedure {self.name!r}{names}; "
                "correct the 'recordings' globs of the procedure file, or pass --variant if the "
                "command has it"
            )
        return matching[0]

    def step_name(self, step_id: int) -> str:
        """Returns the description of a step, worded as in the label files of the data sets."""
        return step_name(self.components, step_id)

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
            if variant.allowed is not None:
                entry["allowed"] = list(variant.allowed)
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
        """Builds a procedure from the content of its file; ValueError has every error's place."""
        raise_all([f"{source}: {error}" for error in find_errors(data)])
        variants = {
            name: Variant(
                name=name,
                initial_state=tuple(int(c) for c in v["initial_state"]),
                expected=tuple(sorted(v["expected"])),
                recordings=tuple(v["recordings"]),
                precedence=tuple((before, after) for before, after in v.get("precedence", ())),
                allowed=tuple(sorted(v["allowed"])) if "allowed" in v else None,
            )
            for name, v in data["variants"].items()
        }
        states = np.array([[int(c) for c in s] for s in data["states"]], np.int8)
        states.setflags(write=False)
        return cls(data["name"], float(data["fps"]), tuple(data["components"]), states, variants)


def step_name(components: Sequence[str], step_id: int) -> str:
    """Returns the description of a step, worded as in the label files of the data sets."""
    if not 0 <= step_id < 3 * len(components):
        raise ValueError(
            f"step id {step_id} is not in 0…{3 * len(components) - 1} "
            f"({len(components)} components)"
        )
    verb = ("Install", "Incorrectly installed", "Remove")[step_id % 3]
    return f"{verb} {components[step_id // 3]}"


def load_procedure(name_or_path: str | pathlib.Path) -> Procedure:
    """Loads a packaged procedure by name ("meccano") or a procedure file by path.

    ValueError: there is none, or every error in the file, with its place.
    """
    path = procedure_path(name_or_path)
    return Procedure.from_json(read_json(path), source=str(path))


def procedure_path(name_or_path: str | pathlib.Path) -> pathlib.Path:
    """Returns the file of a packaged procedure's name, or the path; ValueError if it is neither."""
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


def _digits(state: Sequence[int] | np.ndarray) -> str:
    return "".join(str(int(value)) for value in state)


# --- Errors in a file -----------------------------------------------------------------------------


_KEYS = ("name", "fps", "components", "states", "variants")
_DRAFT = "draft"  # what is to be looked at; the key itself says that nobody has yet
_VARIANT_KEYS = ("initial_state", "expected", "recordings")
_OPTIONAL_KEYS = ("allowed", "precedence")


def find_errors(data: Any) -> list[str]:
    """Returns every error in the content of a procedure file as "place: what is wrong"."""
    if not isinstance(data, Mapping):
        return [f"a procedure is an object with the keys {', '.join(_KEYS)}"]
    errors = _key_errors(data, _KEYS, (_DRAFT,), "")
    notes = data.get(_DRAFT, [])
    if not isinstance(notes, list) or not all(isinstance(line, str) for line in notes):
        errors.append(f"{_DRAFT}: {shorten(notes)} is not a list of texts")
    if "name" in data and (wrong := _name_error(data["name"])):
        errors.append(f"name: {wrong}")
    if "fps" in data:
        with gathering(errors):
            number(data["fps"], "fps", MIN_FPS, MAX_FPS)
    if "components" not in data:
        return errors
    components = data["components"]
    if not isinstance(components, list) or not components:
        return [*errors, f"components: {shorten(components)} is not a list of names"]
    errors += _each(components, "components", _name_error)
    product = _Product(len(components))
    if "states" in data:
        errors += product.states(data["states"])
    if "variants" in data:
        variants = data["variants"]
        if not isinstance(variants, Mapping) or not variants:
            return [*errors, "variants: at least one variant is needed, {NAME: {…}}"]
        for name, variant in variants.items():
            if wrong := _name_error(name):
                errors.append(f"variants: {wrong}")
            else:
                errors += product.variant(variant, f"variants.{name}")
    return errors


def _name_error(name: Any) -> str | None:
    what = name_error(name) if isinstance(name, str) else "is not a name"
    return f"{shorten(name)} {what}" if what else None


def _key_errors(
    data: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str], prefix: str
) -> list[str]:
    errors = [f"{prefix}{key}: is missing" for key in needed if key not in data]
    keys = (*needed, *optional)
    for key in data:
        if key not in keys:
            place = prefix + one_line(key, 40)
            errors.append(f"{place}: unknown key; known are {', '.join(keys)}")
    return errors


def _each(items: list, place: str, wrong: Callable[[Any], str | None]) -> list[str]:
    """The errors of the items of a list, in which none may be twice."""
    errors: list[str] = []
    first: dict[Any, int] = {}
    for i, item in enumerate(items):
        error = wrong(item)
        if not error and (before := first.setdefault(item, i)) < i:
            error = f"{shorten(item)} is also {place.rpartition('.')[2]}[{before}]"
        if error:
            errors.append(f"{place}[{i}]: {error}")
    return errors


class _Product(NamedTuple):
    """Finds the errors of what depends on the number of components."""

    num_components: int

    def states(self, states: Any) -> list[str]:
        if not isinstance(states, list) or not states:
            example = shorten("0" * self.num_components)
            return [f"states: {shorten(states)} is not a list of states such as {example}"]
        return _each(states, "states", self._state)

    def _state(self, state: Any) -> str | None:
        if not isinstance(state, str) or set(state) - {"0", "1"}:
            return f"{shorten(state)} is not a text of 0 and 1, one per component"
        if len(state) != self.num_components:
            what = f"there are {self.num_components} components"
            return f"{shorten(state)} has length {len(state)}, {what}"
        return None

    def _step(self, step_id: Any) -> str | None:
        if isinstance(step_id, bool) or not isinstance(step_id, int):
            return f"{shorten(step_id)} is not a step id"
        if not 0 <= step_id < 3 * self.num_components:
            known = f"0…{3 * self.num_components - 1} ({self.num_components} components)"
            return f"{shorten(step_id)} is not a step id in {known}"
        return None

    def variant(self, variant: Any, place: str) -> list[str]:
        if not isinstance(variant, Mapping):
            return [f"{place}: a variant is an object with the keys {', '.join(_VARIANT_KEYS)}"]
        errors = _key_errors(variant, _VARIANT_KEYS, _OPTIONAL_KEYS, f"{place}.")
        if "initial_state" in variant and (wrong := self._state(variant["initial_state"])):
            errors.append(f"{place}.initial_state: {wrong}")
        for key, kind, find in (
            ("expected", "step ids", self._steps),
            ("allowed", "step ids", self._steps),
            ("recordings", "globs such as '*'", lambda g, at: _each(g, at, _name_error)),
            ("precedence", "[before, after] pairs of step ids", self._precedence),
        ):
            if key in variant:
                at, items = f"{place}.{key}", variant[key]
                is_list = isinstance(items, list)
                wrong = f"{at}: {shorten(items)} is not a list of {kind}"
                errors += find(items, at) if is_list else [wrong]
        return errors

    def _steps(self, steps: list, place: str) -> list[str]:
        def wrong(step_id: Any) -> str | None:
            if not (error := self._step(step_id)) and step_id % 3 == 1:
                what = place.rpartition(".")[2]
                return f"{step_id} is an incorrect installation, which is never {what}"
            return error

        return _each(steps, place, wrong)

    def _precedence(self, pairs: list, place: str) -> list[str]:
        errors = []
        rules: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
        for i, pair in enumerate(pairs):
            if not isinstance(pair, list) or len(pair) != 2:
                what = "is not a pair [before, after] of step ids"
                errors.append(f"{place}[{i}]: {shorten(pair)} {what}")
            elif wrong := self._step(pair[0]) or self._step(pair[1]):
                errors.append(f"{place}[{i}]: {wrong}")
            else:
                rules.add(pair[1], pair[0])
        try:
            rules.prepare()
        except graphlib.CycleError as error:
            cycle = " → ".join(map(str, error.args[1]))
            errors.append(f"{place}: the rules form a cycle {cycle}")
        return errors
