"""POS, of orders and of sets, matching, F1 and delay against brute force on their definitions."""

import heapq
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

STEPS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 2, 3])), max_size=6, unique=True)


def shortest_edit(start, goal, alphabet):
    """The cheapest chain of single edits between two sequences, found by Dijkstra's search."""
    longest = max(len(start), len(goal)) + 1
    queue, done = [(0, start)], set()
    while queue:
        cost, now = heapq.heappop(queue)
        if now == goal:
            return cost
        if now in done:
            continue
        done.add(now)
        for i in range(len(now) + 1):
            if len(now) < longest:
                for a in alphabet:
                    heapq.heappush(queue, (cost + 1, (*now[:i], a, *now[i:])))
            if i < len(now):
                heapq.heappush(queue, (cost + 1, now[:i] + now[i + 1 :]))
                for a in alphabet:
                    heapq.heappush(queue, (cost + 2, (*now[:i], a, *now[i + 1 :])))
            if i + 1 < len(now):
                swapped = (*now[:i], now[i + 1], now[i], *now[i + 2 :])
                heapq.heappush(queue, (cost + 1, swapped))
    raise AssertionError


SEQUENCE = st.lists(st.integers(0, 2), max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(SEQUENCE, SEQUENCE)
def test_edit_distance_matches_search_over_edits(a, b):
    assert metrics.edit_distance(a, b) == shortest_edit(a, b, range(3))


def best_matching(truth, predicted):
    """(matches, −total delay) of the best of all matchings, by trying each."""
    best = (0, 0)
    for size in range(1, min(len(truth), len(predicted)) + 1):
        for chosen in itertools.combinations(predicted, size):
            for partners in itertools.permutations(truth, size):
                delays = [p - t for p, t in zip(chosen, partners, strict=True)]
                if min(delays) >= 0:
                    best = max(best, (size, -sum(delays)))
    return best


def longest_early(truth, predicted):
    """The most truths that early predictions can use up, by trying each assignment."""
    if not truth or not predicted:
        return 0
    rest = longest_early(truth[1:], predicted)
    for i, p in enumerate(predicted):
        if p < truth[0]:
            rest = max(rest, 1 + longest_early(truth[1:], predicted[:i] + predicted[i + 1 :]))
    return rest


@settings(max_examples=60, deadline=None)
@given(STEPS, STEPS)
def test_match_steps_matches_definition(truth, predicted):
    tp = fp = fn = 0
    for step in {s for _, s in truth + predicted}:
        true = [f for f, s in truth if s == step]
        pred = [f for f, s in predicted if s == step]
        matches = best_matching(true, pred)[0]
        tp += matches
        fp += len(pred) - matches
        pairs = metrics.match_times(true, pred)
        left = [t for t in true if t not in [t for t, _ in pairs]]
        spare = [p for p in pred if p not in [p for _, p in pairs]]
        fn += len(left) - longest_early(left, spare)
    matching = metrics.match_steps(truth, predicted)
    assert matching.counts() == (tp, fp, fn)
    # Every step, true or predicted, has exactly one outcome.
    pairs = matching.correct + matching.early
    assert sorted([(t, s) for s, t, _ in pairs] + matching.missed) == sorted(truth)
    assert sorted([(p, s) for s, _, p in pairs] + matching.wrong) == sorted(predicted)
    assert all(p < t for _, t, p in matching.early)
    for step in {s for s, _, _ in matching.early}:
        # The nearest: no other choice of as many predictions and truths has less total distance.
        pairs = [(t, p) for s, t, p in matching.early if s == step]
        left = [t for t, _ in pairs] + [t for t, s in matching.missed if s == step]
        spare = [p for _, p in pairs] + [p for p, s in matching.wrong if s == step]
        least = min(
            sum(ts) - sum(ps)
            for ts in itertools.combinations(left, len(pairs))
            for ps in itertools.combinations(spare, len(pairs))
        )
        assert sum(t - p for t, p in pairs) == least
        assert sorted(p for _, p in pairs) == [p for _, p in sorted(pairs)]

    scores = metrics.score_recording(truth, predicted, fps=4.0)
    precision = tp / (tp + fp) if tp + fp else 0
    recall = tp / (tp + fn) if tp + fn else 0
    if not truth:
        assert scores["f1"] is None
    elif tp == 0:
        assert scores["f1"] == 0
    else:
        assert scores["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    if tp:
        total = -sum(
            best_matching([f for f, s in truth if s == i], [f for f, s in predicted if s == i])[1]
            for i in {s for _, s in truth}
        )
        assert scores["delay_s"] == pytest.approx(total / tp / 4.0)
    else:
        assert scores["delay_s"] is None


def most_tolerant(truth, predicted, tolerance):
    """The most matches with predictions that are early by at most a tolerance, by trying each."""
    if not truth or not predicted:
        return 0
    best = most_tolerant(truth[1:], predicted, tolerance)
    for i, p in enumerate(predicted):
        if p - truth[0] >= -tolerance:
            rest = predicted[:i] + predicted[i + 1 :]
            best = max(best, 1 + most_tolerant(truth[1:], rest, tolerance))
    return best


@settings(max_examples=60, deadline=None)
@given(STEPS.filter(bool), STEPS, st.sampled_from([0, 0.5, 2.5, 20]))
def test_tolerant_f1_matches_brute_force(truth, predicted, tolerance):
    tp = fn = 0
    for step in {s for _, s in truth}:
        true = [f for f, s in truth if s == step]
        pred = [f for f, s in predicted if s == step]
        tp += most_tolerant(true, pred, tolerance)
        fn += max(len(true) - len(pred), 0)  # what no prediction matches or uses up
    expected = metrics.f1_score(tp, len(predicted) - tp, fn)
    assert metrics.tolerant_f1(truth, predicted, tolerance) == pytest.approx(expected)
    plain = metrics.score_recording(truth, predicted, fps=4.0)
    assert metrics.tolerant_f1(truth, predicted, 0) == plain["f1"]
    assert plain["f1_tolerant"] == metrics.tolerant_f1(truth, predicted, 4) >= plain["f1"]
    assert metrics.tolerant_f1([], predicted, tolerance) is None


def test_scored_reports_of_wrong_parts_count_only_with_errors():
    events = [[4, 0, 0.9], [5, 1, 0.9], [6, 5, 0.9], [7, 34, 0.9]]
    assert metrics.scored_steps(events) == [(4, 0), (6, 5)]
    assert metrics.scored_steps(events, with_errors=True) == [(4, 0), (5, 1), (6, 5), (7, 34)]
    # A part that was reported as wrong is taken off: no label says so. The next removal has one.
    events = [(5, 1, 0.9), (7, 2, 0.9), (9, 0, 0.9), (11, 2, 0.9)]
    assert metrics.scored_steps(events) == [(9, 0), (11, 2)]
    assert metrics.scored_steps(events, with_errors=True) == [(5, 1), (9, 0), (11, 2)]


# Frames that are no step ids: columns that look exchanged are refused.
IN_FRAMES = st.lists(st.tuples(st.integers(5, 8), st.integers(0, 4)), max_size=5, unique=True)


def all_orders(steps):
    """Every order of (frame, step id) that differs inside frames alone."""
    frames = [sorted(s for f, s in steps if f == frame) for frame in sorted({f for f, _ in steps})]
    for one in itertools.product(*(set(itertools.permutations(ids)) for ids in frames)):
        yield list(enumerate(itertools.chain(*one), 5))


@settings(max_examples=300, deadline=None)
@given(IN_FRAMES.filter(bool), IN_FRAMES)
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
