"""Orders in which the steps of a procedure can be done: by its precedence, or by its catalogue.

Where a variant has precedence, a step can be done once all that it waits for are. Where it has
none, the catalogued states lead the way: from one to the next that is ahead, whatever lies between
two of them in any order. What neither says anything of can be done at any time.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from stormpsr_jax.recordings.procedure import Procedure, Variant

Event = dict[int, int]  # component -> its new value
Move = tuple[int, ...]  # step ids that are done one after the other, in any order
_NEAREST = 500  # catalogued states ahead, of which one is gone to


def change(step: int) -> tuple[int, int]:
    """The component of an expected step, and its value afterwards."""
    return step // 3, int(step % 3 == 0)


def step_of(component: int, value: int) -> int:
    """The id of the step after which a component has a value, 1 or 0."""
    return 3 * component + 2 * (1 - value)


def waits_for(variant: Variant, step: int) -> set[int]:
    """The expected steps that have to be done right before a step."""
    return {
        before
        for before, after in variant.precedence
        if after == step and before in variant.expected
    }


def moves(
    procedure: Procedure, variant: Variant, state: np.ndarray, done: Collection[int]
) -> list[Move]:
    """What can be done next, in the order of the catalogued states that it leads to."""
    left = {
        step
        for step in variant.expected
        if step not in done and state[step // 3] != change(step)[1]
    }
    if variant.precedence:
        result: list[Move] = [
            (step,) for step in left if all(b in done for b in waits_for(variant, step))
        ]
    else:
        result = _ahead(procedure, state, left) or [(step,) for step in left]

    def place(move: Move) -> tuple:
        number = procedure.state_class(_after(state, move))
        return (number or procedure.error_class, move)

    return sorted(result, key=place)


def _after(state: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    state = state.copy()
    for component, value in map(change, steps):
        state[component] = value
    return state


def _ahead(procedure: Procedure, state: np.ndarray, left: Collection[int]) -> list[Move]:
    """The steps to each catalogued state that steps lead to, none of which lies on such a way."""
    catalogue, target = procedure.states, _after(state, tuple(left))
    there = ((catalogue == state) | (catalogue == target)).all(axis=1)
    ways = catalogue[there] != state
    ways = ways[ways.any(axis=1)]
    ways = ways[np.argsort(ways.sum(axis=1), kind="stable")[:_NEAREST]]
    of_component = {step // 3: step for step in left}
    result: list[Move] = []
    while len(ways):
        result.append(tuple(of_component[k] for k in np.flatnonzero(ways[0]).tolist()))
        ways = ways[(ways[0] & ~ways).any(axis=1)]  # the others lead past it
    return result


def draw_order(procedure: Procedure, variant: Variant, rng: np.random.Generator) -> Iterator[int]:
    """Yields the expected steps in a random order, each drawn when it is asked for."""
    state, done = np.array(variant.initial_state, np.int8), set[int]()
    while found := moves(procedure, variant, state, done):
        move = found[rng.integers(len(found))]
        yield from rng.permutation(move).tolist() if len(move) > 1 else move
        done.update(move)
        state = _after(state, move)


def check(procedure: Procedure) -> None:
    """Raises ValueError if the steps of a variant cannot all be done, in whatever order."""
    for variant in procedure.variants.values():
        place = f"procedure {procedure.name!r}: variants.{variant.name}"
        if not variant.expected:
            raise ValueError(
                f"{place}.expected: is empty, so that nothing would happen in a recording of it; "
                "list the steps that have to be done"
            )
        state, done = np.array(variant.initial_state, np.int8), set[int]()
        while found := moves(procedure, variant, state, done):
            done.update(found[0])
            state = _after(state, found[0])
        if stuck := [step for step in variant.expected if step not in done]:
            names = "; ".join(f"{procedure.step_name(step)} ({step})" for step in stuck)
            raise ValueError(
                f"{place}: cannot be built in its order: these steps can never be done: "
                f"{names}; correct its precedence, its initial_state, or what is expected"
            )
