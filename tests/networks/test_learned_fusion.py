import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.networks import learned_fusion
from stormpsr_jax.psr import learned_beliefs, learned_stream
from tests.support.simulated_scores import PROCEDURE, simulate


def drawn(units=3, T=20, N=5):
    rng = np.random.default_rng(0)
    params = learned_fusion.initial(jax.random.key(0), units)
    params = {n: a + 0.3 * rng.normal(size=a.shape).astype(np.float32) for n, a in params.items()}
    x = rng.normal(size=(T, learned_beliefs.NUM_INPUTS, N)).astype(np.float32)
    start = rng.integers(0, 2, N)
    states = rng.integers(-1, 2, (T, N)).astype(np.int8)
    mask = rng.random((T, N)) < 0.8
    return params, x, start, states, mask


def test_logits_matches_the_numpy_rule_on_a_recording():
    weights = learned_beliefs.default_weights("scores")
    said = simulate(1).scores
    frames = said.frames
    x = learned_beliefs.inputs(said.arrays, PROCEDURE.states.astype(float))
    x = learned_beliefs.moving_average(
        frames, x, learned_beliefs.span_frames(weights.average, PROCEDURE.fps)
    )
    initial = np.arange(PROCEDURE.num_components) % 2
    hidden, expected = weights.arrays["start"][initial], []
    for row in x:
        hidden, o = learned_beliefs.step(weights.arrays, hidden, row)
        expected.append(o)
    params = {name: jnp.asarray(a, jnp.float32) for name, a in weights.arrays.items()}
    got = learned_fusion.logits(params, jnp.asarray(x.swapaxes(1, 2), jnp.float32), initial)
    expected = np.stack(expected).swapaxes(1, 2)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_filter_matches_the_inputs_that_the_fit_sees():
    weights, recording = learned_beliefs.default_weights("scores"), simulate(1)
    settings, said = learned_stream.LearnedSettings(rho=None), recording.scores
    belief = learned_stream.LEARNED.beliefs(PROCEDURE, recording, settings, weights)
    x = learned_beliefs.inputs(said.arrays, PROCEDURE.states.astype(float))
    x = learned_beliefs.moving_average(
        said.frames, x, learned_beliefs.span_frames(weights.average, PROCEDURE.fps)
    )
    hidden = weights.arrays["start"][[0] * PROCEDURE.num_components]
    for n, row in enumerate(x):
        hidden, o = learned_beliefs.step(weights.arrays, hidden, row)
        np.testing.assert_allclose(belief.present[n], o[:, 0], rtol=1e-8, atol=1e-8)


def test_recur_gradient_is_that_of_the_plain_scan():
    params, x, start, states, mask = drawn(T=6)

    def plain(params):
        hidden, U = params["start"][start].T, params["start"].shape[1]
        rows = []
        for at in x:
            a = params["input"].T @ at + params["bias"][:, None]
            b = params["recurrent"].T @ hidden
            update, reset = jax.nn.sigmoid(a[: 2 * U] + b[: 2 * U]).reshape(2, U, -1)
            new = jnp.tanh(a[2 * U :] + reset * b[2 * U :])
            hidden = update * hidden + (1 - update) * new
            rows.append(
                params["readout"].T @ hidden + params["skip"].T @ at + params["offset"][:, None]
            )
        o = jnp.stack(rows)
        present, right = (jax.nn.log_sigmoid(o * s) for s in (1, -1))
        bce = -jnp.where(states != 0, present[:, 0], right[:, 0])
        first = (bce * mask).sum() / mask.sum()
        bce = -jnp.where(states == 1, present[:, 1], right[:, 1])
        there = mask & (states != 0)
        return first + (bce * there).sum() / there.sum()

    value, gradient = jax.jit(jax.value_and_grad(learned_fusion.loss))(
        params, x, start, states, mask
    )
    expected, wanted = jax.jit(jax.value_and_grad(plain))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name in params:
        np.testing.assert_allclose(gradient[name], wanted[name], rtol=1e-3, atol=1e-6)


def test_loss_what_the_mask_leaves_out_does_not_matter():
    params, x, start, states, mask = drawn()
    mask[12:] = False
    value = learned_fusion.loss(params, x, start, states, mask)
    np.testing.assert_allclose(
        value, learned_fusion.loss(params, x[:12], start, states[:12], mask[:12])
    )
    assert learned_fusion.loss(params, x, start, states, np.zeros_like(mask)) == 0
