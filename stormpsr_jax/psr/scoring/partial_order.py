"""POS against a partial order: which of two steps comes first counts only where it is laid down.

Two labelled steps are ordered if the precedence of the variant orders them, directly or by way of
other steps, or if they are of one component. Ordered steps keep the order that they have in the
labels, others may swap. With L the orders that follow from the labelled one, Y, by such swaps,

    POS_partial = max over Y' in L of 1 − min(DamLev(Y', Ŷ) / |Y|, 1).

So it is never below POS, equals it where all steps are ordered, and is 1 for the labelled steps in
any order of L. Where the labels themselves obey the precedence, it is the pos_partial that the code
of the IMPACT benchmark reports, but for their restricted form of the distance.
"""

from collections.abc import Iterable, Mapping, Sequence

from stormpsr_jax.psr.scoring.metrics import Step, edit_distance

MAX_WORK = 4_000_000  # looks at a step in the search, in two seconds
MAX_STEPS = 2_000  # labelled or recognised ones
_MATCH, _SWAP = 2, 3  # what a match, and a pair that is the wrong way round, save of the distance


def order_similarity(
    truth: Iterable[Step], predicted: Iterable[Step], precedence: Sequence[tuple[int, int]]
) -> float | None:
    """Returns POS_partial; see the module's docstring.

    >>> from stormpsr_jax import psr
    >>> truth, found = [(10, 0), (20, 3), (30, 6)], [(12, 3), (13, 0), (31, 6)]
    >>> psr.partial_order_similarity(truth, found, precedence=[(0, 6)])
    1.0

    Args:
        truth, predicted: (frame, step id); ordered as for `metrics.order_similarity`.
        precedence: pairs (before, after) of step ids, free of cycles.

    Returns:
        A number in 0…1. None without ground-truth steps or without precedence, and where the search
        would take too long: more than MAX_STEPS steps, or orders that differ so much that it passes
        MAX_WORK.

    Raises:
        ValueError: see `metrics.check_pairs`.
    """
    steps = tuple(step_id for _, step_id in sorted(truth))
    found = tuple(step_id for _, step_id in sorted(predicted))
    if not steps or not precedence or max(len(steps), len(found)) > MAX_STEPS:
        return None
    distance = edit_distance(steps, found)
    saved = _most_saved(steps, found, ordered(precedence), len(steps) + len(found) - distance)
    if saved is None:
        return None
    return 1 - min((len(steps) + len(found) - saved) / len(steps), 1)


def ordered(precedence: Sequence[tuple[int, int]]) -> dict[int, frozenset[int]]:
    """Returns, for each step id of the rules, the ids that precedence orders it with."""
    after: dict[int, set[int]] = {}
    for first, second in precedence:
        after.setdefault(first, set()).add(second)
    result: dict[int, set[int]] = {}
    for start in after:
        reached, waiting = set[int](), [start]
        while waiting:
            for other in after.get(waiting.pop(), set()) - reached:
                reached.add(other)
                waiting.append(other)
        for other in reached:
            result.setdefault(start, set()).add(other)
            result.setdefault(other, set()).add(start)
    return {step: frozenset(others) for step, others in result.items()}


def _most_saved(
    steps: Sequence[int], found: Sequence[int], order: Mapping[int, frozenset[int]], least: int
) -> int | None:
    """Returns by how much the nearest order is nearer than one that has nothing in common.

    The distance is |Y| + |Ŷ| less 2 for each step that is matched in place and 3 for each two that
    are matched the wrong way round, with nothing matched between them. Which matches some order of
    L allows does not depend on the steps without a match. So the recognised steps are gone through
    in their order. A state is the set of labelled steps that can no longer be matched: those
    matched and all that have to come before them. Sets are the bits of whole numbers.

    Args:
        steps, found: the labelled and the recognised ones.
        order: see `ordered`.
        least: what the labelled order itself saves.

    Returns:
        None if it would take more than MAX_WORK.
    """
    before = _before(steps, order)
    places: dict[int, list[int]] = {}  # of a step id in the labels
    of_id: dict[int, int] = {}  # the same as a set
    for i, step in enumerate(steps):
        places.setdefault(step, []).append(i)
        of_id[step] = of_id.get(step, 0) | 1 << i
    later: list[dict[int, int]] = [{}]  # by place in `found`: of the steps from there on, how many
    for step in reversed(found):
        counts = later[-1]
        if step in of_id:
            counts = {**counts, step: counts.get(step, 0) + 1}
        later.append(counts)
    later.reverse()

    layers: list[dict[int, int]] = [{} for _ in range(len(found) + 1)]
    layers[0][0] = 0
    best, work = least, 0

    def reach(place: int, gone: int, saved: int) -> None:
        """Adds a state, unless it cannot lead to a better result than the best one."""
        nonlocal best, work
        best = max(best, saved)
        work += len(later[place]) + 1
        relevant = hope = 0
        for step, count in later[place].items():
            left = of_id[step] & ~gone
            relevant |= of_id[step]
            hope += _MATCH * min(count, left.bit_count())
        gone &= relevant
        if saved + hope > best and saved > layers[place].get(gone, -1):
            layers[place][gone] = saved

    for place, step in enumerate(found):
        states, layers[place] = layers[place], {}
        for gone, saved in states.items():
            if work > MAX_WORK:
                return None
            # Of several, the first: it rules out the fewest others.
            match = next((i for i in places.get(step, ()) if not gone >> i & 1), None)
            if match is None:
                reach(place + 1, gone, saved)
                continue
            lost = before[match] & ~gone
            reach(place + 1, gone | before[match], saved + _MATCH)
            costs = False  # whether the match rules out something that comes later
            for other in later[place + 1]:
                if other != step and lost & of_id[other]:
                    costs = True
                    second = found.index(other, place + 1)
                    reach(second + 1, gone | before[match], saved + _SWAP)
            if costs:
                reach(place + 1, gone, saved)
    return best


def _before(steps: Sequence[int], order: Mapping[int, frozenset[int]]) -> list[int]:
    """Returns for each labelled step the set of those that come before it in all orders, and it."""
    last: dict[int, int] = {}  # by step id
    result: list[int] = []
    for i, step in enumerate(steps):
        first = step - step % 3
        together = {first, first + 1, first + 2} | order.get(step, frozenset())
        bits = 1 << i
        for other in together & last.keys():
            bits |= result[last[other]]
        result.append(bits)
        last[step] = i
    return result
