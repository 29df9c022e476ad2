"""Several processes on this machine as one run; run as a script, it is one of them."""

import os
import signal
import sys

import numpy as np
import pytest

from stormpsr_jax.training import hosts
from tests.support.processes import ROOT, environment, free_address, free_port, start

pytestmark = pytest.mark.system


def start_one(address, count, index, action, timeout=60, **variables):
    words = [sys.executable, __file__, address, count, index, action, timeout]
    return start(words, env=environment(2, **variables), cwd=ROOT)


def together(*actions):
    """(exit code, output) of processes that run at the same time."""
    address = free_address()
    count = len(actions)
    processes = [start_one(address, count, i, action) for i, action in enumerate(actions)]
    outputs = [p.communicate(timeout=120)[0] for p in processes]
    return [(p.returncode, text) for p, text in zip(processes, outputs, strict=True)]


def test_hosts_share_rows_and_flags_are_process_zeros():
    for code, output in together("agree", "agree"):
        assert code == 0, output
        assert "4 devices, flag True, sum 6" in output
        # Of seven rows each process had its part.
        assert "rows [0, 1, 4, 9, 16, 25, 36]" in output


def test_connect_asks_the_launcher():
    port = str(free_port())
    processes = []
    for i in range(2):
        slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
        slurm |= {"SLURM_PROCID": f"{i}", "SLURM_LOCALID": f"{i}", "SLURM_STEP_NUM_NODES": "1"}
        slurm["JAX_COORDINATOR_PORT"] = port
        processes.append(start_one("launcher", 0, 0, "agree", **slurm))
    for i, process in enumerate(processes):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert "4 devices, flag True, sum 6" in output or "4 devices, flag False, sum 6" in output
        assert f"cards {i}" in output  # one process, one card: the convention of JAX


def test_hosts_dead_process_ends_the_others():
    (code0, _), (dead, _), (code2, _) = together("work", "die", "work")
    assert dead == -9
    assert code0 != 0
    assert code2 != 0


def main(address: str, count: str, index: str, action: str, timeout: str) -> None:
    import jax

    from stormpsr_jax.training.devices import batch_sharding, make_mesh, put

    if action in ("work", "die"):
        hosts.HEARTBEAT_SECONDS = 5
    if address == "launcher":
        hosts.connect(timeout=int(timeout))
        index = str(jax.process_index())
    else:
        hosts.connect(address, int(count), int(index), timeout=int(timeout))
    mesh = make_mesh()
    total = jax.jit(lambda x: x.sum())
    rows = {"x": np.full((4,), 1.0 + int(index), np.float32)}
    x = put(rows, batch_sharding(mesh))["x"]
    while action in ("work", "die"):
        try:
            float(total(x))
        except jax.errors.JaxRuntimeError as error:
            hosts.fail(error, with_traceback=True)
        if action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
    value = float(total(x)) / 2
    flag = bool(hosts.of_process_0(index == "0"))
    print(f"{jax.device_count()} devices, flag {flag}, sum {value:.0f}", flush=True)
    own = np.arange(7, dtype=np.float32)[hosts.part(7)] ** 2
    print("rows", hosts.together(own, 7).astype(int).tolist(), flush=True)
    print("cards", jax.config.read("jax_cuda_visible_devices"), flush=True)
    hosts.wait_for_all("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
