import json

import numpy as np
import pytest

from stormpsr_jax import monitor as command
from stormpsr_jax import psr
from stormpsr_jax.psr.files import predictions
from tests.support import toy
from tests.support.commands import refused

DATA = toy.content("seal, cover", "10 01 11", name="pump", fps=10, variant="up")
DATA["variants"]["up"] |= {"recordings": ["*_up"], "precedence": [[0, 3]]}
PROCEDURE = psr.Procedure.from_json(DATA)
SEAL, COVER, BOTH, ERROR = 1, 2, 3, PROCEDURE.error_class


def detections(*shown):
    classes = np.repeat(*np.transpose(shown))
    count = len(classes)
    boxes = np.full((count, 4), 0.5)
    return psr.Detections(np.arange(count), classes, np.full(count, 0.9), boxes)


RECORDINGS = {
    "good_up": detections((SEAL, 20), (BOTH, 20)),
    "late_up": detections((COVER, 20), (BOTH, 20)),
    "short_up": detections((SEAL, 20)),
    "wrong_up": detections((SEAL, 20), (BOTH, 20), (ERROR, 60)),
    "empty_up": psr.Detections(*(np.zeros(0, int),) * 2, np.zeros(0), np.zeros((0, 4))),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pump.json").write_text(json.dumps(PROCEDURE.to_json()))
    (tmp_path / "asd").mkdir()
    for name, found in RECORDINGS.items():
        psr.write_detections(tmp_path / "asd" / f"{name}{predictions.SUFFIX}", name, found)
    return tmp_path


def words(folder, *more):
    return [f"--procedure={folder / 'pump.json'}", f"--asd={folder / 'asd'}", *more]


def test_order_omissions_and_errors_are_told_by_recording(folder, capsys):
    command.main(words(folder, "--threshold=6", f"--out={folder / 'alerts.json'}"))
    result = json.loads((folder / "alerts.json").read_text())
    assert (result["procedure"], result["stream"], result["fps"]) == ("pump", "asd", 10)
    told = {
        name: [(alert["kind"], alert["step_id"], alert["other"]) for alert in its["alerts"]]
        for name, its in result["recordings"].items()
    }
    assert told == {
        "empty_up": [("missing", 0, None), ("missing", 3, None)],
        "good_up": [],
        "late_up": [("missed", 0, 3), ("out of order", 0, 3)],
        "short_up": [("missing", 3, None)],
        "wrong_up": [("error state", None, None)],
    }
    (error,) = result["recordings"]["wrong_up"]["alerts"]
    assert (error["since"], error["frame"]) == (40, 69)  # 30 frames
    assert {its["variant"] for its in result["recordings"].values()} == {"up"}
    said = capsys.readouterr().out
    assert "Install seal is missing before Install cover" in said
    assert said.splitlines()[-1] == "6 alerts; 1 of 5 recordings have none"


ASD = "name,frame,class,conf,x,y,w,h\n"
TEMPORAL = ",clip,framenr,GT,Pred,Conf\n"


@pytest.mark.parametrize(
    ("files", "more", "messages"),
    [
        ({}, ["--stream=storm"], ["--stream=storm needs --temporal"]),
        ({}, ["--temporal=none"], ["--temporal=none: is not a folder"]),
        ({}, ["--variant=x"], ["variant 'x' is not in procedure 'pump'"]),
        ({}, ["--error_seconds=0"], ["error_seconds=0.0 is not a positive number"]),
        ({}, ["--fps=0"], ["--fps=0.0 is not in"]),
        ({}, ["--threshold=-1"], ["threshold"]),
        ({"t/x": ""}, ["--temporal=t"], ["t: has no <recording>_results_pred.csv"]),
        (
            {"t/x_up_results_pred.csv": TEMPORAL},
            ["--temporal=t"],
            ["asd: no x_up_results_pred.csv, which is in", *["t: no"] * len(RECORDINGS)],
        ),
        (
            {"asd/down_results_pred.csv": f"{ASD}a,1,9,0.5,1,1,1,1\n"},
            [],
            ["no variant matches recording 'down'", "line 2: class: '9' is not in 0…4"],
        ),
    ],
)
def test_errors_are_a_line_each_and_nothing_is_written(
    folder, capsys, monkeypatch, files, more, messages
):
    monkeypatch.chdir(folder)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    flags = words(folder, *more, "--out=alerts.json")
    said = refused(capsys, command.main, flags, lines=len(messages)).splitlines()
    assert all(message in line for message, line in zip(messages, said, strict=True))
    assert not (folder / "alerts.json").exists()
    asked = refused(capsys, command.main, flags[:1])
    assert "--asd or --temporal, the folder of prediction files, is missing" in asked
