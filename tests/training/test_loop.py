import jax
import numpy as np
import optax
import pytest

from stormpsr_jax.training.checkpoint import load_best
from stormpsr_jax.training.metrics import read_metrics
from tests.support.loop_toy import STEPS, acting, assert_same, init, loss_fn, make_data, run, same


def test_train_learns_and_a_finished_stage_takes_no_step_more(undisturbed):
    workdir, facts = undisturbed
    assert facts.keys() == {"steps", "best_step", "metrics"}
    assert facts["steps"] == STEPS
    losses = [row["loss"] for row in read_metrics(workdir / "metrics.jsonl") if "loss" in row]
    assert losses[-1] < losses[0]
    before = load_best(workdir)

    def no_batch(step, batch):
        raise AssertionError("a step was taken")

    assert run(workdir, data=acting(no_batch)) == facts
    same(load_best(workdir), before)


def test_train_matches_a_plain_loop_and_compiles_once(tmp_path):
    params, batch_stats = init()
    optimizer = optax.sgd(0.01, momentum=0.9)
    opt_state = optimizer.init(params)
    data, losses = make_data(0), []

    @jax.jit
    def step(i, params, batch_stats, opt_state, batch):
        rng = jax.random.fold_in(jax.random.key(7), i)
        (loss, (_, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, batch_stats, batch, rng
        )
        updates, opt_state = optimizer.update(grads, opt_state)
        return loss, optax.apply_updates(params, updates), batch_stats, opt_state

    for i in range(6):
        batch = next(data)
        loss, params, batch_stats, opt_state = step(i, params, batch_stats, opt_state, batch)
        losses.append(float(loss))
    traces = []

    def counted(*arguments):
        traces.append(len(arguments))
        return loss_fn(*arguments)

    run(tmp_path / "toy", config={"steps": 6}, evaluate=None, best="", loss_fn=counted)
    trained, stats = load_best(tmp_path / "toy")
    assert len(traces) == 2  # once for the metrics' names, once for the step: one compilation
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), trained, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stats, batch_stats)
    rows = read_metrics(tmp_path / "toy" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [5, 6]
    assert rows[0]["loss"] == pytest.approx(np.mean(losses[:5]), abs=1e-6)
    assert rows[1]["loss"] == pytest.approx(losses[5], abs=1e-6)


def test_train_profiles_the_steps_asked_for(tmp_path, undisturbed, monkeypatch):
    calls = []
    for name in ("start_trace", "stop_trace"):
        call = getattr(jax.profiler, name)
        monkeypatch.setattr(
            jax.profiler, name, lambda *a, n=name, c=call: (calls.append(n), c(*a))[1]
        )
    run(tmp_path / "toy", profile_steps=(3, 5))
    assert calls == ["start_trace", "stop_trace"]
    assert list((tmp_path / "toy" / "profile").rglob("*.xplane.pb"))
    assert_same(tmp_path / "toy", undisturbed)
    run(tmp_path / "late", config={"steps": 4}, profile_steps=(3, 50))
    assert calls[2:] == ["start_trace", "stop_trace"]
