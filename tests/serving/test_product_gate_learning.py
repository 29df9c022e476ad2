import numpy as np
import pytest

from stormpsr_jax.serving import product_gate, product_gate_learning
from stormpsr_jax.serving.product_gate import BOTH
from stormpsr_jax.stages import product_gate as stage
from stormpsr_jax.stages.context import Context
from tests.support.looks import looks
from tests.support.tiny import tiny


def test_learn_the_threshold_is_what_the_best_minute_reaches_in_all_but_one_in_a_hundred():
    rng = np.random.default_rng(2)
    validation = [
        looks(rng, 200)._replace(confidences=rng.uniform(0, most, 200))
        for most in np.linspace(0.3, 1, 300)
    ]
    found = product_gate_learning.learn([looks(rng, 500)], validation, rate=1.0)
    assert found.thresholds.keys() == set(product_gate.KEYS)
    best = []
    for one in validation:
        values = one.familiar("detector", found)
        best.append(max(values[i : i + 60].mean() for i in range(len(values) - 59)))
    allowed = (
        found.thresholds["detector"] * (300 + product_gate_learning.FEW) / 300
    )  # of any number of recordings
    assert np.mean(np.array(best) < allowed - 1e-9) <= 0.01
    assert np.mean(np.array(best) <= allowed + 2e-3) >= 0.01
    assert found.thresholds[BOTH] == product_gate_learning.ENOUGH_OF_BOTH
    whole = product_gate.joined(validation)
    near = found.space.distances(whole.embeddings) <= found.space.typical
    assert np.average(near, weights=whole.confidences) == pytest.approx(
        product_gate_learning.TYPICAL, abs=0.01
    )


def test_learn_of_both_networks_no_less_than_chance_is_asked_for():
    """Of which other products have something, too."""
    rng = np.random.default_rng(7)
    weak = [looks(rng, 100, confidence=0.02), looks(rng, 100)]
    assert (
        product_gate_learning.learn([looks(rng, 100)], weak, 1.0).thresholds[BOTH]
        == product_gate_learning.CHANCE
    )


def test_a_model_without_a_detector_learns_nothing_and_looks_at_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(stage.networks, "trained", lambda *_: {"encoder": None, "temporal": None})
    context = Context(tiny(**{"data.dir": str(tmp_path / "none")}), tmp_path, mesh=None)
    assert stage.run(context) == {}
    assert stage.read(tmp_path / "product_gate").to_json() == product_gate.Fits({}, None).to_json()


def test_learn_what_cannot_tell_has_no_threshold():
    rng = np.random.default_rng(3)
    hidden = [looks(rng, 300, confidence=0.001)]
    assert product_gate_learning.learn([looks(rng, 100)], hidden, 1.0).thresholds == {}
    with pytest.raises(ValueError, match="training and validation"):
        product_gate_learning.learn([looks(rng, 10)], [], 1.0)
