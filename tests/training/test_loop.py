"""The training loop on a tiny network; run as a script, it is the process that gets killed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import flags
from ml_collections import ConfigDict

from stormpsr_jax.processes import exit_with_parent
from stormpsr_jax.training import interruption, loop
from stormpsr_jax.training.checkpoint import is_done, load_best
from stormpsr_jax.training.metrics import read_metrics
from stormpsr_jax.training.sharding import make_mesh

FEATURES, CLASSES, BATCH, STEPS, MESH_STEPS = 16, 4, 16, 24, 10


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(128)(x))
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(128)(x))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


def example(index, rng):
    label = index % CLASSES
    x = np.eye(FEATURES, dtype=np.float32)[label] + rng.normal(0, 0.5, FEATURES)
    return {"x": x.astype(np.float32), "label": np.int32(label)}


def make_data(step, workers=0, size=512):
    """The batches of the steps after `step`."""
    dataset = grain.MapDataset.range(size).seed(3).shuffle().random_map(example).repeat(None)
    iterable = dataset.batch(BATCH, drop_remainder=True)[step:].to_iter_dataset()
    if workers:
        flags.FLAGS.mark_as_parsed()
        options = grain.multiprocessing.MultiprocessingOptions(num_workers=workers)
        iterable = iterable.mp_prefetch(options, worker_init_fn=exit_with_parent)
    return iter(iterable)


def loss_fn(params, batch_stats, batch, rng):
    variables = {"params": params, "batch_stats": batch_stats}
    logits, updated = Net().apply(
        variables, batch["x"], True, mutable="batch_stats", rngs={"dropout": rng}
    )
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    accuracy = (logits.argmax(-1) == batch["label"]).mean()
    return loss, ({"accuracy": accuracy}, updated["batch_stats"])


def init():
    variables = Net().init(jax.random.key(1), jnp.zeros((2, FEATURES)), False)
    return variables["params"], variables["batch_stats"]


def evaluate(params, batch_stats):
    rng = np.random.default_rng(0)
    x, y = zip(*(example(i, rng).values() for i in range(64)), strict=True)
    logits = Net().apply({"params": params, "batch_stats": batch_stats}, np.stack(x), False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, np.stack(y))
    return {"score": -float(losses.mean())}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Most runs here compile the same step; one compilation is enough."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def run(workdir, *, data=None, mesh=None, steps=STEPS, **overrides):
    arguments = {
        "config": ConfigDict(
            {"steps": steps, "log_every": 5, "eval_every": 8, "checkpoint_every": 4}
        ),
        "mesh": mesh or make_mesh(),
        "rng": jax.random.key(7),
        "init": init,
        "loss_fn": loss_fn,
        "optimizer": optax.sgd(0.01, momentum=0.9),
        "schedule": optax.constant_schedule(0.01),
        "data": data or make_data,
        "evaluate": evaluate,
        "best": "score",
    }
    return loop.train(Path(workdir), **(arguments | overrides))


def acting(act, workers=0):
    """Data that calls `act(step)` before the batch of each step, and gives what it returns."""

    def data(step):
        for batch in make_data(step, workers):
            step += 1
            yield act(step, batch) or batch

    return data


def start(workdir, *arguments, devices=1, **kwargs):
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    command = [sys.executable, __file__, str(workdir), *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE, **kwargs)


def finish(process, code=0):
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == code, stderr
    return stderr


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "toy"
    return workdir, run(workdir)


def test_train_property_learns_and_a_finished_stage_returns_at_once(undisturbed):
    workdir, weights = undisturbed
    losses = [row["loss"] for row in read_metrics(workdir / "metrics.jsonl") if "loss" in row]
    assert losses[-1] < losses[0]

    def fail():
        raise AssertionError("a finished stage must not be built")

    same(run(workdir, init=fail), weights)


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

    trained, stats = run(tmp_path / "toy", steps=6, evaluate=None, loss_fn=counted)
    assert len(traces) == 2  # once for the metrics' names, once for the step: one compilation
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), trained, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stats, batch_stats)
    rows = read_metrics(tmp_path / "toy" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [5, 6]
    assert rows[0]["loss"] == pytest.approx(np.mean(losses[:5]), abs=1e-6)
    assert rows[1]["loss"] == pytest.approx(losses[5], abs=1e-6)


def test_train_property_returns_the_best_evaluation(tmp_path):
    scores, seen = iter([1.0, 3.0, math.nan, 2.0]), []

    def evaluate(params, batch_stats):
        seen.append(jax.tree.map(np.asarray, (params, batch_stats)))
        return {"score": next(scores)}

    weights = run(tmp_path / "toy", steps=32, evaluate=evaluate)
    same(weights, seen[1])
    same(load_best(tmp_path / "toy"), seen[1])
    done = json.loads((tmp_path / "toy" / "done.json").read_text())
    assert (done["best_step"], done["metrics"]) == (16, {"score": 2.0})


def test_train_property_profiles_the_steps_asked_for(tmp_path, undisturbed, monkeypatch):
    calls = []
    for name in ("start_trace", "stop_trace"):
        call = getattr(jax.profiler, name)
        monkeypatch.setattr(
            jax.profiler, name, lambda *a, n=name, c=call: (calls.append(n), c(*a))[1]
        )
    weights = run(tmp_path / "toy", profile_steps=(3, 5))
    assert calls == ["start_trace", "stop_trace"]
    assert list((tmp_path / "toy" / "profile").rglob("*.xplane.pb"))
    same(weights, undisturbed[1])
    run(tmp_path / "late", steps=4, profile_steps=(3, 50))
    assert calls[2:] == ["start_trace", "stop_trace"]


def test_train_property_exports_the_best_before_the_stage_is_done(tmp_path):
    exported = []

    def export(params, metrics):
        exported.append((params, metrics, is_done(tmp_path / "toy")))
        if len(exported) == 1:
            raise OSError("no permission")

    with pytest.raises(OSError, match="no permission"):
        run(tmp_path / "toy", evaluate=evaluate, export=export)
    params, _ = run(tmp_path / "toy", evaluate=evaluate, export=export)
    assert [done for *_, done in exported] == [False, False]
    same(exported[1][0], params)
    assert exported[1][1].keys() == {"score"}


def kill_when(process, condition):
    """SIGKILL as soon as the condition holds; False if the process ended before."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    process.kill()
    process.wait()
    process.stderr.close()
    return True


