"""Finds the mistakes in the content of a procedure file and names each with its place."""

from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.files import MAX_FPS, MIN_FPS, name_mistake, number, shorten

_KEYS = ("name", "fps", "components", "states", "variants")
_DRAFT = "draft"  # what is to be looked at; the key itself says that nobody has yet
_VARIANT_KEYS = ("initial_state", "expected", "recordings")
_OPTIONAL_KEYS = ("allowed", "precedence")


def find_mistakes(data: Any) -> list[str]:
    """Returns every mistake in the content of a procedure file as "place: what is wrong"."""
    if not isinstance(data, Mapping):
        return [f"a procedure is an object with the keys {', '.join(_KEYS)}"]
    mistakes = _key_mistakes(data, _KEYS, (_DRAFT,), "")
    remarks = data.get(_DRAFT, [])
    if not isinstance(remarks, list) or not all(isinstance(line, str) for line in remarks):
        mistakes.append(f"{_DRAFT}: {shorten(remarks)} is not a list of texts")
    if "name" in data:
        mistakes += _name_mistakes(data["name"], "name")
    if "fps" in data:
        try:
            number(data["fps"], "fps", MIN_FPS, MAX_FPS)
        except ValueError as error:
            mistakes.append(str(error))
    if "components" not in data:
        return mistakes
    components = data["components"]
    if not isinstance(components, list) or not components:
        return [*mistakes, f"components: {shorten(components)} is not a list of names"]
    first: dict[str, int] = {}
    for i, name in enumerate(components):
        if wrong := _name_mistakes(name, f"components[{i}]"):
            mistakes += wrong
        elif (before := first.setdefault(name, i)) < i:
            mistakes.append(f"components[{i}]: {shorten(name)} is also components[{before}]")
    num_components = len(components)
    if "states" in data:
        mistakes += _states_mistakes(data["states"], num_components)
    if "variants" in data:
        variants = data["variants"]
        if not isinstance(variants, Mapping) or not variants:
            return [*mistakes, "variants: at least one variant is needed, {NAME: {…}}"]
        for name, variant in variants.items():
            if wrong := _name_mistakes(name, "variants"):
                mistakes += wrong
            else:
                mistakes += _variant_mistakes(variant, f"variants.{name}", num_components)
    return mistakes


def _name_mistakes(name: Any, place: str) -> list[str]:
    what = name_mistake(name) if isinstance(name, str) else "is not a name"
    return [f"{place}: {shorten(name)} {what}"] if what else []


def _key_mistakes(
    data: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str], prefix: str
) -> list[str]:
    mistakes = [f"{prefix}{key}: is missing" for key in needed if key not in data]
    known = (*needed, *optional)
    for key in data:
        if key not in known:
            place = prefix + one_line(key, 40)
            mistakes.append(f"{place}: unknown key; known are {', '.join(known)}")
    return mistakes


def _states_mistakes(states: Any, num_components: int) -> list[str]:
    if not isinstance(states, list) or not states:
        example = shorten("0" * num_components)
        return [f"states: {shorten(states)} is not a list of states such as {example}"]
    mistakes = []
    first: dict[str, int] = {}
    for i, state in enumerate(states):
        mistake = _state_mistake(state, num_components)
        if mistake:
            mistakes.append(f"states[{i}]: {mistake}")
        elif (before := first.setdefault(state, i)) < i:
            mistakes.append(f"states[{i}]: {shorten(state)} is also states[{before}]")
    return mistakes


def _state_mistake(state: Any, num_components: int) -> str | None:
    if not isinstance(state, str) or set(state) - {"0", "1"}:
        return f"{shorten(state)} is not a text of 0 and 1, one per component"
    if len(state) != num_components:
        return f"{shorten(state)} has length {len(state)}, there are {num_components} components"
    return None


def _variant_mistakes(variant: Any, place: str, num_components: int) -> list[str]:
    if not isinstance(variant, Mapping):
        return [f"{place}: a variant is an object with the keys {', '.join(_VARIANT_KEYS)}"]
    mistakes = _key_mistakes(variant, _VARIANT_KEYS, _OPTIONAL_KEYS, f"{place}.")
    if "initial_state" in variant:
        mistake = _state_mistake(variant["initial_state"], num_components)
        if mistake:
            mistakes.append(f"{place}.initial_state: {mistake}")
    for key in ("expected", "allowed"):
        if key in variant:
            mistakes += _steps_mistakes(variant[key], place, key, num_components)
    if "recordings" in variant:
        globs = variant["recordings"]
        if not isinstance(globs, list):
            mistakes.append(
                f"{place}.recordings: {shorten(globs)} is not a list of globs such as '*'"
            )
        else:
            for i, pattern in enumerate(globs):
                mistakes += _name_mistakes(pattern, f"{place}.recordings[{i}]")
    if "precedence" in variant:
        mistakes += _precedence_mistakes(
            variant["precedence"], f"{place}.precedence", num_components
        )
    return mistakes


def _steps_mistakes(steps: Any, place: str, key: str, num_components: int) -> list[str]:
    if not isinstance(steps, list):
        return [f"{place}.{key}: {shorten(steps)} is not a list of step ids"]
    mistakes = []
    first: dict[int, int] = {}
    for i, step_id in enumerate(steps):
        mistake = _step_mistake(step_id, num_components)
        if not mistake and step_id % 3 == 1:
            mistake = f"{step_id} is an incorrect installation, which is never {key}"
        if not mistake and (before := first.setdefault(step_id, i)) < i:
            mistake = f"{step_id} is also {key}[{before}]"
        if mistake:
            mistakes.append(f"{place}.{key}[{i}]: {mistake}")
    return mistakes


def _step_mistake(step_id: Any, num_components: int) -> str | None:
    if isinstance(step_id, bool) or not isinstance(step_id, int):
        return f"{shorten(step_id)} is not a step id"
    if not 0 <= step_id < 3 * num_components:
        return (
            f"{shorten(step_id)} is not a step id in 0…{3 * num_components - 1} "
            f"({num_components} components)"
        )
    return None


def _precedence_mistakes(pairs: Any, place: str, num_components: int) -> list[str]:
    if not isinstance(pairs, list):
        return [f"{place}: {shorten(pairs)} is not a list of [before, after] pairs of step ids"]
    mistakes = []
    after: dict[int, list[int]] = {}
    for i, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            mistakes.append(
                f"{place}[{i}]: {shorten(pair)} is not a pair [before, after] of step ids"
            )
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
        path: dict[int, None] = {}  # in order, and quick to look up
        branches = [iter([start])]
        while branches:
            node = next(branches[-1], None)
            if node is None:
                branches.pop()
                if path:
                    done.add(path.popitem()[0])
            elif node in path:
                nodes = list(path)
                return [*nodes[nodes.index(node) :], node]
            elif node not in done:
                path[node] = None
                branches.append(iter(after.get(node, ())))
    return None
