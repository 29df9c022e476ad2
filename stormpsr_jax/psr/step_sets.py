"""POS where the steps of one frame are a set: which of them comes first does not count.

docs/psr.md#steps-of-one-frame says why, and defines it. It is never below POS, and equals it where
no two steps share a frame.
"""

import collections
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from stormpsr_jax.psr.metrics import Step, edit_distance, truth_and_predicted, without

MAX_WORK = 60_000  # states of the search, in two or three seconds
_MATCH, _SWAP = 2, 3  # what a match, and a pair that is the wrong way round, save of the distance

Set = tuple[int, ...]  # step ids, ascending


def order_similarity(truth: Iterable[Step], predicted: Iterable[Step]) -> float | None:
    """Returns POS where the steps of one frame are a set, in 0…1, so that their order is no matter.

    It is the highest POS (`metrics.order_similarity`) that orders of the steps inside frames give,
    those of the truth and those of what was recognised; the module's docstring has the equation.

    >>> from stormpsr_jax import psr
    >>> truth, found = [(10, 0), (10, 3), (30, 6)], [(12, 3), (13, 0), (31, 6)]
    >>> psr.order_similarity_of_sets(truth, found)
    1.0

    Args:
        truth, predicted: rows (frame, step id, …) or an array (N, 2), in any order.

    Returns:
        The similarity; None without ground-truth steps, and where the search would pass MAX_WORK:
        of hundreds of steps in orders that have little in common.

    Raises:
        ValueError: what is no step, is there twice or has its columns exchanged; more steps than
            `metrics.check_pairs` allows.
    """
    steps, best = map(sets, truth_and_predicted(truth, predicted))
    plain = [tuple(itertools.chain(*of)) for of in (steps, best)]
    if not steps:
        return None
    longest = len(plain[0]) + len(plain[1])
    saved = _most_saved(steps, best, longest - edit_distance(plain[0], plain[1]))
    return None if saved is None else 1 - min((longest - saved) / len(plain[0]), 1)


def sets(steps: Iterable[Step]) -> list[Set]:
    """Returns the step ids of each frame that has any, by frame."""
    ordered = itertools.groupby(sorted(steps), key=lambda step: step[0])
    return [tuple(step_id for _, step_id in of_frame) for _, of_frame in ordered]


def _most_saved(steps: Sequence[Set], found: Sequence[Set], least: int) -> int | None:
    """Returns by how much the nearest orders are nearer than two that have nothing in common.

    The distance is |Y| + |Ŷ| less 2 for each step that is matched in place and 3 for each two that
    are matched the wrong way round, with nothing matched between them. So a path leads through the
    pairs of a labelled and a recognised set, and in each as many steps are matched as there are in
    what is left of both: whoever kept one for later would have to keep its partner too, and their
    later partners would cross. From a pair it goes on to the next set of either kind, or, by two
    steps the wrong way round, to the next sets that have them. A state is what is left of the two
    sets, as far as it occurs in later ones of the other kind.

    `least` is what the orders by id save; None if it would take more than MAX_WORK.
    """
    next_found, next_steps = _next_places(found), _next_places(steps)
    hope = _hope(steps, found)
    states: dict[tuple[int, int], dict[tuple[Set, Set], int]] = {}  # by place: what they save
    best, work = least, 0

    def reach(g: int, h: int, left: Set, other: Set, saved: int) -> None:
        """Matches what is left of both sets, and keeps the state if it may lead to a better end."""
        nonlocal best, work
        work += 1
        common = collections.Counter(left) & collections.Counter(other)
        saved += _MATCH * common.total()
        best = max(best, saved)
        left = tuple(i for i in without(left, common.elements()) if i in next_found[h])
        other = tuple(j for j in without(other, common.elements()) if j in next_steps[g])
        further = _MATCH * (hope[g + 1, h + 1] + len(left) + len(other))
        of_place = states.setdefault((g, h), {})
        if saved + further > best and saved > of_place.get((left, other), -1):
            of_place[left, other] = saved

    if found:
        reach(0, 0, steps[0], found[0], 0)
    for g, h in itertools.product(range(len(steps)), range(len(found))):
        for (left, other), saved in states.pop((g, h), {}).items():
            if work > MAX_WORK:
                return None
            if h + 1 < len(found):
                reach(g, h + 1, left, found[h + 1], saved)
            if g + 1 < len(steps):
                reach(g + 1, h, steps[g + 1], other, saved)
            for i, j in itertools.product(left, other):
                to_g, to_h = next_steps[g][j], next_found[h][i]
                rest = tuple(without(steps[to_g], [j])), tuple(without(found[to_h], [i]))
                reach(to_g, to_h, *rest, saved + _SWAP)
    return best


def _next_places(of: Sequence[Set]) -> list[dict[int, int]]:
    """For each place the next one after it that has a step, by its id."""
    places: list[dict[int, int]] = []
    later: dict[int, int] = {}
    for place in reversed(range(len(of))):
        places.append(later)
        later = later | dict.fromkeys(of[place], place)
    return places[::-1]


def _hope(steps: Sequence[Set], best: Sequence[Set]) -> np.ndarray:
    """(G + 1, H + 1) how many steps from place g on have the ids of recognised ones from h on."""
    total = np.zeros((len(steps) + 1, len(best) + 1), np.int64)
    for step_id in set(itertools.chain(*steps)):
        counts = ([one.count(step_id) for one in reversed(of)] for of in (steps, best))
        a, b = (np.cumsum([0, *of])[::-1] for of in counts)
        total += np.minimum(a[:, None], b)
    return total
