import dataclasses

import jax
import numpy as np
import pytest

from stormpsr_jax.networks import learned_fusion as network
from stormpsr_jax.psr.streams.learned_beliefs import Weights
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


def test_fit_beats_its_start_on_recordings_it_has_not_seen(examples, start):
    told = []
    fitted = learned_fusion.fit(
        examples, PROCEDURE.fps, start=start, steps=40, progress=told.append
    )
    assert fitted.after < 0.7 * fitted.before
    assert sum(told) == learned_fusion.num_steps(40, start) == 160
    assert fitted.weights.kind == "scores"
    # Recording 4 is in the fold of recording 0.
    assert fitted.held_out[4] is fitted.held_out[0]
    assert len({id(w) for w in fitted.held_out}) == 4
    for name, mean in fitted.weights.arrays.items():
        folds = [w.arrays[name] for w in fitted.held_out[:4]]
        np.testing.assert_allclose(mean, np.mean(folds, axis=0))


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
    options = {"start": start, "steps": 2}
    before = learned_fusion.fit(examples[:4], PROCEDURE.fps, **options)
    spoilt = [*examples[:4]]
    spoilt[1] = dataclasses.replace(spoilt[1], states=1 - np.abs(spoilt[1].states))
    after = learned_fusion.fit(spoilt, PROCEDURE.fps, **options)
    same = [a.checksum == b.checksum for a, b in zip(before.held_out, after.held_out, strict=True)]
    assert same == [False, True, False, False]
