"""What devices send each other in the compiled step of each stage, and what each of them is given."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

from tests.support.processes import environment, finish, start
from tests.support.tiny import TRAINED

SCRIPT = Path(__file__).parents[1] / "support" / "compiled_steps.py"
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
    words = [sys.executable, SCRIPT, folder, target]
    flags = {} if target == "cpu" else {"XLA_FLAGS": ""}
    finish(start(words, env=environment(8, **flags)), timeout=1800)
    found = json.loads((folder / "steps.json").read_text())
    assert list(found) == list(TRAINED)
    for stage, step in found.items():
        added = [moved for moved in step["moved"] if moved[0] == "all-reduce"]
        assert {dtype for _, dtype, _ in added} <= {"f32", "s32", "pred"}, stage
        summed = sum(math.prod(shape) for _, dtype, shape in added if dtype == "f32")
        assert summed > 0.8 * step["parameters"]  # some have no gradient
        # SupCon compares all pictures of a batch with each other: their projections and labels.
        others = [(dtype, sorted(shape)) for op, dtype, shape in step["moved"] if op != "all-reduce"]
        of_supcon = all(shape[-1] <= (128 if dtype == "f32" else 24) for dtype, shape in others)
        assert of_supcon if stage == "pretrain" else not others, stage
        assert not step["whole"], stage  # no device has all rows of the batch
