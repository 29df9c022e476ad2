"""The training loop on a tiny network; run as a script, it is the process that gets killed."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
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
from processes_of_tests import environment, finish, start, wait_until

from stormpsr_jax.data import pipelines
from stormpsr_jax.training import interruption, loop
from stormpsr_jax.training.checkpoint import load_best
from stormpsr_jax.training.metrics import read_metrics
from stormpsr_jax.training.sharding import make_mesh

FEATURES, CLASSES, BATCH, STEPS = 16, 4, 16, 24


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
    if workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return pipelines.batches(dataset.batch(BATCH, drop_remainder=True), workers, 1)(step)


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


DEFINITION = loop.Definition(
    model=Net(),
    init=init,
    loss_fn=loss_fn,
    data=make_data,
    optimizer=lambda params: optax.sgd(0.01, momentum=0.9),
    schedule=optax.constant_schedule(0.01),
    evaluate=evaluate,
    best="score",
)


def run(
    workdir, *, mesh=None, config=None, checkpoint_seconds=600.0, profile_steps=None, **changes
):
    """Trains DEFINITION with changes of its fields or of the config; returns the facts."""
    fields = {"steps": STEPS, "log_every": 5, "eval_every": 8, "checkpoint_every": 4}
    return loop.train(
        Path(workdir),
        dataclasses.replace(DEFINITION, **changes),
        config=ConfigDict({**fields, **(config or {})}),
        mesh=mesh or make_mesh(),
        rng=jax.random.key(7),
        checkpoint_seconds=checkpoint_seconds,
        profile_steps=profile_steps,
    )


def acting(act, workers=0):
    """Data that calls `act(step)` before the batch of each step, and gives what it returns."""

    def data(step):
        for batch in make_data(step, workers):
            step += 1
            yield act(step, batch) or batch

    return data


def start_script(workdir, *arguments, devices=1, **options):
    words = [sys.executable, __file__, workdir, *arguments]
    return start(words, env=environment(devices), **options)


def steps_saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The work folder of an undisturbed run, and what `train` returned."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "toy"
    return workdir, run(workdir)


def assert_same(workdir, undisturbed):
    """The run there ended as the undisturbed one did, to the last bit."""
    reference, facts = undisturbed
    same(load_best(workdir), load_best(reference))
    assert (workdir / "metrics.jsonl").read_text() == (reference / "metrics.jsonl").read_text()
    assert run(workdir) == facts


def test_train_property_learns_and_a_finished_stage_takes_no_step_more(undisturbed):
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


def test_train_property_keeps_the_best_evaluation(tmp_path):
    scores, seen = iter([1.0, 3.0, math.nan, 2.0]), []

    def evaluate(params, batch_stats):
        seen.append(jax.tree.map(np.asarray, (params, batch_stats)))
        return {"score": next(scores)}

    facts = run(tmp_path / "toy", config={"steps": 32}, evaluate=evaluate)
    same(load_best(tmp_path / "toy"), seen[1])
    assert facts == {"steps": 32, "best_step": 16, "metrics": {"score": 2.0}}


def test_train_property_evaluate_start_never_hands_on_worse_weights(tmp_path):
    scores = iter([3.0, 1.0, 2.0])
    facts = run(
        tmp_path / "toy",
        config={"steps": 16},
        evaluate=lambda params, batch_stats: {"score": next(scores)},
        evaluate_start=True,
    )
    assert facts["best_step"] == 0
    same(load_best(tmp_path / "toy"), init())


def test_train_property_profiles_the_steps_asked_for(tmp_path, undisturbed, monkeypatch):
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


def test_train_property_exports_the_best_weights_at_the_end(tmp_path):
    exported = []

    def export(params, metrics):
        exported.append((params, metrics))
        if len(exported) == 1:
            raise OSError("no permission")

    with pytest.raises(OSError, match="no permission"):
        run(tmp_path / "toy", export=export)
    facts = run(tmp_path / "toy", export=export)
    assert exported[1][1] == facts["metrics"]
    same(exported[1][0], load_best(tmp_path / "toy")[0])


def kill_when(process, condition):
    """SIGKILL as soon as the condition holds."""
    wait_until(condition, process)
    process.kill()
    process.communicate()


def test_train_property_sigkill_and_resume_is_bit_identical(tmp_path, undisturbed):
    """Killed with two loaders, away from any boundary; continued without."""
    workdir, step_file = tmp_path / "toy", tmp_path / "step"
    reached = lambda: step_file.exists() and step_file.read_text() == "18"  # noqa: E731
    kill_when(start_script(workdir, 2, step_file), reached)
    assert steps_saved(workdir)[-1] in (12, 16)
    assert_resumes(workdir, undisturbed)


def test_train_property_three_sigkills_one_of_them_while_saving(tmp_path, undisturbed):
    """At moments drawn at random, and once when a checkpoint is being written."""
    workdir, step_file = tmp_path / "toy", tmp_path / "step"
    saving = lambda: any((workdir / "checkpoints").glob("*tmp*"))  # noqa: E731
    kill_when(start_script(workdir, 0, step_file), saving)
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    for at in (5, 13):
        wait, since = rng.uniform(0, 0.3), []

        def some_time_later(at=at, wait=wait, since=since):
            if step_file.exists() and int(step_file.read_text()) >= at:
                since.append(time.monotonic())
            return bool(since) and time.monotonic() - since[0] > wait

        kill_when(start_script(workdir, 0, step_file), some_time_later)
        step_file.unlink()
    assert_resumes(workdir, undisturbed, workers=2)


def assert_resumes(workdir, undisturbed, workers=0):
    begun = []
    run(workdir, data=acting(lambda step, batch: begun.append(step), workers))
    assert begun[0] > 1, "it started over"
    assert_same(workdir, undisturbed)


SIGNALS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
)


@SIGNALS
def test_train_property_sigterm_and_ctrl_c_save_and_say_how_to_go_on(
    tmp_path, undisturbed, number, status, capfd
):
    workdir = tmp_path / "toy"

    def act(step, batch):
        if step == 7:
            send(number)

    with pytest.raises(SystemExit) as stopped, interruption.handled():
        run(workdir, data=acting(act))
    assert stopped.value.code == status
    # Step 7 is neither a log nor a checkpoint step: the open log row must survive too.
    assert steps_saved(workdir)[-1] == 7
    assert "toy: stopped and saved at step 7; run the same command" in capfd.readouterr().out
    assert_resumes(workdir, undisturbed)


def send(number):
    """A signal to this process, which it has seen when this returns."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 10
    while not interruption._received and time.monotonic() < deadline:
        time.sleep(0.001)


