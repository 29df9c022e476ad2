import itertools

import numpy as np
import pytest

from data_prep.products import products
from data_prep.worlds import orders, rendered, timelines
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from tests.support import lantern, toy

LANTERN = Procedure.from_json(lantern.CONTENT)


def test_nothing_changes_under_a_part_that_stays_on():
    """Steps may be done together, wrong, undone and forgotten."""
    for product, seed in itertools.product(range(6), range(40)):
        procedure = products.drawn(product).procedure
        (variant,) = procedure.variants.values()
        rng = np.random.default_rng(seed)
        timeline = timelines.draw_timeline(procedure, rng, wrong=0.3, covers=True)
        for old, new in itertools.pairwise(timeline.states):
            for a, b in variant.precedence:
                stays = old[b // 3] and new[b // 3]
                assert not stays or old[a // 3] == new[a // 3], (product, seed)


def test_recordings_are_of_all_variants_in_turn_as_their_globs_tell():
    content = toy.content()
    only = content["variants"].pop("all")
    for name, globs in (("on", ["*_assy"]), ("off", ["[xy]?-*", "never"])):
        content["variants"][name] = only | {"recordings": globs}
    procedure = Procedure.from_json(content)
    found = rendered.split_names(procedure, {"train": 4, "val": 2}, 2)
    assert len({name for of_split in found.values() for name in of_split}) == 8
    for of_split in found.values():
        variants = [procedure.variant_for(name).name for name in of_split]
        assert variants == ["on", "off"] * (len(of_split) // 2)
    assert found["train"][-1] == "x0-rehearsal_001"
    assert [rendered.is_rehearsal(name) for name in found["train"]] == [False] * 4 + [True] * 2


def test_a_drawn_product_can_be_built_and_its_catalogue_is_all_that_its_order_allows():
    stacked = 0
    for seed in range(8):
        found = products.drawn(seed)
        procedure, product = found.procedure, found.product
        assert Procedure.from_json(procedure.to_json()) == procedure
        orders.check(procedure)
        assert 5 <= procedure.num_components == len(product.parts) <= 9
        assert 5 < procedure.num_states <= products.MAX_STATES
        rng, (variant,) = np.random.default_rng(0), procedure.variants.values()
        for _ in range(5):
            state = np.zeros(procedure.num_components, np.int8)
            for step in orders.draw_order(procedure, variant, rng):
                state[step // 3] = 1
                assert procedure.state_class(state) > 0
            assert state.all()
        bottoms = [part.right[2, 3] - part.height / 2 for part in product.parts]
        for k in np.flatnonzero(np.array(bottoms) > 0.11):
            stacked += 1
            below = [a // 3 for a, b in variant.precedence if b == 3 * k]
            near = [
                np.linalg.norm((product.parts[j].right - product.parts[k].right)[:2, 3])
                for j in below
            ]
            assert min(near) < 0.3
    assert stacked > 2
    assert products.drawn(3).procedure == products.drawn(3).procedure
    assert products.drawn(3).procedure != products.drawn(4).procedure


@pytest.mark.parametrize("name", ["meccano", "industreal", "impact", "synthetic"])
def test_draw_timeline_every_event_is_a_possible_change(name):
    procedure, seen = load_procedure(name), set()
    orders.check(procedure)
    for variant, seed in itertools.product(procedure.variants.values(), range(40)):
        rng = np.random.default_rng(seed)
        timeline = timelines.draw_timeline(procedure, rng, variant=variant, covers=True)
        assert (np.diff(timeline.frames) > 0).all()
        assert timeline.frames[0] == timeline.first_frame == 0
        assert timeline.frames[-1] < timeline.num_frames
        assert tuple(timeline.states[0]) == variant.initial_state
        for _, changed in timelines.changes(timeline):
            assert len(changed) >= 1
            seen |= set(changed.values())
        assert len(timelines.changes(timeline)) == len(timeline.frames) - 1
    assert seen == {(0, 1), (0, -1), (-1, 0), (-1, 1), (1, 0)}
