"""POS where steps of one frame are a set, held against all orders inside frames."""

import itertools
import json
import pathlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr import analysis, evaluation, metrics, step_sets
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.streams import decode
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions, load_recordings
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import toy

# Frames that are no step ids: columns that look exchanged are refused.
STEPS = st.lists(st.tuples(st.integers(5, 8), st.integers(0, 4)), max_size=5, unique=True)


def all_orders(steps):
    """Every order of (frame, step id) that differs inside frames alone."""
    frames = [sorted(s for f, s in steps if f == frame) for frame in sorted({f for f, _ in steps})]
    for one in itertools.product(*(set(itertools.permutations(ids)) for ids in frames)):
        yield list(enumerate(itertools.chain(*one), 5))


@settings(max_examples=300, deadline=None)
@given(STEPS.filter(bool), STEPS)
def test_pos_sets_is_the_best_pos_over_all_orders_inside_frames(truth, found):
    best = max(
        metrics.order_similarity(y, other)
        for y, other in itertools.product(all_orders(truth), all_orders(found))
    )
    assert step_sets.order_similarity(truth, found) == best
    assert best >= metrics.order_similarity(truth, found)


def test_pos_sets_is_undefined_without_steps_and_where_the_search_would_take_too_long():
    assert step_sets.order_similarity([], [(1, 0)]) is None
    rng = random.Random(0)
    truth, found = ([(i // 2, rng.randrange(i % 2, 60, 2)) for i in range(600)] for _ in range(2))
    assert step_sets.order_similarity(truth, found) is None
    assert step_sets.order_similarity(truth, truth) == 1


REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "industreal_real"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real labels are not here")
def test_pos_sets_of_real_detections_is_that_of_the_page_however_components_are_numbered():
    procedure, pairs = load_procedure("industreal"), []
    for r in load_recordings(procedure, REAL / "labels", REAL / "asd").values():
        events = decode(procedure, r.variant, "asd", Settings(), r.detections)
        pairs.append((r.truth, metrics.scored_steps([event[:2] for event in events])))
    numbers = range(procedure.num_components)
    for order in (numbers, numbers[::-1]):
        others = [
            [[(frame, 3 * order[step // 3] + step % 3) for frame, step in of] for of in pair]
            for pair in pairs
        ]
        found = np.mean([step_sets.order_similarity(*pair) for pair in others])
        assert found == pytest.approx(0.864, abs=5e-4)


PROCEDURE = toy.procedure("a, b, c", "100 110 101 111", fps=10)


def evaluated(*truths, protocol="paper"):
    """Recordings whose detector shows first a, then b and c at once, of which c came first."""
    shown = np.array([0, 1, 1, 1, 4, 4, 4])
    count = len(shown)
    detections = Detections(np.arange(count), shown, np.full(count, 0.9), np.ones((count, 4)))
    recordings = {
        f"r{i}": LabelledPredictions(
            name=f"r{i}",
            variant=PROCEDURE.variants["all"],
            truth=truth,
            frames=np.zeros(1, np.int64),
            states=np.zeros((1, 3), np.int8),
            detections=detections,
        )
        for i, truth in enumerate(truths)
    }
    settings = Settings(decoder="naive")
    return evaluation.evaluate_recordings(PROCEDURE, recordings, settings, protocol=protocol)


APART, TOGETHER = [(1, 0), (2, 6), (3, 3)], [(1, 0), (3, 3), (3, 6)]


def test_pos_sets_is_in_results_and_tables_where_labelled_steps_share_a_frame(tmp_path):
    result = evaluated(APART, TOGETHER)
    stream = result["streams"]["asd"]
    assert [r["pos"] for r in stream["recordings"].values()] == [pytest.approx(2 / 3), 1]
    assert [r["pos_sets"] for r in stream["recordings"].values()] == [1, 1]
    assert (stream["pos_sets"], stream["undefined"]["pos_sets"]) == (1, 0)
    assert analysis.summary_table(result)[0]["pos_sets"] == 1
    assert "pos_sets" not in analysis.overview(result)  # which all results have alike
    assert "pos_sets" in {r["metric"] for r in analysis.compare(result, result)}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(result))
    assert analysis.load_result(path) == json.loads(json.dumps(result))
    for other in (evaluated(APART), evaluated(TOGETHER, protocol="released")):
        assert "pos_sets" not in json.dumps(other)
