import json
import os
import signal
import sys

import pytest

from stormpsr_jax.base import files
from stormpsr_jax.experiments import places
from tests.support.processes import environment, finish, start, wait_until
from tests.support.tiny import TINY, flags_of

NAMES = ("temporal.sampling=kcas", "temporal.sampling=uniform")


def sweep(root, finished, devices, *flags):
    stages = ("pretrain", "embed", "temporal", "predict", "evaluate")
    changes = {"data.dir": finished / "data", "stages": stages, "seed": 1, "temporal.steps": 60}
    words = ["-m", "stormpsr_jax.sweep", "temporal.sampling=kcas,uniform"]
    words += ["--config=synthetic_full", *flags_of(TINY | changes)]
    words += ["--seeds=1", f"--workdir={root}", *flags]
    return start([sys.executable, *words], env=environment(devices))


def test_one_of_two_that_is_killed_goes_on_to_the_figures_of_one_after_the_other(
    finished, tmp_path
):
    root, runs = tmp_path / "both", [tmp_path / "both/seed_1" / name for name in NAMES]
    process = sweep(root, finished, 2)
    wait_until(lambda: all((run / "temporal/record.json").exists() for run in runs), process)
    at_work = [int((files.read_owner(run / "lock") or "0 0").split()[1]) for run in runs]
    assert 0 not in at_work, "both are at work"
    os.kill(at_work[1], signal.SIGKILL)
    # A second command would use the same devices.
    (said,) = finish(sweep(root, finished, 2), code=2)
    assert "is writing to" in said
    assert "help it on other devices with --join" in said
    (said,) = finish(process, code=1)
    assert "2 runs, 2 at a time, " in said
    assert f"{NAMES[1]}, seed 1: FAILED: " in said
    assert not (runs[1] / "metrics.json").exists()
    # Each of two commands has one device.
    both = [sweep(root, finished, 1, "--join") for _ in range(2)]
    finish(*both)
    logs = [run.with_name(f"{run.name}.log").read_text() for run in runs]
    for stage in ("pretrain", "embed"):
        assert sum(f"\n{stage} …" in log for log in logs) == 1, stage
        assert sum(f"\n{stage}: taken over from " in log for log in logs) == 1, stage
    finish(sweep(tmp_path / "one", finished, 1))
    one, two = (json.loads((r / "sweep.json").read_text()) for r in (tmp_path / "one", root))
    assert one == two
    assert len(one["rows"]) == 2


@pytest.mark.parametrize(
    ("kind", "given", "found"),
    [
        ("gpu", None, ["0,1", "2,3"]),
        ("gpu", "4,5,GPU-a,GPU-b", ["4,5", "GPU-a,GPU-b"]),
    ],
)
def test_each_run_sees_its_own_devices(kind, given, found, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)

    class Looked:
        returncode, stdout, stderr = 0, f"{kind} 4\n", ""

    monkeypatch.setattr(places.subprocess, "run", lambda *_, **__: Looked)
    here = places.find(2)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in here] == found
    monkeypatch.setattr(places.hosts, "cores", lambda: 24)
    loaders = [[place.loaders(asked) for place in here] for asked in (0, 1, 8, -1)]
    assert loaders == [[0, 0], [1, 1], [4, 4], [8, 8]]
    monkeypatch.setattr(places.hosts, "cores", lambda: 6)
    assert [place.loaders(-1) for place in here] == [3, 3]
    with pytest.raises(ValueError, match="--devices_per_run=5: this machine has 4 of JAX's"):
        places.find(5)
