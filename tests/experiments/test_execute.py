import json
import os
import signal
import sys

import pytest

from stormpsr_jax.base import files
from stormpsr_jax.experiments import execute
from stormpsr_jax.experiments.runs import Run
from tests.support.processes import environment, finish, start, wait_until
from tests.support.tiny import TINY, flags_of, tiny

NAMES = ("temporal.sampling=kcas", "temporal.sampling=uniform")
STAGES = ("data", "pretrain", "embed", "temporal", "predict", "evaluate")


def sweep(root, values, *flags, devices=1, **changes):
    changes = TINY | {"stages": STAGES, "seed": 1, "temporal.steps": 60} | changes
    words = ["-m", "stormpsr_jax.sweep", f"temporal.sampling={values}", f"--workdir={root}"]
    words += ["--config=synthetic_full", "--seeds=1", *flags_of(changes), *flags]
    return start([sys.executable, *words], env=environment(devices))


def test_one_of_two_that_is_killed_goes_on_to_the_figures_of_one_after_the_other(system, tmp_path):
    root, both = tmp_path / "both", "kcas,uniform"
    runs = [root / "seed_1" / name for name in NAMES]
    process = sweep(root, both, devices=2)
    wait_until(lambda: all((run / "temporal/record.json").exists() for run in runs), process)
    at_work = [int((files.read_owner(run / "lock") or "0 0").split()[1]) for run in runs]
    assert 0 not in at_work, "both are at work"
    os.kill(at_work[1], signal.SIGKILL)
    # A second command would use the same devices.
    (said,) = finish(sweep(root, both), code=2)
    assert "is writing to" in said
    (said,) = finish(process, code=1)
    assert f"[2/2] {NAMES[1]}, seed 1: FAILED: " in said
    assert "1 of 2 runs failed, and are in no table" in said
    assert not (runs[1] / "metrics.json").exists()
    (said,) = finish(sweep(root, both, "--plan"))
    (line,) = said.splitlines()  # the recordings are there
    finish(start(["bash", "-c", line]))
    (said,) = finish(sweep(root, both))
    assert "starts" not in said
    (data,) = root.glob("data_*/data")
    finish(sweep(tmp_path / "one", "uniform", **{"data.dir": data}))
    one, two = (json.loads((r / "sweep.json").read_text()) for r in (tmp_path / "one", root))
    assert one["rows"] == [row for row in two["rows"] if NAMES[1] in row["text"]]
    assert len(two["rows"]) == 2 * len(one["rows"]) == 2


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, ["0,1", "2,3"]), ("4,5,GPU-a,GPU-b", ["4,5", "GPU-a,GPU-b"])],
)
def test_each_run_sees_its_own_devices_and_has_its_share_of_loaders(given, found, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)

    class Looked:
        returncode, stdout, stderr = 0, "gpu 4\n", ""

    monkeypatch.setattr(execute.subprocess, "run", lambda *_, **__: Looked)
    here = execute.environments(2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in here] == found
    assert execute.environments(0) == execute.environments(4) == [{}]
    with pytest.raises(ValueError, match="--devices_per_run=5: this machine has 4 of JAX's"):
        execute.environments(5)
    Looked.stdout = "tpu 4\n"
    with pytest.raises(ValueError, match="GPUs alone are shared out; give 0 for all of them"):
        execute.environments(1)
    monkeypatch.setattr(execute.hosts, "cores", lambda: 24)
    for asked, share in ((0, 0), (1, 1), (8, 4), (-1, 12)):
        run = Run("run", tiny(**{"data.workers": asked}), None)
        assert execute.with_loaders(run, 2).config.data.workers == share
        assert execute.with_loaders(run, 1).config.data.workers == asked
