"""In which order a product can be built, from what its parts are to each other.

The product is taken apart, part by part: a part comes off if nothing that is left is in its way
along one of the six ways, and nothing that is left would hover. Backwards that is an order of
building, and what was in a part's way, or carries it, gives rules that make every other order that
keeps to them possible too. A part hovers if no chain of parts that touch leads to the table.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.products.relations import WAYS, Relations

# Ways out as they are tried: whoever builds looks at a product from above and from the front.
_TRIED = (4, 0, 1, 3, 2, 5)
_CARRIES = 0.2  # of all area that a part lies on, of which a part that carries it has at least this
MAX_COUNTED = 100_000  # states


@dataclasses.dataclass(frozen=True)
class Rule:
    """One part is fitted before another."""

    before: int
    after: int
    why: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a product can be built.

    Attributes:
        order: numbers of the parts as they are fitted.
        rules: of which none follows from others. `warnings` tells what does not work out with them.
    """

    order: list[int]
    rules: list[Rule]


def plan(relations: Relations, names: Sequence[str], steps: Sequence[Sequence[int]] = ()) -> Plan:
    """Plans how a product is built.

    `steps` are numbers of the parts by building step, if that is given; every part of a step comes
    before those of the next one.
    """
    count = len(names)
    step_of = {k: s for s, step in enumerate(steps) for k in step}
    carriers = _carriers(relations)
    left = set(range(count))
    rules: list[Rule] = [
        Rule(j, k, f"step {s + 1} comes before step {s + 2}")
        for s, (step, following) in enumerate(itertools.pairwise(steps))
        for j in step
        for k in following
    ]
    off: list[int] = []
    while left:
        last = max((step_of.get(k, 0) for k in left), default=0)
        candidates = [k for k in left if step_of.get(k, 0) == last]
        k, way = _next_off(relations, carriers, left, candidates)
        left.remove(k)
        off.append(k)
        if way is not None:
            for j in np.flatnonzero(relations.blocks[k, :, way]).tolist():
                rules.append(Rule(k, j, f"{names[j]} would be in its way {WAYS[way]}"))
        rules += _held(relations, carriers, names, k, left)
    return Plan(off[::-1], _reduced(rules, off[::-1]))


def ways_out(relations: Relations, k: int, others: Iterable[int]) -> list[int]:
    """The ways along which none of the others is in a part's way."""
    there = list(others)
    return [way for way in _TRIED if not relations.blocks[k, there, way].any()]


def in_the_way(relations: Relations, names: Sequence[str], k: int, others: Iterable[int]) -> str:
    """Who of the others is in a part's way, and along which of them, in words."""
    found = []
    for j in sorted(others):
        ways = [WAYS[way] for way in _TRIED if relations.blocks[k, j, way]]
        if ways:
            found.append(f"{names[j]} ({', '.join(ways)})")
    return ", ".join(found)


def standing(relations: Relations, there: Iterable[int]) -> set[int]:
    """Those of some parts that do not hover."""
    left = set(there)
    found: set[int] = set()
    waiting = [k for k in left if relations.grounded[k]]
    while waiting:
        found.update(waiting)
        left.difference_update(waiting)
        waiting = [k for k in left if relations.touches[k, waiting].any()]
    return found


def _carriers(relations: Relations) -> list[set[int]]:
    """Of each part those that carry it, and do not hang from it; none of one on the table."""
    found = []
    every = set(range(len(relations.grounded)))
    for k in range(len(every)):
        areas = np.zeros(len(every))
        if not relations.grounded[k]:
            others = list(standing(relations, every - {k}))
            areas[others] = relations.rests[k, others]
        enough = areas >= max(_CARRIES * float(areas.sum()), 1e-12)
        found.append(set(np.flatnonzero(enough).tolist()))
    return found


