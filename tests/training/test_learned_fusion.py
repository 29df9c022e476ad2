import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.psr import learned_beliefs, learned_stream
from stormpsr_jax.recordings.scores import Scores
from stormpsr_jax.training import learned_fusion
from tests.support.simulated_scores import PROCEDURE, simulate


@pytest.fixture(scope="module")
def examples():
    found = []
    for r in map(simulate, range(4)):
        last = Scores(r.scores.frames[-150:], *(a[-150:] for a in r.scores.arrays))
        initial = [0] * PROCEDURE.num_components
        states = r.states_at(last.frames)
        found.append(learned_fusion.Example(last, states, initial, PROCEDURE.states))
    return found


def test_fit_the_same_again_and_from_nothing_one_more_fit(examples):
    options = {"steps": 3, "units": 2, "seed": 1}
    one, other = (learned_fusion.fit(examples, PROCEDURE.fps, **options) for _ in range(2))
    assert one.weights.checksum == other.weights.checksum
    assert one.weights.units == 2
    assert learned_fusion.num_steps(3, None) == 15
    assert one.weights.checksum not in {w.checksum for w in one.held_out}
    # The fit on all has seen what each fold has not.
    others = learned_fusion.fit(examples, PROCEDURE.fps, **options | {"seed": 2})
    assert others.weights.checksum != one.weights.checksum


def test_fit_a_fold_does_not_see_its_recording(examples):
    params = learned_fusion.initial(jax.random.key(3), 4)
    arrays = {name: np.asarray(a, float) for name, a in params.items()}
    start = learned_beliefs.Weights("scores", 0.4, arrays)
    options, told = {"start": start, "steps": 2}, []
    before = learned_fusion.fit(examples, PROCEDURE.fps, progress=told.append, **options)
    assert sum(told) == learned_fusion.num_steps(2, start) == 8
    for name, mean in before.weights.arrays.items():
        np.testing.assert_allclose(mean, np.mean([w.arrays[name] for w in before.held_out], axis=0))
    spoilt = [*examples]
    spoilt[1] = dataclasses.replace(spoilt[1], states=1 - np.abs(spoilt[1].states))
    after = learned_fusion.fit(spoilt, PROCEDURE.fps, **options)
    same = [a.checksum == b.checksum for a, b in zip(before.held_out, after.held_out, strict=True)]
    assert same == [False, True, False, False]


def drawn(units=3, T=20, N=5):
    rng = np.random.default_rng(0)
    params = learned_fusion.initial(jax.random.key(0), units)
    params = {n: a + 0.3 * rng.normal(size=a.shape).astype(np.float32) for n, a in params.items()}
    x = rng.normal(size=(T, learned_beliefs.NUM_INPUTS, N)).astype(np.float32)
    start = rng.integers(0, 2, N)
    states = rng.integers(-1, 2, (T, N)).astype(np.int8)
    mask = rng.random((T, N)) < 0.8
    return params, x, start, states, mask


def test_the_fit_and_the_stream_believe_what_the_numpy_rule_says_of_a_recording():
    weights, recording = learned_beliefs.default_weights("scores"), simulate(1)
    said, initial = recording.scores, [0] * PROCEDURE.num_components
    x = learned_beliefs.inputs(said.arrays, PROCEDURE.states.astype(float))
    span = learned_beliefs.span_frames(weights.average, PROCEDURE.fps)
    x = learned_beliefs.moving_average(said.frames, x, span)
    hidden, rows = weights.arrays["start"][initial], []
    for row in x:
        hidden, o = learned_beliefs.step(weights.arrays, hidden, row)
        rows.append(o)
    expected = np.stack(rows).swapaxes(1, 2)
    params = {name: jnp.asarray(a, jnp.float32) for name, a in weights.arrays.items()}
    got = learned_fusion.logits(
        params, jnp.asarray(x.swapaxes(1, 2), jnp.float32), np.array(initial)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    settings = learned_stream.LearnedSettings(rho=None)
    belief = learned_stream.LEARNED.beliefs(PROCEDURE, recording, settings, weights)
    np.testing.assert_allclose(belief.present, expected[:, 0], rtol=1e-8, atol=1e-8)


def test_loss_what_the_mask_leaves_out_does_not_matter():
    params, x, start, states, mask = drawn()
    mask[12:] = False
    value = learned_fusion.loss(params, x, start, states, mask)
    np.testing.assert_allclose(
        value, learned_fusion.loss(params, x[:12], start, states[:12], mask[:12])
    )
    assert learned_fusion.loss(params, x, start, states, np.zeros_like(mask)) == 0
