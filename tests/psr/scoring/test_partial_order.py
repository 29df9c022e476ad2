"""POS against a partial order, held against all orders that the precedence leaves open."""

import itertools
import json
import random

import numpy as np
import pytest

from stormpsr_jax.psr.evaluation import analysis, compare, evaluate, released
from stormpsr_jax.psr.files.predictions import Detections
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring import headline, metrics, partial_order
from stormpsr_jax.psr.streams.stream import Settings
from tests.support import toy


def timed(steps):
    return list(enumerate(steps))


def score(truth, predicted, precedence):
    return partial_order.order_similarity(timed(truth), timed(predicted), precedence)


def reachable(pairs):
    """All pairs (a, b) of a precedence with a before b, by Warshall's closure."""
    found = set(pairs)
    ids = {step for pair in pairs for step in pair}
    for middle, first, last in itertools.product(ids, repeat=3):
        if (first, middle) in found and (middle, last) in found:
            found.add((first, last))
    return found


def all_orders(steps, precedence):
    """Every order that follows from the labelled one by swapping neighbours that are free."""
    closed = reachable(precedence)

    def free(a, b):
        return a // 3 != b // 3 and (a, b) not in closed and (b, a) not in closed

    found, waiting = {steps}, [steps]
    while waiting:
        order = waiting.pop()
        for i, (a, b) in enumerate(itertools.pairwise(order)):
            swapped = (*order[:i], b, a, *order[i + 2 :])
            if free(a, b) and swapped not in found:
                found.add(swapped)
                waiting.append(swapped)
    return found


def made_up(rng):
    """Labelled steps, recognised ones and a precedence; the steps have repeats and removals."""
    ids = [3 * k + kind for k in range(rng.randint(2, 5)) for kind in (0, 2)]
    ranks = rng.sample(ids, len(ids))
    share = rng.choice((0.1, 0.3, 0.6))
    rules = [pair for pair in itertools.combinations(ranks, 2) if rng.random() < share]
    truth = rng.choices(ids, k=rng.randint(1, 7))
    found = list(truth)
    for _ in range(rng.randint(0, 5)):
        i, j = rng.randrange(len(found) + 1), rng.randrange(len(found) + 1)
        if rng.random() < 0.6 and found:
            found.insert(i, found.pop(j - 1))
        elif rng.random() < 0.5:
            del found[i : i + 1]
        else:
            found.insert(i, rng.choice(ids))
    return tuple(truth), tuple(found), rules or [(ids[0], ids[2])]


def test_pos_partial_is_that_of_the_nearest_order_that_precedence_allows():
    rng = random.Random(0)
    higher = 0
    for _ in range(120):
        truth, found, rules = made_up(rng)
        pos = [metrics.order_similarity(timed(y), timed(found)) for y in all_orders(truth, rules)]
        assert score(truth, found, rules) == pytest.approx(max(pos), abs=1e-12), (
            truth,
            found,
            rules,
        )
        higher += max(pos) > metrics.order_similarity(timed(truth), timed(found))
    assert higher > 10  # of the draws are such that the free order matters


def recording(procedure, truth, shown):
    """A recording whose detector shows the states of `shown` one after the other."""
    frames = np.arange(len(shown))
    return LabelledPredictions(
        name="r",
        variant=procedure.variants["assembly"],
        truth=truth,
        frames=np.zeros(1, np.int64),
        states=np.zeros((1, procedure.num_components), np.int8),
        detections=Detections(
            frames, np.array(shown), np.full(len(shown), 0.9), np.ones((len(shown), 4))
        ),
    )


@pytest.fixture
def free_order():
    """A procedure whose second and third part may be put on in either order."""
    data = toy.content("a, b, c", "100 110 101 111", fps=10, variant="assembly")
    data["variants"]["assembly"]["precedence"] = [[0, 3], [0, 6]]
    return Procedure.from_json(data)


def evaluated(procedure, protocol="paper"):
    truth = [(1, 0), (3, 3), (4, 6)]
    found = recording(procedure, truth, [0, 1, 1, 1, 3, 3, 4])
    settings = Settings(decoder="naive")
    return evaluate.evaluate_recordings(procedure, {"r": found}, settings, protocol=protocol)


def test_pos_partial_is_in_results_and_tables_of_a_procedure_with_precedence(free_order, tmp_path):
    result = evaluated(free_order)
    stream = result["streams"]["asd"]
    assert (stream["pos"], stream["pos_partial"]) == (pytest.approx(2 / 3), 1)
    assert stream["undefined"]["pos_partial"] == 0
    assert stream["recordings"]["r"]["pos_partial"] == 1
    assert analysis.summary_table(result)[0]["pos_partial"] == 1
    assert "pos_partial" not in analysis.overview(result)  # which all procedures have alike
    assert analysis.recordings_table(result)[0]["pos_partial"] == 1
    assert "pos_partial" in {r["metric"] for r in compare.compare(result, result, samples=9)}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(result))
    assert analysis.load_result(path) == json.loads(json.dumps(result))


def test_pos_partial_is_not_of_protocol_released(free_order):
    result = evaluated(free_order, "released")
    assert "pos_partial" not in json.dumps(result)
    assert headline.values(result["streams"]["asd"]).keys() >= released._UNDEFINED.keys()
