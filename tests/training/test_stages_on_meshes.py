"""Every stage on several meshes; as a script it trains them, leaving loss and batch of each step.

    python test_stages_on_meshes.py FOLDER given 8x1 2x2+memory …  trains FOLDER/NAME/STAGE
    python test_stages_on_meshes.py FOLDER NAME … --address=localhost:1234 --processes=2 --process=0

`given` makes the pictures, and the weights that all start from. Each stage trains as in a run, but
from the same weights whatever another stage made of them: a last bit of rounding there would be a
difference here. A folder that holds a checkpoint is continued.
"""

import argparse
import dataclasses
import functools
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

from stormpsr_jax.stages import detector
from stormpsr_jax.training import devices, hosts
from stormpsr_jax.training.checkpoint import load_best, save_best
from tests.support.processes import environment, finish, free_address, start
from tests.support.tiny import TRAINED, opened, tiny

STEPS, SAVED = 12, 7
# Continued as GOES_ON from a checkpoint of another mesh; how the data of the others begin
# at any step, tests of the pipelines show.
CONTINUED, GOES_ON = ("pretrain", "temporal"), "2x2+continued"
# What a stage reads of others.
READS = {"temporal": ("embed",), "finetune": ("pretrain", "temporal")}
CHANGES = {
    "data.synthetic.recordings": (2, 1, 1),
    "data.synthetic.cad_per_state": 2,
    "window.frames": 8,
    "augment.occluders": 0.0,  # half a second of compilation
    "augment.blur_sigma": 0.0,
    "augment.shift": 0.0,
    "encoder.stem": (),
    "detector.depth": 0,
    # Two points that look alike, as repeated borders do, and rounding decides which of them is the
    # likeliest: so without borders (`main`), and with pictures in which no two come that close.
    "data.synthetic.seed": 2,
    "detector.batch": 8,
    # Adam takes whole steps along gradients that are nothing but rounding, and so does anything at
    # a high rate. On the other hand it takes no notice of a gradient that is a multiple of the
    # right one: the others have SGD, without clipping.
    **{f"{stage}.optimizer.name": "sgd" for stage in ("pretrain", "finetune", "detector")},
    **{f"{stage}.optimizer.clip_norm": 0.0 for stage in ("pretrain", "finetune", "detector")},
    "pretrain.optimizer.lr": 1e-4,
    "temporal.optimizer.lr": 3e-4,
    "finetune.optimizer.lr": 3e-4,
    "detector.optimizer.lr": 1e-4,
    **{f"{stage}.optimizer.warmup_steps": 0 for stage in TRAINED},
    **{f"{stage}.steps": STEPS for stage in TRAINED},
    "checkpoint_every": SAVED,
    "log_every": 1,
}


def on_devices(count, folder, *arguments):
    return start([sys.executable, __file__, folder, *arguments], env=environment(count))


def two_processes(folder, name, devices):
    shared = (name, f"--address={free_address()}", "--processes=2")
    return [on_devices(devices, folder, *shared, f"--process={i}") for i in range(2)]


@pytest.fixture(scope="module")
def runs(system, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    finish(on_devices(1, folder, "given", "1x1"), timeout=3600)
    finish(*two_processes(folder, "2x2+memory", 2), timeout=3600)
    return folder


@pytest.fixture(scope="module")
def more_runs(runs):
    """Of one process, split both ways, by the batch or the state alone; and continued elsewhere."""
    finish(on_devices(8, runs, "2x4", "8x1", "1x8"), timeout=3600)
    for stage in CONTINUED:
        shutil.copytree(runs / "1x8" / stage, runs / GOES_ON / stage)
        # As it was after SAVED steps.
        shutil.rmtree(runs / GOES_ON / stage / stage / "checkpoints" / str(STEPS))
    finish(*two_processes(runs, GOES_ON, 2), timeout=3600)
    return runs


def losses(runs, name, stage):
    rows = (runs / name / stage / stage / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, rows)}


@pytest.mark.parametrize("stage", TRAINED)
def test_stages_losses_of_one_device_on_two_processes_of_two(runs, stage):
    """With all that saves memory: SupCon in blocks and recomputation."""
    assert_same_losses(runs, "2x2+memory", stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINED)
@pytest.mark.parametrize("name", ["2x4", "8x1", "1x8"])
def test_stages_losses_of_one_device_on_any_mesh(more_runs, name, stage):
    assert_same_losses(more_runs, name, stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", CONTINUED)
def test_stages_continued_by_other_processes_and_devices(more_runs, stage):
    assert_same_losses(more_runs, GOES_ON, stage)


def assert_same_losses(runs, name, stage):
    """Within 1e-4 of the loss: sums rounded in another order drift apart.

    On some processors a few losses of the detector do so by 5e-5, on others by less than 1e-5.
    """
    one, other = losses(runs, "1x1", stage), losses(runs, name, stage)
    assert list(other) == list(one) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(other.values()), list(one.values()), rtol=1e-4, atol=1e-5)
    assert len(set(one.values())) == STEPS


def opened_for(folder, name, stage, mesh):
    memory = {"encoder.remat": "dots"}
    saving = memory if name.endswith("memory") else {}
    config = tiny(**{**CHANGES, **saving, "data.dir": str(folder / "data")})
    return opened(config, folder / name / stage, mesh)


def prepare(folder):
    """Pictures, and each stage's untrained weights as its best ones."""
    run, stages = opened_for(folder, "given", "", devices.make_mesh(1, 1))
    for name in ("data", "pretrain", "embed", "temporal", "detector"):
        if not stages[name].trains:
            stages[name].make(run)
            continue
        (run.workdir / name).mkdir(parents=True)
        save_best(run.workdir / name, *stages[name].build(run).init())


def train_on(folder, name):
    """Every stage on a mesh."""
    mesh = devices.make_mesh(*map(int, name.split("+")[0].split("x")))
    for stage in TRAINED:
        if name == GOES_ON and stage not in CONTINUED:
            continue
        run, stages = opened_for(folder, name, stage, mesh)
        if jax.process_index() == 0:
            for given in READS.get(stage, ()):
                target = run.workdir / given
                shutil.copytree(folder / "given" / given, target, dirs_exist_ok=True)
        hosts.wait_for_all(f"{name} {stage}")
        definition = stages[stage].build(run)
        # Without evaluation, which would only cost time.
        changes = {"evaluate": None, "best": "", "evaluate_start": False}
        if stage != "finetune":  # which starts from what it reads
            changes["init"] = functools.partial(load_best, folder / "given" / stage)
        trained = dataclasses.replace(definition, **changes)
        with mock.patch.object(type(stages[stage]), "build", return_value=trained):
            stages[stage].make(run)


def split_all(state_shardings):
    """Splits arrays that are far too small for it in earnest, and sees to it that it did."""
    shardings = functools.partial(state_shardings, min_size=64)

    def checked(abstract_state, mesh):
        tree = shardings(abstract_state, mesh)
        assert any(s.spec for s in jax.tree.leaves(tree)) == (mesh.shape["fsdp"] > 1)
        return tree

    return checked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--address")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    args = parser.parse_args()
    if args.address:
        hosts.connect(args.address, args.processes, args.process)
    devices.state_shardings = split_all(devices.state_shardings)
    detector.ZOOM = detector.SHIFT = 0.0
    for name in args.names:
        if name == "given":
            prepare(args.folder)
        else:
            train_on(args.folder, name)


if __name__ == "__main__":
    main()
