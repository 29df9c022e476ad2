"""`data_prep.labels check`: what is in labels, warnings, what is too few."""

import json

import pytest

from data_prep import labels
from stormpsr_jax import procedure as procedure_command
from tests.support import toy
from tests.support.commands import refused

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


@pytest.fixture
def said(tmp_path, capsys):
    """Checks labels {recording: rows}; returns the warnings and all that is printed."""
    (tmp_path / "pump.json").write_text(json.dumps(CONTENT))
    (tmp_path / "labels").mkdir()

    def check(recordings, *flags):
        for name, rows in recordings.items():
            (tmp_path / "labels" / f"{name}.csv").write_text("time,step\n" + rows)
        words = ["check", f"{tmp_path}/labels", f"--procedure={tmp_path}/pump.json", *flags]
        assert labels.main(words) == 0
        out = capsys.readouterr().out
        warnings = [line[9:] for line in out.splitlines() if line.startswith("warning: ")]
        return warnings, out

    check.folder = tmp_path
    return check


GOOD = "20,Install seal\n40,Install cover\n60,Install screw\n"
REPAIR = "30,Remove screw\n"


WARNINGS = {
    "an order against the precedence": (
        "20,Install seal\n40,Install screw\n60,Install cover\n",
        [
            "Install cover is missing before Install screw, which it precedes: bench_01 at 0:40.0",
            "state 101 (seal, screw on) is not in the procedure's states: bench_01 at 0:40.0",
        ],
    ),
    "a removal that is not allowed": (
        GOOD + "80,Remove screw\n100,Install screw\n120,Remove screw\n",
        [
            "Remove screw is neither expected nor allowed in variant assembly: bench_01 at 1:20.0, "
            "bench_01 at 2:00.0"
        ],
    ),
    "a removal that is allowed is none": (
        "20,Install seal\n40,Install cover\n60,Remove cover\n80,Install cover\n100,6\n",
        [],
    ),
    "a part in place from the first frame on is missing nowhere": (
        "0,Install seal\n40,Install cover\n60,Install screw\n",
        [],
    ),
    "times in milliseconds": (
        "20000,Install seal\n40000,Install cover\n60000,Install screw\n",
        [
            "the last step is more than 2 hours after the first picture, as with times in "
            "milliseconds, or m:ss that a spreadsheet took for h:mm: bench_01 at 1000:00.0"
        ],
    ),
    "a pause within a clip": (
        "20,Install seal\n40,Install cover\n45,Remove cover\n80,Install cover\n100,6\n",
        ["cover changes twice within the 64 frames of a clip: bench_01 at 0:45.0"],
    ),
}


@pytest.mark.parametrize("what", WARNINGS)
def test_labels_warnings_are_named_with_recording_and_time(said, what):
    rows, expected = WARNINGS[what]
    warnings, _ = said({"bench_01": rows, "repair_01": REPAIR})
    assert [line for line in warnings if "bench_01" in line] == expected


def test_labels_say_what_no_recording_shows_and_of_what_there_are_few(said):
    warnings, _ = said(
        {"bench_01": "20,Install seal\n40,Install cover\n", "bench_02": "20,0\n40,3\n"}
    )
    assert warnings == [
        "variant repair has no recording",
        "expected, but in no recording: Install screw",
        "2 recordings; our measurements suggest 6",
        "few incorrect installations of seal 0, cover 0, screw 0; our measurements suggest 2 or "
        "more of each part: film rehearsals",
    ]


def test_a_file_with_a_header_alone_is_named(said):
    warnings, _ = said({"bench_01": GOOD, "bench_02": ""})
    assert warnings[0] == (
        f"{said.folder}/labels/bench_02.csv: no step is labelled, as if nothing happened in the "
        "recording; label it, or take it out"
    )


def test_labels_with_errors_are_refused(said, capsys):
    (said.folder / "labels/bench_01.csv").write_text("time,step\n20,Install lid\n")
    words = ["check", f"{said.folder}/labels", f"--procedure={said.folder}/pump.json"]
    assert "bench_01.csv: line 2: step:" in refused(capsys, labels.main, words)


def test_procedure_check_has_the_same_warnings_of_order_and_removals(said, capsys):
    rows = "20,Install seal\n40,Install screw\n60,Install cover\n80,Remove screw\n"
    warnings, _ = said({"bench_01": rows})
    path = f"{said.folder}/pump.json"
    procedure_command.main(["check", path, f"--labels={said.folder}/labels"])
    out = capsys.readouterr().out
    for text in ("is missing before Install screw", "Remove screw is neither", "state 101"):
        (line,) = [line for line in warnings if text in line]
        assert f"warning: {line}" in out
    assert "the labels of 1 recording can be read, with warnings" in out
    (said.folder / "labels/bench_01.csv").write_text(f"time,step\n{GOOD}")
    procedure_command.main(["check", path, f"--labels={said.folder}/labels"])
    assert capsys.readouterr().out.endswith("the labels of 1 recording fit\n")
