"""SIGTERM and Ctrl-C where no stage trains; tests of the loop have the rest."""

import os
import signal
import subprocess
import sys
import time

import pytest

from stormpsr_jax.base.processes import deaf_to_ctrl_c
from tests.support.processes import finish, start

pytestmark = pytest.mark.system


def test_main_ctrl_c_while_it_imports_is_one_line(tmp_path):
    words = [sys.executable, "-X", "importtime", "-m", "stormpsr_jax.main"]
    process = start([*words, "--config=synthetic", f"--workdir={tmp_path}"])
    for line in process.stdout:
        if line.split("|")[-1].strip() == "jax":
            break
    process.send_signal(signal.SIGINT)
    output = finish(process, code=130)[0]
    said = [line for line in output.splitlines() if not line.startswith("import time:")]
    assert said == ["Ctrl-C: stopped; run the same command again to go on"]


def test_deaf_to_ctrl_c_processes_are_and_the_parent_is_not():
    sleeper = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1)"]
    with deaf_to_ctrl_c():
        deaf = start(sleeper, stderr=subprocess.PIPE)
    hearing = start(sleeper, stderr=subprocess.PIPE)
    for process in (deaf, hearing):
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
    assert finish(deaf) == [""]
    assert "KeyboardInterrupt" in hearing.communicate()[1]
    noted = []
    before = signal.signal(signal.SIGINT, lambda *_: noted.append(True))
    with deaf_to_ctrl_c():
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    signal.signal(signal.SIGINT, before)
    assert noted