def test_train_property_sigterm_in_the_last_evaluation_lets_the_stage_end(tmp_path):
    def evaluate(params, batch_stats):
        send(signal.SIGTERM)
        return {"score": 1.0}

    with interruption.handled():
        facts = run(tmp_path / "toy", config={"steps": 4}, evaluate=evaluate)
        assert facts == {"steps": 4, "best_step": 4, "metrics": {"score": 1.0}}
        with pytest.raises(SystemExit) as stopped:
            interruption.end_if_asked("all done")
    assert stopped.value.code == 75


@pytest.mark.parametrize("where", ["saving", "computing"])
@SIGNALS
def test_train_property_a_second_signal_ends_at_once(tmp_path, where, number, status):
    """Also where the main thread waits for a checkpoint, or is deep inside of JAX."""
    process = start_script(tmp_path / "toy", where, tmp_path / "there")
    wait_until((tmp_path / "there").exists, process)
    process.send_signal(number)
    name = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[number]
    for line in process.stdout:
        if line == f"{name}: saving what there is; a second one ends at once\n":
            break
    process.send_signal(number)
    begun = time.monotonic()
    output = finish(process, code=status, timeout=20)[0]
    assert output.splitlines()[-1] == f"{name}: ended"
    assert time.monotonic() - begun < 5


def test_train_property_ctrl_c_of_a_terminal_leaves_loaders_quiet(tmp_path, undisturbed):
    """It reaches them too, here while they are still being started."""
    workdir, step_file = tmp_path / "toy", tmp_path / "step"
    process = start_script(workdir, "loaders", step_file, start_new_session=True)
    wait_until(step_file.exists, process)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process, code=130)[0]
    assert "Traceback" not in output
    assert "stopped and saved at step" in output.splitlines()[-1]


def test_train_property_non_finite_loss_names_step_and_last_good_checkpoint(tmp_path):
    workdir = tmp_path / "toy"

    def poison(step, batch):
        return batch | {"x": batch["x"] * np.nan} if step == 11 else batch

    with pytest.raises(FloatingPointError) as error:
        run(workdir, data=acting(poison))
    assert "step 11" in str(error.value)
    assert "'toy'" in str(error.value)
    assert str(workdir / "checkpoints" / "8") in str(error.value)
    assert steps_saved(workdir) == [4, 8]


