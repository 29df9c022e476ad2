"""Labels of every kind are found and read; what is wrong with any of them is said."""

import pytest

from stormpsr_jax.recordings import find, labels
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import PSR_FILES, STATES, steps_to_states
from tests.support import toy

PROCEDURE = toy.procedure("base, cap", "10 11", fps=10, variant="up")
UP = PROCEDURE.variants["up"]
STEPS = [(12, 0), (30, 3)]
TIMES = "time,step\n1.2,0\n0:03,Install cap\n"


def write_psr(folder, names=PSR_FILES):
    folder.mkdir(parents=True)
    frames, states = steps_to_states(STEPS, (0, 0), 0)
    for name in names:
        if name == STATES:
            labels.write_states(folder / name, frames, states)
        else:
            labels.write_steps(folder / name, STEPS, PROCEDURE)


def test_find_every_kind_and_place(tmp_path):
    write_psr(tmp_path / "a")
    write_psr(tmp_path / "train" / "b")
    (tmp_path / "c").mkdir()
    for place in ("c/times.csv", "train/d.csv", "e.CSV"):
        (tmp_path / place).write_text(TIMES)
    for other in ("splits.csv", "README.md", ".hidden.csv"):
        (tmp_path / other).write_text("x")
    found = find.find(tmp_path)
    places = {name: str(at.path.relative_to(tmp_path)) for name, at in found.items()}
    assert places == {
        "a": "a",
        "b": "train/b",
        "c": "c/times.csv",
        "d": "train/d.csv",
        "e": "e.CSV",
    }
    for path in found.values():
        read = path.read(PROCEDURE, UP)
        assert read.steps == STEPS
        assert read.frames.tolist() == [0, 12, 30]
        assert read.states.tolist() == [[0, 0], [1, 0], [1, 1]]


def test_what_may_be_labels_and_is_not_read_is_told(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(TIMES)
    for name in ("README.md", "boxes/a.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert list(find.find(tmp_path)) == ["a"]
    assert not capsys.readouterr().err
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "c_annotations.zip").write_bytes(b"PK")
    assert list(find.find(tmp_path)) == ["a"]
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {tmp_path}/b.json and 1 more files are of no label format")
    (tmp_path / "a.csv").unlink()
    with pytest.raises(
        ValueError, match=r"b\.json: is of no .*\n.*c_anno.*: archives are not read"
    ):
        find.find(tmp_path)


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
        read = LabelPlace(path).read(PROCEDURE, UP)
        assert (read.steps, read.states.tolist()) == (steps, states)


def test_read_steps_follow_from_states_where_no_file_has_them(tmp_path):
    write_psr(tmp_path / "a", [STATES])
    (tmp_path / "a" / STATES).write_text("0.jpg,0,0\n5.jpg,-1,0\n9.jpg,1,0\n")
    read = LabelPlace(tmp_path / "a").read(PROCEDURE, UP)
    assert read.steps == [(9, 0)]
    assert read.with_errors == [(5, 1), (9, 0)]