@pytest.mark.parametrize("workers", [0, 2])
def test_train_property_sigkill_and_resume_is_bit_identical(tmp_path, undisturbed, workers):
    """Killed some steps after a checkpoint, away from any boundary."""
    reference, weights = undisturbed
    workdir, step_file = tmp_path / "toy", tmp_path / "step"
    reached = lambda: step_file.exists() and step_file.read_text() == "18"  # noqa: E731
    assert kill_when(start(workdir, workers, step_file), reached)
    assert not is_done(workdir)
    assert any((workdir / "checkpoints").iterdir())
    finish(start(workdir, 2 - workers))  # with another number of loaders
    same(load_best(workdir), weights)
    for name in ("metrics.jsonl", "done.json"):
        assert (workdir / name).read_text() == (reference / name).read_text()


def test_train_property_five_sigkills_one_of_them_while_saving(tmp_path, undisturbed):
    """At moments drawn at random, and once when a checkpoint is being written."""
    reference, weights = undisturbed
    workdir, step_file = tmp_path / "toy", tmp_path / "step"
    saving = lambda: any((workdir / "checkpoints").glob("*tmp*"))  # noqa: E731
    assert kill_when(start(workdir, 0, step_file), saving)
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    for at in (5, 9, 13, 17):
        wait, since = rng.uniform(0, 0.3), []

        def some_time_later(at=at, wait=wait, since=since):
            if step_file.exists() and int(step_file.read_text()) >= at:
                since.append(time.monotonic())
            return bool(since) and time.monotonic() - since[0] > wait

        assert kill_when(start(workdir, 0, step_file), some_time_later), "it ended before"
        step_file.unlink()
    finish(start(workdir, 0))
    same(load_best(workdir), weights)
    assert (workdir / "metrics.jsonl").read_text() == (reference / "metrics.jsonl").read_text()


def test_train_property_sigterm_saves_and_exits_with_the_restart_code(tmp_path, undisturbed):
    reference, weights = undisturbed
    workdir = tmp_path / "toy"

    def act(step, batch):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        run(workdir, data=acting(act))
    assert stopped.value.code == interruption.EXIT_RESTART == 75
    # Step 7 is neither a log nor a checkpoint step: the open log row must survive too.
    assert max(int(p.name) for p in (workdir / "checkpoints").iterdir()) == 7
    same(run(workdir), weights)
    assert (workdir / "metrics.jsonl").read_text() == (reference / "metrics.jsonl").read_text()


def test_train_property_sigterm_in_the_last_evaluation_ends_the_run_after_the_stage(tmp_path):
    def evaluate(params, batch_stats):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"score": 1.0}

    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "toy", steps=4, evaluate=evaluate)
    assert stopped.value.code == 75
    assert is_done(tmp_path / "toy")


