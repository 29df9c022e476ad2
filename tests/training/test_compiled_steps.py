"""How devices add up gradients; run as a script, it is the process with eight of them."""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import jax
import pytest

from stormpsr_jax.stages.config_flag import typed
from stormpsr_jax.training import devices
from tests.support.processes import ROOT, environment, finish, start
from tests.support.tiny import TRAINED, tiny

pytestmark = pytest.mark.system

DEVICES = 8
# A window of 9 frames, and heads as wide as cuDNN wants them.
CHANGES = {"dtype": "bfloat16", "window.frames": 32, "window.stride": 4, "finetune.batch": 24}
CHANGES |= {"temporal.batch": 72, "detector.batch": 40, "detector.cad": 0.0, "encoder.depth": 2}
CHANGES |= {"temporal_model.depth": 2, "detector.cad_wrong": 0.0, "detector.pose_loss": 0.0}
CHANGES |= {"pretrain.any_frames": 6}
_SUM = re.compile(r" = (.*?) all-reduce(?:-start)?\(")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
PACKAGES = {"h100": "jax_cuda12_plugin", "v5e": "libtpu"}


@pytest.mark.parametrize(
    "target", ["cpu", *(pytest.param(name, marks=pytest.mark.slow) for name in PACKAGES)]
)
def test_devices_add_up_gradients_in_float32(tmp_path, target):
    if target != "cpu" and importlib.util.find_spec(PACKAGES[target]) is None:
        pytest.skip(f"needs {PACKAGES[target]}, of pip install 'jax[cuda12]' or 'jax[tpu]'")
    env = environment(DEVICES, PYTHONPATH=f"{ROOT}:{ROOT / 'benchmarks'}")
    env["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # what is there already is not dumped
    dumped = f" --xla_dump_to={tmp_path} --xla_dump_hlo_pass_re=spmd-partitioning"
    env["XLA_FLAGS"] = env["XLA_FLAGS"] + dumped if target == "cpu" else ""
    finish(start([sys.executable, __file__, tmp_path, target], env=env), timeout=1800)
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert list(steps) == list(TRAINED)
    for stage, (sums, parameters) in steps.items():
        assert {dtype for dtype, _ in sums} <= {"f32", "s32", "pred"}, stage
        added = sum(size for dtype, size in sums if dtype == "f32")
        assert added > 0.8 * parameters, stage  # some have no gradient


def compiled_text(lowered, folder, target):
    compiled = lowered.compile()
    if target != "cpu":
        return compiled.as_text()
    # Passes for CPUs make float32 of all sums, so what XLA_FLAGS dump is from before them.
    (dumped,) = folder.glob("*jit_step*after_spmd-partitioning*")
    text = dumped.read_text()
    dumped.unlink()
    return text


def main(folder, target):
    """Compiles the step of every stage, tiny and in bfloat16, for eight devices.

    FOLDER/steps.json: by stage, sums over devices as [dtype, size], and the number of parameters.
    """
    import stage_loops  # of benchmarks
    import step_memory

    mesh = devices.make_mesh() if target == "cpu" else step_memory.make_mesh(target, DEVICES, 1)
    run, stages = stage_loops.opened(typed(tiny(**CHANGES)), folder, mesh, recordings=1)
    steps = {}
    for stage, definition in stage_loops.definitions(run, stages).items():
        text = compiled_text(stage_loops.lower(definition, mesh), folder, target)
        sums = [
            (dtype, math.prod(int(n) for n in dims.split(",") if n))
            for result in _SUM.findall(text)
            for dtype, dims in _SHAPE.findall(result)
        ]
        steps[stage] = sums, sum(a.size for a in jax.tree.leaves(definition.init()[0]))
    (folder / "steps.json").write_text(json.dumps(steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
