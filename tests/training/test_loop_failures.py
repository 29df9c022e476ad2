import subprocess
import sys
import time

import jax.numpy as jnp
import pytest

from tests.support import loop_process
from tests.support.loop_toy import acting, run
from tests.support.processes import environment, finish, start


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


@pytest.mark.skipif(not may_mount(), reason="needs to mount a small disk")
def test_train_really_full_disk_is_one_line_and_training_goes_on(tmp_path):
    train = f"{sys.executable} {loop_process.__file__} {tmp_path}/disk/toy disk"
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
