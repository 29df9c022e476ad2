"""Labels of every kind are found and read; what is wrong with any of them is said."""

import os

import numpy as np
import pytest

from stormpsr_jax.psr.files import label_files, labels, timed_labels
from stormpsr_jax.psr.files.recordings import load_recordings
from stormpsr_jax.psr.procedure import Procedure
from tests.support import toy

PROCEDURE = toy.procedure("base, cap", "10 11", fps=10, variant="up")
UP = PROCEDURE.variants["up"]
STEPS = [(12, 0), (30, 3)]
TIMES = "time,step\n1.2,0\n0:03,Install cap\n"


def write_psr(folder, names=label_files.PSR_FILES):
    folder.mkdir(parents=True)
    frames, states = labels.steps_to_states(STEPS, (0, 0), 0)
    for name in names:
        if name == label_files.STATES:
            labels.write_states(folder / name, frames, states)
        else:
            labels.write_steps(folder / name, STEPS, PROCEDURE)


def test_find_every_kind_and_place(tmp_path):
    write_psr(tmp_path / "a")
    write_psr(tmp_path / "train" / "b")
    write_psr(tmp_path / "test")  # a recording that is called so, as it holds PSR files
    (tmp_path / "c").mkdir()
    for place in ("c/times.csv", "train/d.csv", "e.CSV"):
        (tmp_path / place).write_text(TIMES)
    for other in ("splits.csv", "README.md", ".hidden.csv"):
        (tmp_path / other).write_text("x")
    found = label_files.find(tmp_path)
    places = {name: str(path.relative_to(tmp_path)) for name, path in found.items()}
    assert places == {
        "a": "a",
        "b": "train/b",
        "c": "c/times.csv",
        "d": "train/d.csv",
        "e": "e.CSV",
        "test": "test",
    }
    for path in found.values():
        read = label_files.read(path, PROCEDURE, UP)
        assert read.steps == STEPS
        assert read.frames.tolist() == [0, 12, 30]
        assert read.states.tolist() == [[0, 0], [1, 0], [1, 1]]


def test_read_a_step_at_the_first_frame_was_done_before_it(tmp_path):
    """It is in the first state, and no completion; without any step there is only that state."""
    path = tmp_path / "a.csv"
    for text, steps, states in (
        ("0,0\n3,3\n", [(30, 3)], [[1, 0], [1, 1]]),
        ("0,0\n0.1,2\n", [(1, 2)], [[1, 0], [0, 0]]),
        ("0,Incorrectly installed cap\n", [], [[0, -1]]),
        ("", [], [[0, 0]]),
    ):
        path.write_text("time,step\n" + text)
        read = label_files.read(path, PROCEDURE, UP)
        assert (read.steps, read.states.tolist()) == (steps, states)
    for text, message in (
        ("0,2\n", r"line 2: step: 2 \(Remove base\) changes nothing: it is absent from the start"),
        ("0,0\n0,2\n", "line 3: step: 2 .* falls into the same frame as .* since line 2"),
        ("0,0\n1,0\n", "line 3: step: 0 .* changes nothing: it is installed since line 2"),
    ):
        path.write_text("time,step\n" + text)
        with pytest.raises(ValueError, match=message):
            label_files.read(path, PROCEDURE, UP)


def test_find_errors_all_at_once(tmp_path):
    write_psr(tmp_path / "train" / "a")
    write_psr(tmp_path / "val" / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    for name in ("1.csv", "2.csv"):
        (tmp_path / "c" / name).write_text(TIMES)
    (tmp_path / "PSR_labels.csv").write_text("")
    with pytest.raises(ValueError, match="belongs into a folder") as error:
        label_files.find(tmp_path)
    said = str(error.value).splitlines()
    assert len(said) == 4
    assert "b: holds no labels of recording b" in said[1]
    assert "c: several CSV files" in said[2].replace("holds no labels of recording c", "c")
    assert "val/a: recording a has labels in" in said[3]


def test_read_steps_follow_from_states_where_no_file_has_them(tmp_path):
    write_psr(tmp_path / "a", [label_files.STATES])
    (tmp_path / "a" / label_files.STATES).write_text("0.jpg,0,0\n5.jpg,-1,0\n9.jpg,1,0\n")
    read = label_files.read(tmp_path / "a", PROCEDURE, UP)
    assert read.steps == [(9, 0)]
    assert read.with_errors == [(5, 1), (9, 0)]


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("9" * 400, "is not a time such as 75.5"),
        ("9" * 400 + ":00", "is not a time such as 75.5"),
        ("9" * 400 + ":00:00", "is not a time such as 75.5"),
        ("9" * 5000, "is not a time such as 75.5"),
        ("9" * 10, "is not a time such as 75.5"),
        ("100000001", "1e+08 s is after frame 1,000,000,000, the last there may be"),
    ],
)
def test_a_time_that_no_recording_has_is_named_with_its_line(tmp_path, time, message):
    path = tmp_path / "a.csv"
    path.write_text(f"time,step\n1.2,0\n{time},3\n")
    with pytest.raises(ValueError) as error:
        label_files.read(path, PROCEDURE, UP)
    assert str(error.value).startswith(f"{path}: line 3: time: ")
    assert message in str(error.value)
    assert len(str(error.value).replace(str(path), "")) < 150