def test_train_property_same_losses_on_any_mesh(tmp_path, undisturbed):
    reference, _ = undisturbed
    finish(start(tmp_path, "meshes", devices=8))
    expected = [r for r in read_metrics(reference / "metrics.jsonl") if r["step"] <= MESH_STEPS]
    assert [row["step"] for row in expected] == [5, 8, 10]
    for name in ("8x1", "1x8", "2x4_then_1x1"):
        rows = read_metrics(tmp_path / name / "metrics.jsonl")[:3]
        assert [row.keys() for row in rows] == [row.keys() for row in expected]
        for row, wanted in zip(rows, expected, strict=True):
            assert row == pytest.approx(wanted, abs=1e-5)


def test_train_property_non_finite_loss_names_step_and_last_good_checkpoint(tmp_path):
    workdir = tmp_path / "toy"

    def poison(step, batch):
        return batch | {"x": batch["x"] * np.nan} if step == 11 else batch

    with pytest.raises(FloatingPointError) as error:
        run(workdir, data=acting(poison))
    assert "step 11" in str(error.value)
    assert "'toy'" in str(error.value)
    assert str(workdir / "checkpoints" / "8") in str(error.value)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "8"]
    assert not is_done(workdir)


def test_train_property_damaged_newest_checkpoint_falls_back(tmp_path, undisturbed):
    reference, weights = undisturbed
    workdir = tmp_path / "toy"

    def act(step, batch):
        if step == 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workdir, data=acting(act))
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["12", "16"]
    for path in (workdir / "checkpoints" / "16" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"checkpoints/16 is damaged"):
        resumed = run(workdir)
    same(resumed, weights)
    assert (workdir / "metrics.jsonl").read_text() == (reference / "metrics.jsonl").read_text()


def test_train_property_out_of_memory_names_stage_and_field(tmp_path):
    def exhaust(step, batch):
        raise MemoryError("Unable to allocate 9 TiB")

    with pytest.raises(MemoryError, match=r"stage 'toy'.*--config\.toy\.n_per_state.*9 TiB"):
        run(tmp_path / "toy", data=acting(exhaust), batch_field="n_per_state")

    def huge(params, batch_stats, batch, rng):
        rows = jnp.broadcast_to(batch["x"].sum(), (2**22, 2**22)) * params["Dense_0"]["bias"][0]
        loss = jnp.sort(rows).sum()
        return loss, ({}, batch_stats)

    with pytest.raises(MemoryError, match=r"--config\.toy\.batch"):
        run(tmp_path / "toy", loss_fn=huge)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(28, "No space left on device"),
        # As orbax reports it from its writing thread.
        ValueError("RESOURCE_EXHAUSTED: Failed to write 10032 bytes: No space left on device"),
    ],
)
def test_train_property_full_disk_says_what_to_do(tmp_path, monkeypatch, failure):
    def save(*args, **kwargs):
        raise failure

    monkeypatch.setattr(loop.Checkpoints, "save", save)
    with pytest.raises(OSError, match=r"disk is full; free some space") as error:
        run(tmp_path / "toy")
    assert error.value.errno == 28


def test_train_property_data_that_ends_is_an_error(tmp_path):
    short = iter(grain.MapDataset.range(64).seed(3).random_map(example).batch(16).to_iter_dataset())
    with pytest.raises(ValueError, match="ended at step 4 of 24"):
        run(tmp_path / "toy", data=lambda step: short)


def test_train_property_checkpoints_by_elapsed_time(tmp_path):
    config = ConfigDict({"steps": 7, "log_every": 5, "eval_every": 100, "checkpoint_every": 100})
    run(tmp_path / "toy", config=config, checkpoint_seconds=0.0)
    assert sorted(p.name for p in (tmp_path / "toy" / "checkpoints").iterdir()) == ["5", "7"]


def test_train_property_unknown_best_metric_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"\['score'\], not the metric 'f1'"):
        run(tmp_path / "toy", best="f1")


def _train_on_meshes(workdir):
    def act(step, batch):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    short = {"steps": MESH_STEPS}
    run(workdir / "8x1", mesh=make_mesh(8, 1), **short)
    run(workdir / "1x8", mesh=make_mesh(1, 8), **short)
    with pytest.raises(SystemExit):
        run(workdir / "2x4_then_1x1", mesh=make_mesh(2, 4), data=acting(act), **short)
    run(workdir / "2x4_then_1x1", mesh=make_mesh(1, 1), **short)


def _main(workdir, workers, step_file=None):
    if workers == "meshes":
        _train_on_meshes(workdir)
        return

    def act(step, batch):
        if step_file:
            Path(step_file + ".tmp").write_text(str(step))
            os.replace(step_file + ".tmp", step_file)
            time.sleep(0.05)

    warnings.simplefilter("error", UserWarning)
    run(workdir, data=acting(act, int(workers)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
