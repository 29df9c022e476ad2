"""`data_prep.labels check`: what is in labels, warnings, what is too few."""

import json

import pytest

from data_prep import labels
from stormpsr_jax import procedure as procedure_command
from tests.support import refusals, toy

CONTENT = toy.content("seal, cover, screw", name="pump", variant="assembly")
CONTENT["variants"]["assembly"] |= {
    "recordings": ["bench*"],
    "allowed": [5],
    "precedence": [[0, 3], [3, 6]],
}
CONTENT["variants"]["repair"] = {
    "initial_state": "111",
    "expected": [8],
    "recordings": ["repair*"],
}
WARNING = "warning: "


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where commands are given, with labels of a repair."""
    monkeypatch.chdir(tmp_path)
    repair = "time,step\n30,Remove screw\n"
    refusals.write({"pump.json": json.dumps(CONTENT), "labels/repair_01.csv": repair}, tmp_path)
    return tmp_path


CHECK = ["check", "labels", "--procedure=pump.json"]


@pytest.mark.parametrize(("_", "files", "messages"), refusals.cases("label_checks.txt"))
def test_labels_warnings_are_named_with_recording_and_time(folder, capsys, _, files, messages):
    refusals.write(files, folder)
    assert labels.main(CHECK) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith(WARNING)] == [WARNING + m for m in messages]


def test_procedure_check_has_the_same_warnings_of_order_and_removals(folder, capsys):
    rows = "20,Install seal\n40,Install screw\n60,Install cover\n80,Remove screw\n"
    (folder / "labels/bench_01.csv").write_text(f"time,step\n{rows}")
    labels.main(CHECK)
    lines = capsys.readouterr().out.splitlines()
    odd = [line for line in lines if line.startswith(WARNING) and "bench_01 at" in line]
    assert len(odd) == 3
    procedure_command.main(["check", "pump.json", "--labels=labels"])
    assert capsys.readouterr().out.splitlines() == [
        *odd,
        "pump.json: no errors",
        "labels: the labels of 2 recordings can be read, with warnings",
    ]