def test_read_frames_of_times_follow_the_rate(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(TIMES)
    assert label_files.read(path, PROCEDURE, UP, fps=25).steps == [(30, 0), (75, 3)]


def test_read_errors_of_all_files(tmp_path):
    write_psr(tmp_path / "a")
    (tmp_path / "a" / label_files.STEPS).write_text("1.jpg,9,x\nx,0,x\n2.jpg,0,x\n")
    (tmp_path / "a" / label_files.STATES).write_text("0.jpg,0,0\n3.jpg,7,0\n4.jpg,0\n")
    with pytest.raises(ValueError, match="line 1: step id: '9' is not in 0…5, the steps") as error:
        label_files.read(tmp_path / "a", PROCEDURE, UP)
    places = [line.rpartition("a/")[2][:32] for line in str(error.value).splitlines()]
    assert places == [
        "PSR_labels.csv: line 1: step id:",
        "PSR_labels.csv: line 2: image: '",
        "PSR_labels_raw.csv: line 2: s_0:",
        "PSR_labels_raw.csv: line 3: s_1:",
    ]


def test_read_errors_dangling_link(tmp_path):
    write_psr(tmp_path / "a", [label_files.STEPS])
    os.symlink(tmp_path / "gone", tmp_path / "a" / label_files.STATES)
    with pytest.raises(ValueError, match=r"PSR_labels_raw\.csv: cannot be read \(No such file"):
        load_recordings(PROCEDURE, tmp_path)


def test_read_errors_other_number_of_components_names_procedure_and_file(tmp_path):
    write_psr(tmp_path / "a", [label_files.STATES])
    (tmp_path / "a" / label_files.STATES).write_text("0.jpg,0,0,0\n3.jpg,1,0,0\n")
    what = r"PSR_labels_raw\.csv: has states of 3 components, procedure 'toy' has 2; give --proc"
    with pytest.raises(ValueError, match=what):
        load_recordings(PROCEDURE, tmp_path)


def test_load_recordings_times_and_folders_mixed(tmp_path):
    write_psr(tmp_path / "labels" / "a")
    (tmp_path / "labels" / "b.csv").write_text(TIMES)
    (tmp_path / "asd").mkdir()
    for name in "ab":
        path = tmp_path / "asd" / f"{name}_results_pred.csv"
        path.write_text("name,frame,class,conf,x,y,w,h\n")
    read = load_recordings(PROCEDURE, tmp_path / "labels", tmp_path / "asd")
    assert [r.truth for r in read.values()] == [STEPS, STEPS]
    np.testing.assert_array_equal(read["a"].states, read["b"].states)
    with pytest.raises(ValueError, match="--fps=0 is not in 1e-06…1000"):
        load_recordings(PROCEDURE, tmp_path / "labels", tmp_path / "asd", fps=0)


def test_load_recordings_errors_of_all_recordings(tmp_path):
    for folder in ("labels", "asd"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        (tmp_path / "labels" / f"{name}.csv").write_text(TIMES.replace("1.2", "x"))
        path = tmp_path / "asd" / f"{name}_results_pred.csv"
        path.write_text("name,frame,class,conf,x,y,w,h\n" + "r,1,1,2,0,0,1,1\n" * 15)
    with pytest.raises(ValueError, match=r"a\.csv: line 2: time") as error:
        load_recordings(PROCEDURE, tmp_path / "labels", tmp_path / "asd")
    lines = str(error.value).splitlines()
    assert len(lines) == 21  # of each recording one of the labels, and six of the predictions
    assert lines[6].endswith("asd/a_results_pred.csv: 10 more mistakes")
    assert "b.csv: line 2: time" in lines[7]
    assert lines[-1] == "and 1 more mistake"
    for name in "bc":
        (tmp_path / "asd" / f"{name}_results_pred.csv").unlink()
    with pytest.raises(ValueError, match=r"no b_results.*\n.*no c_results"):
        load_recordings(PROCEDURE, tmp_path / "labels", tmp_path / "asd")


@pytest.mark.parametrize("name", ["a\rb", "\x1b[2J", " a", "a ", "x" * 201])
def test_find_refuses_the_name_of_a_recording_that_cannot_be_read_back(tmp_path, name):
    (tmp_path / f"{name}.csv").write_text("time,step\n1,Install left\n")
    with pytest.raises(
        ValueError, match=r"has (control|white space|201 bytes).*; rename it$"
    ) as error:
        label_files.find(tmp_path)
    assert str(error.value).isprintable()


def test_names_of_steps_are_put_together_once(tmp_path, monkeypatch):
    asked = 0

    def step_name(procedure, step_id):
        nonlocal asked
        asked += 1
        return f"step {step_id}"

    monkeypatch.setattr(Procedure, "step_name", step_name)
    (tmp_path / "a.csv").write_text("time,step\n" + "".join(f"{i},step 0\n" for i in range(100)))
    assert len(timed_labels.read_times(tmp_path / "a.csv", PROCEDURE)) == 100
    assert asked == 6


def test_names_like_a_wrong_one_are_looked_for_among_few(tmp_path):
    (tmp_path / "a.csv").write_text("time,step\n1,Instal cap\n")
    with pytest.raises(ValueError, match="near it are 'Install cap'"):
        timed_labels.read_times(tmp_path / "a.csv", PROCEDURE)
    names = [f"cap {i}" for i in range(100)]
    data = {**PROCEDURE.to_json(), "components": names, "states": ["1" * 100]}
    data["variants"] = {"up": {"initial_state": "0" * 100, "expected": [], "recordings": ["*"]}}
    with pytest.raises(ValueError, match=r"is no step of procedure 'toy' \(python"):
        timed_labels.read_times(tmp_path / "a.csv", Procedure.from_json(data))
