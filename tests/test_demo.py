import contextlib
import io
import json
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest

from stormpsr_jax import demo
from stormpsr_jax.base import files
from stormpsr_jax.psr import metrics, wrong_parts
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.serving.folder import read_model
from tests.support.recognise_data import found, run, write_pictures

ROOT = Path(__file__).parents[1]
FOLDER = demo.PROVENANCE.parent
(FIVE_LINES,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
ABOUT = files.read_json(demo.PROVENANCE)


def listing():
    paths = (p for p in FOLDER.parent.rglob("*") if "__pycache__" not in p.parts)
    return {p: p.stat().st_mtime_ns for p in paths}


@pytest.fixture(scope="module")
def recognised(system, tmp_path_factory):
    """What the command makes of it in an empty folder, without a network."""
    folder = tmp_path_factory.mktemp("anywhere")
    before = listing()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(socket, "socket", None)
        assert run("demo", "demo", "--out=demo_out") == 0
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            exec(FIVE_LINES, {})
    assert listing() == before
    assert os.listdir(folder) == ["demo_out"]
    rows = [line.split() for line in told.getvalue().splitlines()]
    rows = [row for row in rows if row[-2] == "report"]
    events = found(folder / "demo_out" / "demo")
    assert [(int(row[0]), int(row[2])) for row in rows] == events
    return folder / "demo_out" / "demo"


def test_demo_finds_what_its_provenance_says(recognised):
    """Another processor rounds otherwise, by which an event can be a frame earlier or later."""
    content = read_model(demo.MODEL)
    (variant,) = content.procedure.variants.values()
    truth = LabelPlace(demo.LABELS / "demo.csv").read(content.procedure.at(content.fps), variant)
    events = found(recognised)
    scores = metrics.score_recording(truth.steps, metrics.scored_steps(events), content.fps)
    told = ABOUT["video"]["figures"]
    assert scores["f1"] == pytest.approx(told["f1"], abs=0.08)
    assert scores["f1"] > 0.75
    words = f"F1 {told['f1']:.2f}, mean delay {told['delay_s']:.1f} s"
    assert words in (ROOT / "docs" / "recognise.md").read_text(encoding="utf-8")
    wrong = wrong_parts.score_recording(truth.frames, truth.states, events, content.fps)
    assert [wrong[key] for key in ("shown", "found", "accepted")] == [1, 1, 0]
    assert (recognised / "report.html").stat().st_size > 10_000
    assert files.read_json(recognised / "record.json")["fits"] is True


def test_demo_pictures_of_something_else_have_status_3_and_no_step(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    write_pictures(tmp_path / "noise", noise, 0)
    for _ in range(2):  # the second finds it finished
        assert run("demo", str(tmp_path / "noise"), f"--out={tmp_path / 'out'}") == 3
        said = capsys.readouterr()
        assert "does not show the model's product: the detector is sure of" in said.out
        assert "in 0.0% of the pictures, in validation it was in 20.5% or more" in said.out
        assert "1 of 1 videos do not show the model's product (synthetic)" in said.err
    folder = tmp_path / "out" / "noise"
    (status,) = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    assert (status["fits"], status["share"]) == (False, 0)
    assert found(folder) == []
    assert files.read_json(folder / "record.json")["fits"] is False
    assert "do not show the model's product" in (folder / "report.html").read_text()


def test_demo_provenance_is_of_these_files():
    there = {p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.is_file()}
    there = {name for name in there if "__pycache__" not in name}
    assert there == {*ABOUT["files"], "__init__.py", "provenance.json"}
    for name, entry in ABOUT["files"].items():
        path = FOLDER / name
        assert (path.stat().st_size, files.checksum(path)) == (entry["bytes"], entry["sha256"])
