"""Every stage gives the losses of one device on any mesh, and over several processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stages_on_meshes import SAVED, STAGES, STEPS

SCRIPT = Path(__file__).with_name("stages_on_meshes.py")
ROOT = Path(__file__).parents[2]


def start(folder, *arguments, devices):
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, SCRIPT, folder, *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    for process in processes:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output[-3000:]


def two_processes(folder, name, devices):
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    shared = (name, f"--address={address}", "--processes=2")
    finish(*(start(folder, *shared, f"--process={i}", devices=devices) for i in range(2)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    finish(start(folder, "given", devices=1))
    finish(start(folder, "1x1", "8x1", "2x4+ring", "1x8", devices=8))
    two_processes(folder, "2x4", devices=4)
    shutil.copytree(folder / "1x8", folder / "2x2")
    for stage in STAGES:  # as it was after SAVED steps
        left = folder / "2x2" / stage / stage
        shutil.rmtree(left / "checkpoints" / str(STEPS))
        (left / "done.json").unlink()
        (left / "batches-0.jsonl").unlink()
    two_processes(folder, "2x2", devices=2)
    return folder


def losses(runs, name, stage):
    rows = (runs / name / stage / stage / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, rows)}


def batches(runs, name, stage):
    """{step: a digest of each row of the global batch}."""
    found = {}
    for file in sorted((runs / name / stage / stage).glob("batches-*.jsonl")):
        for step, *rows in map(json.loads, file.read_text().splitlines()):
            found.setdefault(step, []).extend(rows)
    return found


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["8x1", "2x4+ring", "1x8", "2x4"])
def test_stages_property_losses_of_one_device_on_any_mesh(runs, name, stage):
    """2x4 is over two processes of four; 2x4+ring has SupCon in blocks, and microbatches."""
    one, other = losses(runs, "1x1", stage), losses(runs, name, stage)
    assert list(other) == list(one) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(other.values()), list(one.values()), rtol=0, atol=1e-5)
    assert len(set(one.values())) == STEPS


@pytest.mark.parametrize("stage", STAGES)
def test_stages_property_continued_by_other_processes_and_devices(runs, stage):
    """From one process of eight devices to two of two: the same batches, the same losses."""
    whole, continued = batches(runs, "1x8", stage), batches(runs, "2x2", stage)
    assert min(continued) == SAVED + 1
    assert all(continued[step] == whole[step] for step in range(SAVED + 1, STEPS + 1))
    one, other = losses(runs, "1x1", stage), losses(runs, "2x2", stage)
    assert list(other) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(other.values()), list(one.values()), rtol=0, atol=1e-5)
