import importlib.util
import json
import math
import sys

import pytest

from tests.support.processes import ROOT, environment, finish, start
from tests.support.tiny import TRAINED

SCRIPT = ROOT / "tests/support/compiled_steps.py"
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
    finish(start([sys.executable, SCRIPT, folder, target], env=env), timeout=1800)
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
