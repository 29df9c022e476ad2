import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks import temporal
from stormpsr_jax.training import losses
from stormpsr_jax.weights.torch_layout import from_state_dict
from tests.support.drawn import apply, random_variables
from tests.support.golden import assert_close, both, under


@pytest.fixture(scope="module", params=both("temporal", "vtn_tiny"))
def golden(request):
    arrays = np.load(request.param)
    params, _ = from_state_dict(under(arrays, "sd/"), "temporal")
    model = temporal.TemporalTransformer(
        num_components=17,
        num_frames=65,
        depth=2,
        num_heads=int(arrays["heads"]),
        dim_head=int(arrays["dim_head"]),
        mlp_dim=96,
    )

    def loss(p):
        return losses.multilabel_bce(model.apply({"params": p}, arrays["x"]), arrays["y"]).mean()

    return arrays, model, params, jax.jit(jax.value_and_grad(loss))


@pytest.fixture(scope="module")
def small():
    model = temporal.TemporalTransformer(
        num_components=3, num_frames=6, depth=2, num_heads=2, dim_head=4, mlp_dim=10
    )
    clips = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    return model, random_variables(model, clips), clips


def test_temporal_golden_logits_of_full_and_short_clips(golden):
    arrays, model, params, _ = golden
    logits, captured = apply(model, {"params": params}, arrays["x"], capture_intermediates=True)
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-5)
    np.testing.assert_allclose(jax.nn.sigmoid(logits), arrays["prob"], atol=1e-5)
    for i in range(2):
        block = captured["intermediates"][f"block_{i}"]["__call__"][0]
        assert_close(block, arrays[f"inter/ff{i}"][:, : block.shape[1]], atol=1e-5)
    short = apply(model, {"params": params}, arrays["x_short"])
    np.testing.assert_allclose(short, arrays["logits_short"], atol=1e-5)


def test_temporal_golden_loss_and_gradient(golden):
    arrays, _, params, value_and_grad = golden
    value, gradient = value_and_grad(params)
    np.testing.assert_allclose(value, arrays["bce"], atol=1e-6)
    expected, _ = from_state_dict(under(arrays, "grad/"), "temporal")
    assert max(np.nanmax(np.abs(leaf)) for leaf in jax.tree.leaves(expected)) > 0.01
    jax.tree.map(lambda a, b: assert_close(a, b, atol=1e-6), gradient, expected)


def test_temporal_dropout_acts_in_training_only(small):
    model, variables, clips = small
    model = model.clone(depth=1)
    evaluated = apply(model, variables, clips)
    without = apply(model.clone(dropout=0.0), variables, clips, True)
    np.testing.assert_allclose(without, evaluated, atol=1e-6)
    draw = jax.jit(lambda key: model.apply(variables, clips, True, rngs={"dropout": key}))
    one, two = draw(jax.random.key(0)), draw(jax.random.key(1))
    assert np.abs(one - evaluated).max() > 1e-2
    assert np.abs(one - two).max() > 1e-2


def test_temporal_bfloat16_gives_float32_logits(small):
    model, variables, clips = small
    logits = apply(model.clone(dtype=jnp.bfloat16), variables, clips)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, apply(model, variables, clips), atol=0.1)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_temporal_of_three_outputs_the_first_are_what_one_gives(small, head):
    model, _, clips = small
    three = model.clone(outputs=3, head=head)
    variables = random_variables(three, clips)
    logits = apply(three, variables, clips)
    assert logits.shape == (4, 9)
    assert logits.dtype == jnp.float32
    params = variables["params"]
    params = params | {"head": jax.tree.map(lambda a: a[..., :3], params["head"])}
    one = apply(model.clone(head=head), {"params": params}, clips)
    np.testing.assert_allclose(one, logits[:, :3], atol=1e-6)
    assert np.abs(logits[:, 3:6] - one).max() > 1e-2
    assert np.abs(logits[:, 6:] - one).max() > 1e-2


@pytest.mark.parametrize("seen", [1, 3])
def test_temporal_frames_that_are_not_seen_change_nothing(small, seen):
    model, variables, clips = small
    control = model.clone(context_frames=seen)
    T = clips.shape[1]
    first = np.repeat(clips[:, T - seen : T - seen + 1], T - seen, axis=1)
    begun = np.concatenate([first, clips[:, T - seen :]], axis=1)
    np.testing.assert_array_equal(apply(control, variables, clips), apply(model, variables, begun))
    clips = np.array(clips)
    clips[:, T - seen, 0] += 1
    assert np.abs(apply(control, variables, clips) - apply(model, variables, begun)).max() > 1e-3
    shapes = jax.eval_shape(control.init, jax.random.key(0), clips)
    assert shapes == jax.eval_shape(model.init, jax.random.key(0), clips)


def test_temporal_positions_are_dropped_out_only_if_asked_for(small):
    """Without blocks and hidden layers, there is no other place for dropout."""
    model, _, clips = small
    model = model.clone(depth=0, head="linear", dropout=0.5)
    variables = random_variables(model, clips)
    evaluated = apply(model, variables, clips)

    def train(model):
        return model.apply(variables, clips, True, rngs={"dropout": jax.random.key(0)})

    np.testing.assert_array_equal(train(model), evaluated)
    assert np.abs(train(model.clone(drop_positions=True)) - evaluated).max() > 1e-2


T, D, K = 9, 4, 3
MODELS = {
    "mlp": temporal.TemporalMLP(K, depth=1, width=32, dropout=0.0),
    "lstm": temporal.TemporalLSTM(K, depth=1, width=32, dropout=0.0),
    "tcn": temporal.TemporalTCN(K, depth=3, width=32, dropout=0.0),
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


@pytest.mark.parametrize(("frames", "depth"), [(1, 1), (3, 1), (4, 2), (17, 4), (65, 6), (257, 8)])
def test_a_tcn_of_the_depth_of_a_clip_sees_every_frame_and_one_block_less_does_not(frames, depth):
    """Depth d with kernel 3 sees 1 + 2 · (2^d - 1) frames: where the gradient is not 0."""
    assert temporal.tcn_depth(frames) == depth
    x = jnp.asarray(np.random.default_rng(7).normal(size=(2, frames, D)), jnp.float32)
    for blocks in {depth, max(1, depth - 1)}:
        model = temporal.TemporalTCN(K, depth=blocks, width=16)
        params = jax.jit(model.init)(jax.random.key(0), x)
        gradient = jax.jit(jax.grad(lambda x, m=model, p=params: (m.apply(p, x) ** 2).sum()))(x)
        seen = np.abs(gradient).max(axis=(0, 2)) > 0
        reach = 1 + 2 * (2**blocks - 1)
        np.testing.assert_array_equal(seen, np.arange(frames) >= frames - reach)
        assert seen.all() == (blocks == depth)


def test_without_activation_the_mlp_is_two_matrix_products_and_a_norm():
    """As in the released code: no GELU between them, and no dropout in training."""
    model = temporal.TemporalMLP(K, depth=1, width=6, dropout=0.5, activation="none")
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
    model = temporal.TemporalLSTM(K, depth=1, width=5)
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
