"""What a run says about itself before it starts, without refusing."""

import dataclasses
import shutil

import numpy as np

from stormpsr_jax import main
from stormpsr_jax.base import hardware
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.stages import checks, order
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import tiny

ALONE = {"detector.cad_wrong": 0.0}


def find(folder, workdir, **changes):
    changes = {"stages": tiny().stages[1:], "data.dir": str(folder), **changes}
    return checks.find_doubts(Context(tiny(**changes), workdir, make_mesh(1, 1)))


def with_wrong_parts(rendered, tmp_path):
    """The data folder, as if part 0 sat wrong twice, once until the end, and part 3 once."""
    folder = tmp_path / "data"
    shutil.copytree(rendered / "data", folder)
    path = folder / "labels" / "train.npz"
    with np.load(path) as file:
        arrays = dict(file)
    states = np.abs(arrays["states"])
    states[2:5, 0] = states[-3:, 0] = states[3:9, 3] = -1
    np.savez(path, **arrays | {"states": states})
    recordings = ClipSource(folder, "train", load_procedure("synthetic")).recordings
    assert sum((r.states == -1).sum() for r in recordings.values()) == 12
    return folder


def test_find_doubts_wrong_parts_learnt_from_recordings_alone(rendered, tmp_path):
    folder = with_wrong_parts(rendered, tmp_path)
    (text,) = find(folder, tmp_path, **ALONE)
    assert text.startswith("--config.detector.part_loss=1.0, but detector.cad_wrong=0: ")
    assert "the training recordings alone (wrong parts in them: 3)" in text
    assert "data_prep.cad --wrong=N" in text


def test_find_doubts_none_where_renders_show_them_or_nobody_asks(rendered, tmp_path):
    folder = rendered / "data"
    assert find(folder, tmp_path) == []
    assert find(folder, tmp_path, **ALONE, **{"detector.part_loss": 0.0}) == []
    assert find(folder, tmp_path, **ALONE, stages=("pretrain", "embed", "temporal")) == []
    assert find(tmp_path / "not there yet", tmp_path, **ALONE) == []


def test_run_says_its_doubts_once_and_goes_on(tmp_path, capfd, monkeypatch):
    """Before it starts, or when the data that tell have been rendered."""
    of_detector = tmp_path / "run" / "detector"
    train = lambda context: (of_detector / "best.safetensors").touch() or {"best_step": 1}  # noqa: E731
    stages = [dataclasses.replace(s, run=train) if s.costly else s for s in order.STAGES]
    monkeypatch.setattr(order, "STAGES", tuple(stages))
    changes = {f"data.synthetic.recordings.{split}": 1 for split in ("train", "val", "test")}
    changes |= {"data.synthetic.cad_per_state": 0, "data.synthetic.cad_wrong": 0}
    changes |= {"detector.cad": 0.0, "detector.pose_loss": 0.0}
    config = tiny(stages=("data", "detector"), **ALONE, **changes)
    monkeypatch.setattr(hardware, "unused", lambda platforms: [f"no use of a GPU, {platforms}"])
    for _ in range(2):
        main.run(config, tmp_path / "run")
        said = capfd.readouterr()
        first, line = [text for text in said.err.splitlines() if text.startswith("warning: ")]
        assert first == "warning: no use of a GPU, {'cpu'}"
        assert "--config.detector.part_loss=1.0" in line
        assert "detector: " in said.out
