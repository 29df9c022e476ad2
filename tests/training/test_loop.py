"""The training loop on a toy stage; run as a script, it is a process that tests stop or starve."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stormpsr_jax.base import interruption
from stormpsr_jax.training import loop
from stormpsr_jax.training.checkpoint import BEST, Checkpoints, load_best
from stormpsr_jax.training.metrics import read_metrics
from tests.support.loop_toy import (
    STEPS,
    acting,
    assert_same,
    init,
    loss_fn,
    make_data,
    run,
    same,
    steps_saved,
)
from tests.support.processes import environment, finish, start, wait_until


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "toy"
    return workdir, run(workdir)


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

    run(tmp_path / "toy", steps=6, evaluate=None, best="", loss_fn=counted)
    trained, stats = load_best(tmp_path / "toy")
    assert len(traces) == 2  # once for the metrics' names, once for the step: one compilation
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), trained, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stats, batch_stats)
    rows = read_metrics(tmp_path / "toy" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [5, 6]
    assert rows[0]["loss"] == pytest.approx(np.mean(losses[:5]), abs=1e-6)
    assert rows[1]["loss"] == pytest.approx(losses[5], abs=1e-6)


def test_train_profiles_the_steps_asked_for(tmp_path, undisturbed, monkeypatch):
    seen, trace = [], jax.profiler.trace

    @contextlib.contextmanager
    def noted(folder):
        seen.append("begin")
        with trace(folder):
            yield
        seen.append("end")

    def note(step, batch):
        seen.append(step)

    monkeypatch.setattr(jax.profiler, "trace", noted)
    run(tmp_path / "toy", profile_steps=(3, 5), data=acting(note))
    assert seen == [1, 2, "begin", 3, 4, 5, "end", *range(6, STEPS + 1)]
    assert list((tmp_path / "toy" / "profile").rglob("*.xplane.pb"))
    assert_same(tmp_path / "toy", undisturbed)
    seen.clear()
    run(tmp_path / "late", steps=4, profile_steps=(3, 50), data=acting(note))
    assert seen == [1, 2, "begin", 3, 4, "end"]


@pytest.mark.parametrize("most", [5, 50])
def test_train_results_do_not_depend_on_the_steps_in_a_dispatch(tmp_path, undisturbed, most):
    """Log rows, evaluations and checkpoints too come after the same steps."""
    workdir = tmp_path / "toy"
    run(workdir, steps_per_dispatch=most)
    assert steps_saved(workdir) == [20, 24]
    assert_same(workdir, undisturbed)


def test_train_a_dispatch_says_in_which_step_the_loss_was_not_finite(tmp_path, undisturbed):
    """What goes on from there needs the best weights too, and else goes on from further back."""

    def poison(step, batch):
        return batch | {"x": batch["x"] * np.nan} if step == 11 else batch

    with pytest.raises(FloatingPointError, match=r"'toy'.* at step 11; .*toy/checkpoints/8"):
        run(tmp_path / "toy", data=acting(poison), steps_per_dispatch=50)
    assert steps_saved(tmp_path / "toy") == [4, 8]
    (tmp_path / "toy" / BEST).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"checkpoints/8 cannot be read .*; .*remove it"):
        run(tmp_path / "toy")
    shutil.rmtree(tmp_path / "toy" / "checkpoints" / "8")
    run(tmp_path / "toy")
    assert_same(tmp_path / "toy", undisturbed)


def test_train_out_of_memory_names_stage_and_field(tmp_path):
    def exhaust(step, batch):
        raise MemoryError("Unable to allocate 9 TiB")

    with pytest.raises(MemoryError, match=r"stage 'toy'.*--config\.toy\.n_per_state.*9 TiB"):
        run(tmp_path / "toy", data=acting(exhaust), batch_field="n_per_state")

    def huge(params, batch_stats, batch, rng):
        rows = jnp.broadcast_to(batch["x"].sum(), (2**22, 2**22)) * params["Dense_0"]["bias"][0]
        return (jnp.sin(rows) @ jnp.cos(rows)).sum(), ({}, batch_stats)

    with pytest.raises(MemoryError, match=r"--config\.toy\.batch"):
        run(tmp_path / "toy", loss_fn=huge)


MOUNTED = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


def may_mount():
    try:
        words = [*MOUNTED, "mount -t tmpfs -o size=20k tmpfs /tmp"]
        return subprocess.run(words, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.system
@pytest.mark.skipif(not may_mount(), reason="needs to mount a small disk")
def test_train_really_full_disk_is_one_line_and_training_goes_on(tmp_path):
    train = f"{sys.executable} {__file__} {tmp_path}/disk/toy disk"
    script = f"""
        mkdir {tmp_path}/disk && mount -t tmpfs -o size=300k tmpfs {tmp_path}/disk || exit 99
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
    assert lines[-2:] == [*errors, ""]
    whole = [int(name) for name in (tmp_path / "left").read_text().split() if name.isdigit()]
    assert f"begun after {max(whole, default=0)}" in output.splitlines()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_train_sigterm_and_ctrl_c_save_and_say_how_to_go_on(
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
    begun = []
    run(workdir, data=acting(lambda step, batch: begun.append(step)))
    assert begun[0] == 8, "it started over"
    assert_same(workdir, undisturbed)


def send(number):
    """A signal to this process, which it has seen when this returns."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 10
    while not interruption._received and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.system
def test_train_a_second_signal_ends_at_once(tmp_path):
    """Also where the main thread waits for a checkpoint."""
    words = [sys.executable, __file__, tmp_path / "toy", "saving", tmp_path / "there"]
    process = start(words, env=environment())
    wait_until((tmp_path / "there").exists, process)
    process.send_signal(signal.SIGTERM)
    for line in process.stdout:
        if line == "SIGTERM: saving what there is; a second one ends at once\n":
            break
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    output = finish(process, code=75, timeout=20)[0]
    assert output.splitlines()[-1] == "SIGTERM: ended"
    assert time.monotonic() - begun < 5


def save_for_ever(there):
    def save(*_):
        Path(there).touch()
        threading.Event().wait()

    return save


# --- Checkpoints ----------------------------------------------------------------------------------


def state(value):
    return {"w": jax.random.normal(jax.random.key(value), (64, 64)), "step": jnp.int32(value)}


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"best": step / 7})
    assert checkpoints.latest() == tmp_path / "checkpoints" / "3"
    checkpoints.close()
    return tmp_path


def restore(workdir, abstract=None):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore(abstract or jax.eval_shape(lambda: state(0)))
    finally:
        checkpoints.close()


@pytest.mark.parametrize(
    ("part", "damage"), [("state", "truncated"), ("state", "zeroed"), ("values", "removed")]
)
def test_checkpoints_damage_is_named_and_left_to_the_user(saved, part, damage):
    folder = saved / "checkpoints" / "3"
    files = [p for p in [folder / part, *(folder / part).rglob("*")] if p.is_file()]
    for path in files:
        half = path.stat().st_size // 2
        path.write_bytes(path.read_bytes()[:half] if damage == "truncated" else bytes(2 * half))
        if damage == "removed":
            path.unlink()
    with pytest.raises(ValueError, match=r"checkpoints/3 cannot be read \(.*remove it and run"):
        restore(saved)
    shutil.rmtree(folder)
    step, restored, _ = restore(saved)
    assert step == 2
    jax.tree.map(np.testing.assert_array_equal, restored, state(2))
    # Training comes to step 3 again and can save it.
    checkpoints = Checkpoints(saved)
    checkpoints.save(3, state(3), {})
    checkpoints.close()
    assert restore(saved)[0] == 3


def test_checkpoints_other_architecture_is_an_error_and_nothing_is_moved(saved):
    other = {"w": jax.ShapeDtypeStruct((64, 32), "float32"), "step": jnp.int32(0)}
    fewer = {"w": jax.ShapeDtypeStruct((64, 64), "float32")}
    for wanted in (other, fewer):
        with pytest.raises(ValueError, match=r"checkpoints/3 cannot be read .* another --workdir"):
            restore(saved, wanted)
    assert restore(saved)[0] == 3


# --- In the process -------------------------------------------------------------------------------


def main(workdir, action, there=None):
    if action == "saving":
        loop.Checkpoints.save = save_for_ever(there)
        with interruption.handled():
            run(workdir)

    def said(step):
        print(f"begun after {step}", flush=True)
        return make_data(step)

    try:
        run(workdir, data=said)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
