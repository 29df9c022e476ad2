"""Orders of building that follow from what parts are to each other."""

import itertools

import numpy as np
import trimesh

from data_prep.products import building, relations
from tests.support.boxes import box, product, shell

# A cup with a peg in it, a lid over both, a knob on the lid, and a flag at its side.
NAMES = ("knob", "lid", "cup", "peg", "flag")
CUP = (
    box((1, 1, 4), (3, 3, 5)),
    box((0, 0, 3), (4, 4, 4)),
    shell((0, 0, 0), (4, 4, 3), 1),
    box((1, 1, 1), (3, 3, 3)),
    box((4, 1, 1), (5, 3, 2)),
)


def made(meshes=CUP, names=NAMES, steps=()):
    return building.plan(relations.find(product(*meshes)), names, steps)


def pairs(plan, names=NAMES):
    return {(names[rule.before], names[rule.after]): rule.why for rule in plan.rules}


def test_what_is_covered_comes_first_and_what_lies_on_others_comes_later():
    plan = made()
    assert pairs(plan) == {
        ("cup", "peg"): "it lies on cup",
        ("cup", "flag"): "cup holds it",
        ("peg", "lid"): "it lies on peg",
        ("lid", "knob"): "it lies on lid",
    }
    assert not plan.doubts
    assert NAMES[plan.order[0]] == "cup"
    # Where the lid does not reach down to the peg, it would be in its way.
    low = (*CUP[:3], box((1, 1, 1), (3, 3, 2)), CUP[4])
    assert pairs(made(low))["peg", "lid"] == "lid would be in its way up"


def test_every_order_that_keeps_to_the_rules_can_be_built():
    """With all ways tried out: the rules are enough, whichever order they leave open."""
    found = relations.find(product(*CUP))
    plan = building.plan(found, NAMES)
    possible = 0
    for order in itertools.permutations(range(len(NAMES))):
        if all(order.index(rule.before) < order.index(rule.after) for rule in plan.rules):
            possible += 1
            for n, k in enumerate(order):
                assert building.ways_out(found, k, order[:n])
    assert possible == 4  # the flag comes at any time after the cup


def test_steps_of_instructions_come_one_after_the_other():
    plan = made(steps=[[2], [4, 3], [1, 0]])
    assert [sorted(part) for part in (plan.order[:1], plan.order[1:3], plan.order[3:])] == [
        [2],
        [3, 4],
        [0, 1],
    ]
    assert pairs(plan)["flag", "lid"] == "step 2 comes before step 3"
    assert ("lid", "knob") in pairs(plan)
    assert not plan.doubts


def test_an_order_in_which_a_part_would_pass_through_another_is_told():
    plan = made(steps=[[2], [1], [3, 4], [0]])
    (doubt,) = plan.doubts
    assert doubt.startswith("peg cannot be fitted along any axis once lid, cup are there")
    assert "lid (up)" in doubt
    assert "cup (to the right, to the left" in doubt


def test_an_order_in_which_a_part_would_hang_in_the_air_is_told():
    plan = made(steps=[[2], [3, 4], [0], [1]])
    assert plan.doubts == ["knob is fitted before lid, on which it lies; put the order right"]


def test_parts_that_cannot_come_apart_are_told():
    closed = trimesh.util.concatenate([CUP[2], CUP[1]])
    (doubt,) = made((closed, CUP[3]), ("case", "peg")).doubts
    assert "along any axis once" in doubt
    assert "put the order right" in doubt


def brute_force(plan):
    """All states but the empty one, by trying every one."""
    count = len(plan.order)
    rules = [(rule.before, rule.after) for rule in plan.rules]
    return {
        state
        for state in itertools.product((0, 1), repeat=count)
        if any(state) and all(state[a] or not state[b] for a, b in rules)
    }


def test_states_are_those_that_the_rules_allow():
    plan = made()
    states, total = building.states(plan, 100)
    assert total == len(states) == len(brute_force(plan))
    assert {tuple(row) for row in states.tolist()} == brute_force(plan)
    assert states[0].sum() == 1
    assert states[-1].all()
    assert (np.diff(states.sum(axis=1)) >= 0).all()


def test_of_too_many_states_whole_orders_are_kept():
    """From each state there is a way to the complete product, one part at a time."""
    free = building.Plan(list(range(10)), [building.Rule(0, 9, "")], [])
    states, total = building.states(free, 60)
    assert total == len(brute_force(free))
    assert 40 < len(states) <= 60
    known = {tuple(row) for row in states.tolist()}
    assert known <= brute_force(free)
    for state in known - {(1,) * 10}:
        assert any((*state[:k], 1, *state[k + 1 :]) in known for k in range(10) if not state[k])
    again, _ = building.states(free, 60)
    np.testing.assert_array_equal(states, again)


def test_more_states_than_can_be_counted_are_capped():
    free = building.Plan(list(range(18)), [], [])
    states, total = building.states(free, 80)
    assert total == building.MAX_COUNTED
    assert len(states) <= 80
