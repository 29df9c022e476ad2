import hashlib
import itertools

import numpy as np
import pytest

from data_prep.worlds import orders, timelines
from data_prep.worlds.timelines import USUAL, Habits
from stormpsr_jax.recordings.procedure import load_procedure

SYNTHETIC = load_procedure("synthetic")


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


def test_draw_timeline_errors_are_corrected_at_once_later_or_never():
    shares = dict.fromkeys(("at once", "later", "never"), 0)
    rngs = map(np.random.default_rng, range(400))
    drawn = [timelines.draw_timeline(SYNTHETIC, rng, habits=USUAL) for rng in rngs]
    for timeline in drawn:
        for row in timeline.states.T:
            for m in np.flatnonzero((row[1:] == -1) & (row[:-1] != -1)) + 1:
                after = np.flatnonzero(row[m:] != -1)
                left = "never" if not len(after) else "at once" if after[0] == 1 else "later"
                shares[left] += 1
    total = sum(shares.values())
    assert total > 200
    assert {name: round(n / total, 1) for name, n in shares.items()} == {
        "at once": 0.5,
        "later": 0.2,
        "never": 0.3,
    }
    paces = [np.median(np.diff(t.frames[1:])) / SYNTHETIC.fps for t in drawn]
    assert np.quantile(paces, 0.9) > 1.5 * np.quantile(paces, 0.1)


def test_draw_timeline_of_the_toy_before_errors_stayed_is_what_it_has_been():
    """Older figures of results.md are of these recordings."""
    digest = hashlib.sha256()
    for seed, wrong in itertools.product(range(100), (None, 0.5)):
        rng = np.random.default_rng(seed)
        timeline = timelines.draw_timeline(SYNTHETIC, rng, wrong=wrong, habits=Habits())
        digest.update(timeline.frames.astype("<i8").tobytes() + timeline.states.tobytes())
        digest.update(str(timeline.num_frames).encode())
    assert digest.hexdigest()[:16] == "0cbb7ba476c137c2"