def test_train_property_damaged_newest_checkpoint_falls_back(tmp_path, undisturbed):
    workdir = tmp_path / "toy"

    def act(step, batch):
        if step == 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workdir, data=acting(act))
    assert steps_saved(workdir) == [12, 16]
    for path in (workdir / "checkpoints" / "16" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"checkpoints/16 is damaged"):
        run(workdir)
    assert_same(workdir, undisturbed)


def test_train_property_out_of_memory_names_stage_and_field(tmp_path):
    def exhaust(step, batch):
        raise MemoryError("Unable to allocate 9 TiB")

    with pytest.raises(MemoryError, match=r"stage 'toy'.*--config\.toy\.n_per_state.*9 TiB"):
        run(tmp_path / "toy", data=acting(exhaust), batch_field="n_per_state")

    def huge(params, batch_stats, batch, rng):
        rows = jnp.broadcast_to(batch["x"].sum(), (2**22, 2**22)) * params["Dense_0"]["bias"][0]
        return (jnp.sin(rows) @ jnp.cos(rows)).sum(), ({}, batch_stats)

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


MOUNTED = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


def may_mount():
    try:
        words = [*MOUNTED, "mount -t tmpfs -o size=20k tmpfs /tmp"]
        return subprocess.run(words, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not may_mount(), reason="needs to mount a small disk")
@pytest.mark.parametrize("size", ["20k", "300k", "700k"])
def test_train_property_really_full_disk_is_one_line_and_training_goes_on(tmp_path, size):
    """At the first checkpoint, at the second, at the third."""
    train = f"{sys.executable} {__file__} {tmp_path}/disk/toy disk"
    script = f"""
        mkdir {tmp_path}/disk && mount -t tmpfs -o size={size} tmpfs {tmp_path}/disk || exit 99
        {train} 2> {tmp_path}/errors; echo $? > {tmp_path}/status
        ls {tmp_path}/disk/toy/checkpoints > {tmp_path}/left
        mount -o remount,size=20m {tmp_path}/disk && {train}"""
    begun = time.monotonic()
    output = finish(start([*MOUNTED, script], env=environment()))[0]
    assert time.monotonic() - begun < 120
    assert (tmp_path / "status").read_text() == "1\n"
    lines = (tmp_path / "errors").read_text().split("\n")
    errors = [line for line in lines if line and not line.startswith("toy:")]  # the progress bar
    assert len(errors) == 1, errors
    assert "stage 'toy': the disk is full; free some space and run the same" in errors[0]
    whole = [int(name) for name in (tmp_path / "left").read_text().split() if name.isdigit()]
    assert f"begun after {max(whole, default=0)}" in output.splitlines()


def test_train_property_data_that_ends_is_an_error(tmp_path):
    short = iter(grain.MapDataset.range(64).seed(3).random_map(example).batch(16).to_iter_dataset())
    with pytest.raises(ValueError, match="ended at step 4 of 24"):
        run(tmp_path / "toy", data=lambda step: short)


def test_train_property_checkpoints_by_elapsed_time(tmp_path):
    config = {"steps": 7, "eval_every": 100, "checkpoint_every": 100}
    run(tmp_path / "toy", config=config, checkpoint_seconds=0.0)
    assert steps_saved(tmp_path / "toy") == [5, 7]


def test_train_property_unknown_best_metric_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"\['score'\], not the metric 'f1'"):
        run(tmp_path / "toy", best="f1")


def _stuck(workdir, where, there):
    """Never comes back from where the main thread is after a few steps."""

    def compute_for_ever(params, batch_stats):
        Path(there).touch()
        endless = jax.jit(lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: x + 1e-9, x))
        return {"score": float(endless(1.0))}

    def save_for_ever(*_):
        Path(there).touch()
        threading.Event().wait()

    if where == "saving":
        loop.Checkpoints.save = save_for_ever
    run(workdir, evaluate=compute_for_ever)


def _main(workdir, action, step_file=None):
    if action in ("saving", "computing"):
        with interruption.handled():
            _stuck(workdir, action, step_file)
        return
    if action == "loaders":

        def data(step):
            Path(step_file).touch()
            return make_data(step, workers=2)

        with interruption.handled():
            run(workdir, data=data)

    if action == "disk":

        def said(step):
            print(f"begun after {step}", flush=True)
            return make_data(step)

        try:
            run(workdir, data=said)
        except OSError as error:
            sys.exit(f"error: {error.filename}: {error.strerror}")
        return

    def act(step, batch):
        if step_file:
            Path(step_file + ".tmp").write_text(str(step))
            os.replace(step_file + ".tmp", step_file)
            time.sleep(0.05)

    warnings.simplefilter("error", UserWarning)
    run(workdir, data=acting(act, int(action)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
