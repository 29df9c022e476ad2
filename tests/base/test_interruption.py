"""SIGTERM and Ctrl-C where no stage trains; tests of the loop have the rest."""

import signal
import sys

import pytest

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
