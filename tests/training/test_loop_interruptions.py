import os
import signal
import time

import pytest

from stormpsr_jax.base import interruption
from tests.support.loop_process import start_script
from tests.support.loop_toy import acting, assert_same, run, steps_saved
from tests.support.processes import finish, wait_until


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


@pytest.mark.parametrize(
    ("where", "number", "status"),
    [("saving", signal.SIGTERM, 75), ("computing", signal.SIGINT, 130)],
)
def test_train_a_second_signal_ends_at_once(tmp_path, where, number, status):
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
