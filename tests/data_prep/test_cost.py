import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep import synthetic
from data_prep.products import products
from data_prep.writing import cost
from stormpsr_jax.base.cluster import Cluster

SECONDS = {"train_": 0.01, "rehearsal_": 0.002, "cad_": 0.004}
SIZES = {"train_": 1000, "rehearsal_": 400, "cad_": 700}
FRAMES = {"train_": 400, "rehearsal_": 100, "cad_": 5}


def _make(made):
    def make(split, name):
        def jpegs():
            for i in range(FRAMES[kind]):
                time.sleep(SECONDS[kind] if i else 0.3)  # what is loaded or compiled counts not
                yield b"x" * SIZES[kind]

        kind = name.rstrip("0123456789")
        kind = "train_" if kind in ("val_", "train_") else kind
        made[kind] += 1
        return SimpleNamespace(jpegs=jpegs())

    return make


def test_hours_and_bytes_are_those_of_the_frames_of_each_kind(monkeypatch):
    names = [("train", "train_000"), ("val", "val_000"), ("cad", "cad_01"), ("cad", "cad_02")]
    names += [("train", f"rehearsal_00{i}") for i in range(3)]
    frames = {"train_000": 400, "val_000": 200, "cad_01": 5, "cad_02": 5}
    frames |= {f"rehearsal_00{i}": 100 for i in range(3)}
    now = [0.0]
    monkeypatch.setattr(cost.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    made = Counter()
    found = cost.measure(_make(made), names, frames)
    assert made == {"train_": 1, "rehearsal_": 1, "cad_": 1}
    assert found.frames == 910
    assert found.seconds == pytest.approx(600 * 0.01 + 300 * 0.002 + 10 * 0.004)
    assert found.size == pytest.approx(600 * 1000 + 300 * 400 + 10 * 700 + 7 * cost.FILE)
    assert now[0] < 3 * (0.3 + cost.FRAMES * 0.01 + 0.1)


@pytest.mark.parametrize(
    ("seconds", "workers", "text"),
    [
        (30.0, 1, "about a minute or less with 1 of this machine's cores"),
        (72_000.0, 64, "about 10.0 hours with 2 of this machine's cores"),
        (72_000.0, Cluster("auto"), "about 20.0 hours of one of this machine's cores"),
    ],
)
def test_a_line_tells_hours_gigabytes_and_the_room_that_there_is(
    tmp_path, monkeypatch, seconds, workers, text
):
    monkeypatch.setattr(cost.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(cost.shutil, "disk_usage", lambda _: SimpleNamespace(free=5e9))
    line = cost.tell(cost.Cost(12_345, seconds, 3.2e9), workers, tmp_path / "not" / "there")
    assert line == f"12,345 frames are to be rendered: {text}, and 3.2 GB, of 5.0 GB that are free"


@pytest.mark.usefixtures("system")  # takes seconds
def test_what_is_told_of_a_product_comes_true_and_of_a_finished_folder_nothing(tmp_path, capsys):
    def make():
        synthetic.make_dataset(
            tmp_path, of=products.drawn(2), size=16, fps=1, recordings={"val": 2}, cad_per_state=2
        )
        return capsys.readouterr().out

    (line,) = make().splitlines()
    size = sum(path.stat().st_size for path in tmp_path.glob("clips-*"))
    frames = int(line.partition(" ")[0].replace(",", ""))
    with np.load(tmp_path / "labels" / "val.npz") as file:
        assert frames == len(file["states"]) + 2 * products.drawn(2).procedure.num_states
    told = float(line.partition(" MB")[0].rpartition(" ")[2]) * 1e6
    assert told == pytest.approx(size, rel=0.3)
    assert "a minute or less" in line
    assert make() == ""
