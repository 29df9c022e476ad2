import dataclasses

import jax
import numpy as np
import pytest

from stormpsr_jax.networks import learned_fusion as network
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.training import learned_fusion
from tests.support.simulated_scores import PROCEDURE, simulate


def example(seed, num=150):
    r = simulate(seed)
    cut = dataclasses.replace(
        r.scores, **{f: getattr(r.scores, f)[-num:] for f in ("frames", "objectness", "states")}
    )
    cut = dataclasses.replace(cut, parts=cut.parts[-num:], temporal=cut.temporal[-num:])
    return learned_fusion.Example(
        cut, r.states_at(cut.frames), [0] * PROCEDURE.num_components, PROCEDURE.states
    )


@pytest.fixture(scope="module")
def examples():
    return [example(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def start():
    params = network.initial(jax.random.key(3), 4)
    return Weights("scores", 0.4, {n: np.asarray(a, float) for n, a in params.items()})


def test_fit_the_same_again_and_from_nothing_one_more_fit(examples):
    options = {"steps": 3, "units": 2, "seed": 1}
    one, other = (learned_fusion.fit(examples[:4], PROCEDURE.fps, **options) for _ in range(2))
    assert one.weights.checksum == other.weights.checksum
    assert one.weights.units == 2
    assert learned_fusion.num_steps(3, None) == 15
    assert one.weights.checksum not in {w.checksum for w in one.held_out}
    # The fit on all has seen what each fold has not.
    others = learned_fusion.fit(examples[:4], PROCEDURE.fps, **options | {"seed": 2})
    assert others.weights.checksum != one.weights.checksum


def test_fit_a_fold_does_not_see_its_recording(examples, start):
    options, told = {"start": start, "steps": 2}, []
    before = learned_fusion.fit(examples[:4], PROCEDURE.fps, progress=told.append, **options)
    assert sum(told) == learned_fusion.num_steps(2, start) == 8
    for name, mean in before.weights.arrays.items():
        np.testing.assert_allclose(mean, np.mean([w.arrays[name] for w in before.held_out], axis=0))
    spoilt = [*examples[:4]]
    spoilt[1] = dataclasses.replace(spoilt[1], states=1 - np.abs(spoilt[1].states))
    after = learned_fusion.fit(spoilt, PROCEDURE.fps, **options)
    same = [a.checksum == b.checksum for a, b in zip(before.held_out, after.held_out, strict=True)]
    assert same == [False, True, False, False]
