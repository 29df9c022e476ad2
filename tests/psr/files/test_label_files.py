"""Labels of every kind are found and read; what is wrong with any of them is said."""

import numpy as np
import pytest

from stormpsr_jax.psr.files import label_files, labels
from stormpsr_jax.psr.files.recordings import load_recordings
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
    places = {name: str(at.path.relative_to(tmp_path)) for name, at in found.items()}
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


def test_what_may_be_labels_and_is_not_read_is_told(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(TIMES)
    for name in ("README.txt", "notes.md", "boxes/a.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert list(label_files.find(tmp_path)) == ["a"]
    assert not capsys.readouterr().err
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "c_annotations.zip").write_bytes(b"PK")
    assert list(label_files.find(tmp_path)) == ["a"]
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {tmp_path}/b.json and 1 more files are of no label format")
    (tmp_path / "a.csv").unlink()
    with pytest.raises(
        ValueError, match=r"b\.json: is of no .*\n.*c_anno.*: archives are not read"
    ):
        label_files.find(tmp_path)


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


def test_read_steps_follow_from_states_where_no_file_has_them(tmp_path):
    write_psr(tmp_path / "a", [label_files.STATES])
    (tmp_path / "a" / label_files.STATES).write_text("0.jpg,0,0\n5.jpg,-1,0\n9.jpg,1,0\n")
    read = label_files.read(tmp_path / "a", PROCEDURE, UP)
    assert read.steps == [(9, 0)]
    assert read.with_errors == [(5, 1), (9, 0)]


def test_read_frames_of_times_follow_the_rate(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(TIMES)
    assert label_files.read(path, PROCEDURE.at(25), UP).steps == [(30, 0), (75, 3)]


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
        PROCEDURE.at(0)


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
    assert lines[6].endswith("asd/a_results_pred.csv: 10 more errors")
    assert "b.csv: line 2: time" in lines[7]
    assert lines[-1] == "and 1 more error"
    for name in "bc":
        (tmp_path / "asd" / f"{name}_results_pred.csv").unlink()
    with pytest.raises(ValueError, match=r"no b_results.*\n.*no c_results"):
        load_recordings(PROCEDURE, tmp_path / "labels", tmp_path / "asd")
