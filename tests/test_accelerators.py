"""The training steps of the full-size configs, compiled for GPUs and TPUs that are not there: slow.

    python -m pytest -m slow tests/test_accelerators.py -s

Models, pictures and batches are those of the configs. Lowering needs nothing but JAX. Compiling
for a TPU takes the package libtpu (pip install 'jax[tpu]'), and says what memory a chip needs.
"""

import re
import sys

import pytest

from tests.support.processes import ROOT, environment, finish, start
from tests.support.tiny import TRAINED


def rows_of(*arguments):
    """The rows of the table that the benchmark prints, cell by cell."""
    command = [sys.executable, ROOT / "benchmarks/accelerators.py", *arguments]
    # Its own flags, not those of tests, which would leave code as it comes. With the usual effort
    # the detector's code for a TPU takes over half an hour; with the least, a minute.
    least = {f"JAX_{what}_EFFORT": "-1" for what in ("EXEC_TIME_OPTIMIZATION", "MEMORY_FITTING")}
    (output,) = finish(start(command, env=environment(XLA_FLAGS="", **least)), timeout=5400)
    print(output)
    rows = re.findall(r"^\| (.*) \|$", output, re.MULTILINE)
    return [row.split(" | ") for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["meccano", "industreal"])
def test_steps_lower_for_gpu_and_tpu(config):
    _, *rows = rows_of("--lower", f"--config={config}", f"--stages={','.join(TRAINED)}")
    lowered = [(stage, platform) for stage, _, platform, _ in rows]
    assert lowered == [(stage, platform) for stage in TRAINED for platform in ("cuda", "tpu")]
