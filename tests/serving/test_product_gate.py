import json
import math

import numpy as np

from stormpsr_jax.serving import product_gate
from stormpsr_jax.serving.product_gate import BOTH, Fits, Looks, Prototypes, Space
from stormpsr_jax.serving.product_gate_learning import learn
from tests.support.looks import looks, seen


def test_distances_are_those_of_the_gaussian_with_one_variance_for_the_rest():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    space = Space(rng.normal(size=5), axes[:2], np.array([3.0, 2.0]), 0.5)
    covariance = axes.T @ np.diag([9, 4, 0.25, 0.25, 0.25]) @ axes
    rows = rng.normal(0, 3, (20, 5))
    expected = [
        math.sqrt((row - space.mean) @ np.linalg.solve(covariance, row - space.mean) / 5)
        for row in rows
    ]
    np.testing.assert_allclose(space.distances(rows), expected)


def test_a_picture_is_familiar_if_it_is_sure_and_near():
    model = Fits({}, Space(np.zeros(3), np.eye(3)[:1], np.ones(1), 1.0, typical=1.5))
    embeddings = np.array([[0, 0, 0], [9, 0, 0], [0, 0, 0], [0, 0, 0]])
    looked = Looks.of(seen([2, 2, 0, 3], [0.7, 0.8, 0.9, 0.2], embeddings), ())
    np.testing.assert_allclose(looked.familiar("detector", model), [0.7, 0.8, 0, 0.2])
    assert [key for key in product_gate.KEYS if looked.has(key, model)] == ["detector"]


def test_a_picture_is_familiar_as_far_as_both_networks_see_the_same_state():
    prototypes = Prototypes(np.array([2, 5]), np.eye(3)[:2])
    model = Fits({}, Space(np.zeros(3), np.eye(3)[:1], np.ones(1), 1.0, 9.0), prototypes)
    embeddings = np.array([[4, 0, 0], [4, 0, 0], [3, 3, 0], [3, 2.8, 0], [4, 0, 0]])
    looked = Looks.of(seen([2, 5, 2, 5, 4], [0.9] * 5, embeddings), ())
    cosines = np.array([3, 2.8]) / np.hypot(3, 2.8)
    weaker = 1 / (1 + np.exp((cosines[0] - cosines[1]) / product_gate.TEMPERATURE))
    expected = [0.9, 0, 0.45, 0.9 * weaker, 0]
    np.testing.assert_allclose(looked.familiar(BOTH, model), expected, atol=1e-8)


def test_what_is_learnt_is_written_and_read():
    rng = np.random.default_rng(4)
    found = learn([looks(rng, 100)], [looks(rng, 300)], 1.0)
    again = Fits.from_json(json.loads(json.dumps(found.to_json())), "x")
    assert again.thresholds == found.thresholds
    other = looks(rng, 20).embeddings
    np.testing.assert_allclose(
        again.space.distances(other), found.space.distances(other), rtol=1e-4
    )
    classes = np.arange(20) % 3 + 2
    np.testing.assert_allclose(
        again.prototypes.agreement(other, classes),
        found.prototypes.agreement(other, classes),
        atol=1e-4,
    )
    without = Fits({"detector": 0.1}, None)
    assert Fits.from_json(without.to_json(), "x").to_json() == without.to_json()
