"""What devices send each other in a step; run as a script, it is the process with eight of them."""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks.layers import Conv
from stormpsr_jax.networks.vit import fused_attention
from stormpsr_jax.training import devices
from tests.support.processes import ROOT, environment, finish, start
from tests.support.tiny import TRAINED, tiny

pytestmark = pytest.mark.system

DEVICES = 8
# A window of 9 frames, and heads as wide as cuDNN wants them.
CHANGES = {"dtype": "bfloat16", "window.frames": 32, "window.stride": 4, "finetune.batch": 24}
CHANGES |= {"temporal.batch": 72, "detector.batch": 40, "detector.cad": 0.0, "encoder.depth": 2}
CHANGES |= {"temporal_model.depth": 2, "detector.cad_wrong": 0.0, "detector.pose_loss": 0.0}
# Each device has as many rows of those that SupCon compares: two of each of 21 states, and six.
CHANGES |= {"pretrain.backgrounds": 6, "pretrain.background_frames": (2, 14)}
CHANGES |= {"pretrain.any_frames": 8}
_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
PACKAGES = {"h100": "jax_cuda12_plugin", "v5e": "libtpu"}


def test_devices_add_up_gradients_in_float32_and_share_the_batch(tmp_path):
    """Networks also compute on eight devices what they compute on one."""
    assert_steps_share(tmp_path, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("target", PACKAGES)
def test_accelerators_add_up_gradients_in_float32_and_share_the_batch(tmp_path, target):
    if importlib.util.find_spec(PACKAGES[target]) is None:
        pytest.skip(f"needs {PACKAGES[target]}, of pip install 'jax[cuda12]' or 'jax[tpu]'")
    assert_steps_share(tmp_path, target)


def assert_steps_share(folder, target):
    env = environment(8, PYTHONPATH=f"{ROOT}:{ROOT / 'benchmarks'}")
    env["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # what is there already is not dumped
    dumped = f" --xla_dump_to={folder} --xla_dump_hlo_pass_re=spmd-partitioning"
    env["XLA_FLAGS"] = env["XLA_FLAGS"] + dumped if target == "cpu" else ""
    finish(start([sys.executable, __file__, folder, target], env=env), timeout=1800)
    found = json.loads((folder / "steps.json").read_text())
    assert list(found) == list(TRAINED)
    for stage, step in found.items():
        added = [moved for moved in step["moved"] if moved[0] == "all-reduce"]
        assert {dtype for _, dtype, _ in added} <= {"f32", "s32", "pred"}, stage
        summed = sum(math.prod(shape) for _, dtype, shape in added if dtype == "f32")
        assert summed > 0.8 * step["parameters"]  # some have no gradient
        # SupCon compares all pictures of a batch with each other: their projections and labels.
        others = [shape for op, _, shape in step["moved"] if op != "all-reduce"]
        assert stage == "pretrain" or not others, stage
        assert all(math.prod(shape) <= 48 * 128 for shape in others)
        assert not step["whole"], stage  # no device has all rows of the batch


def shapes(text):
    return [(dtype, [int(n) for n in dims.split(",") if n]) for dtype, dims in _SHAPE.findall(text)]


def compiled_text(stage, lowered, folder, target):
    compiled = lowered.compile()
    if target != "cpu":
        return compiled.as_text()
    # Passes for CPUs make float32 of all sums, so what XLA_FLAGS dump is from before them.
    (dumped,) = folder.glob("*jit_step*after_spmd-partitioning*")
    return dumped.rename(folder / f"{stage}.txt").read_text()


def check_sums(mesh):
    """What is computed apart on each device, and sums over devices, in bfloat16."""
    images, q = (
        jax.random.normal(jax.random.key(i), shape, jnp.bfloat16)
        for i, shape in enumerate([(16, 8, 8, 3), (16, 7, 2, 8)])
    )
    conv = Conv(4, (3, 3), strides=2, dtype=jnp.bfloat16)
    params = conv.init(jax.random.key(0), images)

    def loss(params, images, q):
        attended = fused_attention(q, q, q, tokens=5, implementation="xla")[:, :5]
        return sum(
            (y.astype(jnp.float32) ** 2).sum() for y in (conv.apply(params, images), attended)
        )

    def on_mesh(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.grad(loss, (0, 2))(*args)

    rows, whole = devices.batch_sharding(mesh), devices.replicated(mesh)
    found = jax.jit(on_mesh, in_shardings=(whole, rows, rows))(params, images, q)
    right = jax.jit(jax.grad(loss, (0, 2)))(params, images, q)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=0.02, atol=0.05)


def main(folder, target):
    """Compiles the step of every stage, tiny and in bfloat16, for eight devices.

    FOLDER/steps.json: by stage, the collectives as [operation, dtype, shape], the number of
    parameters, and the shapes of arrays with the rows of the whole batch.
    """
    import stage_loops  # of benchmarks
    import step_memory

    mesh = devices.make_mesh() if target == "cpu" else step_memory.make_mesh(target, DEVICES, 1)
    run, stages = stage_loops.opened(tiny(**CHANGES), folder, mesh, recordings=1)
    found = {}
    if target == "cpu":
        check_sums(mesh)
    for stage, definition in stage_loops.definitions(run, stages).items():
        batch = stage_loops.first_batch(definition)
        text = compiled_text(stage, stage_loops.lower(definition, mesh), folder, target)
        rows = len(next(iter(batch.values())))
        every = {rows, rows * stages["temporal"].clip.num_frames}
        moved = [(op, *s) for result, op in _COLLECTIVE.findall(text) for s in shapes(result)]
        found[stage] = {
            "moved": moved,
            "parameters": sum(a.size for a in jax.tree.leaves(definition.init()[0])),
            "whole": sorted({str(s) for s in shapes(text) if every & set(s[1][:1])}),
        }
    (folder / "steps.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
