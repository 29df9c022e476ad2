"""A stage that is terminated, interrupted and starved of disk comes to the same bytes.

`tests/test_main.py` kills runs in stages of every kind.
"""

import shutil
import signal

from tests.support.processes import finish, start
from tests.support.tiny import command

STAGES = ("pretrain", "embed", "temporal")  # the last one is stopped


def test_a_stage_that_was_stopped_and_starved_comes_to_the_same_bytes(finished, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    for folder in (run, whole):
        for name in ("data", *STAGES[:-1]):
            shutil.copytree(finished / name, folder / name)
    (words, env), others = (command(f, {"stages": ("data", *STAGES)}) for f in (run, whole))
    finish(start(others[0], env=env))
    for sent, status in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        process = start(words, env=env)
        assert "temporal …\n" in iter(process.stdout.readline, "")
        process.send_signal(sent)
        said = process.communicate(timeout=100)[0]
        assert process.returncode == status, said
        assert "Traceback" not in said
    process = start(["bash", "-c", 'ulimit -f 16; exec "$@"', "-", *words], env=env)
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "error: " in said
    finish(start(words, env=env))
    best = "temporal/best.safetensors"
    assert (run / best).read_bytes() == (whole / best).read_bytes()
