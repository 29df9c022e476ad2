"""Finds the errors in the content of a procedure file and names each with its place."""

import graphlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stormpsr_jax.base.errors import gathering, one_line
from stormpsr_jax.base.files import MAX_FPS, MIN_FPS, name_error, number, shorten

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
    known = (*needed, *optional)
    for key in data:
        if key not in known:
            place = prefix + one_line(key, 40)
            errors.append(f"{place}: unknown key; known are {', '.join(known)}")
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
        for key, what, find in (
            ("expected", "step ids", self._steps),
            ("allowed", "step ids", self._steps),
            ("recordings", "globs such as '*'", lambda g, at: _each(g, at, _name_error)),
            ("precedence", "[before, after] pairs of step ids", self._precedence),
        ):
            if key in variant:
                at, items = f"{place}.{key}", variant[key]
                is_list = isinstance(items, list)
                wrong = f"{at}: {shorten(items)} is not a list of {what}"
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