def _next_off(
    relations: Relations, carriers: list[set[int]], left: set[int], candidates: list[int]
) -> tuple[int, int | None]:
    """The part to take off next, and along which way; None if every way is closed.

    Those without which something would hover come last, and after them those without a way out.
    """
    found = []
    for k in candidates:
        rest = left - {k}
        ways = ways_out(relations, k, rest)
        ways.sort(key=lambda way: int(relations.blocks[k, :, way].sum()))
        closed = 0 if ways else 1 + relations.blocks[k, sorted(rest)].sum(axis=0).min()
        stays = standing(relations, rest)
        falls = sum(k in carriers[j] or j not in stays for j in rest)
        # Of equals the last one: parts that are named first are built first.
        found.append((closed, falls, bool(relations.grounded[k]), -k, ways[0] if ways else None))
    best = min(found, key=lambda entry: entry[:4])
    return -best[3], best[4]


def _held(
    relations: Relations, carriers: list[set[int]], names: Sequence[str], k: int, left: set[int]
) -> list[Rule]:
    """Rules for what holds a part: what carries it, or else the largest that it touches."""
    if relations.grounded[k]:
        return []
    stays = standing(relations, left)
    if carrying := sorted(carriers[k] & stays):
        return [Rule(j, k, f"it lies on {names[j]}") for j in carrying]
    touching = [j for j in sorted(stays) if relations.touches[k, j]]
    if not touching:
        return []
    holder = max(touching, key=lambda j: relations.volumes[j])
    return [Rule(holder, k, f"{names[holder]} holds it")]


def _reduced(rules: Sequence[Rule], order: Sequence[int]) -> list[Rule]:
    """The rules without those that follow from others, and each only once."""
    place = {k: i for i, k in enumerate(order)}
    after: dict[int, set[int]] = {k: set() for k in order}
    for rule in rules:
        after[rule.before].add(rule.after)
    reached: dict[int, set[int]] = {}
    for k in reversed(order):
        reached[k] = set().union(*({j} | reached[j] for j in after[k]))
    kept: dict[tuple[int, int], Rule] = {}
    for rule in sorted(rules, key=lambda rule: (place[rule.before], place[rule.after])):
        others = after[rule.before] - {rule.after}
        if not any(rule.after in reached[j] for j in others):
            kept.setdefault((rule.before, rule.after), rule)
    return list(kept.values())


def states(plan: Plan, limit: int) -> tuple[np.ndarray, int]:
    """The states that a product goes through, and how many there are.

    With more than `limit` of them, those of whole orders of building: the plan's, and then others
    as they are drawn. So from every one of them there is a way to the complete product.

    Args:
        plan: of K parts.
        limit: at least K.

    Returns:
        (S, K) int8, by number of parts, without the one of no part; and how many states there are,
        `MAX_COUNTED` if they are more.
    """
    count = len(plan.order)
    before = {k: {rule.before for rule in plan.rules if rule.after == k} for k in plan.order}
    # A state as the bits of a whole number.
    needed = {k: sum(1 << j for j in before[k]) for k in plan.order}

    def following(state: int) -> list[int]:
        return [k for k in plan.order if not state >> k & 1 and not needed[k] & ~state]

    known, layer = {0}, {0}
    while layer and len(known) < MAX_COUNTED:
        layer = {state | 1 << k for state in layer for k in following(state)}
        known |= layer
    total = min(len(known) - 1, MAX_COUNTED)
    if total > limit:
        known = {sum(1 << k for k in plan.order[: n + 1]) for n in range(count)}
        rng = np.random.default_rng(0)
        for _ in range(20 * limit):
            chain, state = set(), 0
            for _ in range(count):
                state |= 1 << int(rng.choice(following(state)))
                chain.add(state)
            if len(known | chain) <= limit:
                known |= chain
    place = {k: n for n, k in enumerate(plan.order)}
    rows = [[state >> k & 1 for k in range(count)] for state in known if state]
    rows.sort(key=lambda row: (sum(row), sorted(place[k] for k in range(count) if row[k])))
    return np.array(rows, np.int8), total
