"""The training steps of the full-size configs, lowered for GPUs and TPUs that are not there: slow.

    python -m pytest -m slow tests/test_accelerators.py

Models, pictures and batches are those of the configs. What no device of that kind can do is an
error then. Lowering needs nothing but JAX.
"""

import importlib
import sys

import pytest

from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.processes import ROOT
from tests.support.tiny import TRAINED

sys.path.insert(0, str(ROOT / "benchmarks"))
import stage_loops


@pytest.mark.slow
@pytest.mark.parametrize("name", ["meccano", "industreal"])
def test_steps_lower_for_gpu_and_tpu(name, tmp_path):
    config = importlib.import_module(f"stormpsr_jax.configs.{name}").get_config()
    config.data.workers = 0
    context = Context(config, tmp_path, make_mesh(1, 1))
    stage_loops.make_folders(context, recordings=1)
    for stage, definition in stage_loops.definitions(context, TRAINED).items():
        for platform in ("cuda", "tpu"):
            lowered = stage_loops.lower(definition, context.mesh, platforms=(platform,))
            assert "stablehlo" in lowered.as_text(), (stage, platform)
