import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks import temporal_baselines

T, D, K = 9, 4, 3
MODELS = {
    "mlp": temporal_baselines.TemporalMLP(K, depth=1, width=32, dropout=0.0),
    "lstm": temporal_baselines.TemporalLSTM(K, depth=1, width=32, dropout=0.0),
    "tcn": temporal_baselines.TemporalTCN(K, depth=3, width=32, dropout=0.0),
}


def clips(seed: int, n: int):
    """Components 0…K-1 are the first dimensions' signs; a label says who changed, first to last."""
    rng = np.random.default_rng(seed)
    start, changed = rng.integers(0, 2, (n, K)), rng.integers(0, 2, (n, K))
    when = rng.integers(1, T, (n, 1, K))
    states = np.where(np.arange(T)[:, None] < when, start[:, None], (start ^ changed)[:, None])
    x = rng.normal(0, 0.1, (n, T, D))
    x[..., :K] += 2 * states - 1
    return jnp.asarray(x, jnp.float32), jnp.asarray(changed)


@pytest.mark.parametrize("name", MODELS)
def test_temporal_baselines_frames_that_are_not_seen_change_nothing(name):
    model, (x, _) = MODELS[name].clone(context_frames=2), clips(6, 4)
    params = jax.jit(model.init)(jax.random.key(0), x)
    hidden, seen = np.array(x), np.array(x)
    hidden[:, :-2] += 1
    seen[:, -2, 0] += 1
    np.testing.assert_array_equal(model.apply(params, x), model.apply(params, hidden))
    assert np.abs(model.apply(params, x) - model.apply(params, seen)).max() > 1e-3
    assert np.abs(model.apply(params, x) - MODELS[name].apply(params, x)).max() > 1e-3


def test_temporal_baselines_tcn_sees_exactly_its_receptive_field():
    """Depth 2 with kernel 3 sees 1 + 2 · (1 + 2) = 7 frames back from the last one."""
    model = temporal_baselines.TemporalTCN(K, depth=2, width=16)
    x, _ = clips(3, 2)
    params = jax.jit(model.init)(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda x: (model.apply(params, x) ** 2).sum()))(x)
    seen = np.abs(gradient).max(axis=(0, 2)) > 0
    np.testing.assert_array_equal(seen, np.arange(T) >= T - 7)


@pytest.mark.usefixtures("system")  # costly
@pytest.mark.parametrize(("frames", "depth"), [(1, 1), (3, 1), (4, 2), (17, 4), (65, 6), (257, 8)])
def test_every_frame_of_a_clip_reaches_the_output_of_a_tcn_of_its_depth(frames, depth):
    """The gradient at each frame is not 0, and with one block less it is 0 at the first ones."""
    assert temporal_baselines.tcn_depth(frames) == depth
    x = jnp.asarray(np.random.default_rng(7).normal(size=(2, frames, D)), jnp.float32)
    for less in (0, 1)[: depth if frames > 3 else 1]:
        model = temporal_baselines.TemporalTCN(K, depth=depth - less, width=16)
        params = jax.jit(model.init)(jax.random.key(0), x)
        gradient = jax.jit(jax.grad(lambda x, m=model, p=params: (m.apply(p, x) ** 2).sum()))(x)
        assert (np.abs(gradient).max(axis=(0, 2)) > 0).all() == (less == 0)


def test_without_activation_the_mlp_is_two_matrix_products_and_a_norm():
    """As in the released code: no GELU between them, and no dropout in training."""
    model = temporal_baselines.TemporalMLP(K, depth=1, width=6, dropout=0.5, activation="none")
    x, _ = clips(8, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    h = np.asarray(x, np.float64).reshape(3, -1) @ p["dense_0"]["kernel"] + p["dense_0"]["bias"]
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-6)
    h = h * p["head_norm"]["scale"] + p["head_norm"]["bias"]
    expected = h @ p["head"]["kernel"] + p["head"]["bias"]
    for train in (False, True):
        logits = model.apply(variables, x, train, rngs={"dropout": jax.random.key(1)})
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(model.clone(activation="gelu").apply(variables, x) - expected).max() > 1e-2


def test_temporal_baselines_matches_lstm_in_a_plain_loop():
    model = temporal_baselines.TemporalLSTM(K, depth=1, width=5)
    x, _ = clips(4, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    cell, h, c = p["lstm_0"], np.zeros((3, 5)), np.zeros((3, 5))
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    for t in range(T):
        gate = {
            g: x[:, t] @ cell[f"i{g}"]["kernel"] + h @ cell[f"h{g}"]["kernel"]
            + cell[f"h{g}"]["bias"] for g in "ifgo"
        }  # fmt: skip
        c = sigmoid(gate["f"]) * c + sigmoid(gate["i"]) * np.tanh(gate["g"])
        h = sigmoid(gate["o"]) * np.tanh(c)
    norm = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-6)
    norm = norm * p["head_norm"]["scale"] + p["head_norm"]["bias"]
    expected = norm @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x), expected, atol=1e-5)
