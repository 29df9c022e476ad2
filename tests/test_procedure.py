"""The procedure command."""

import json

import pytest

from stormpsr_jax import procedure as command
from stormpsr_jax.psr.procedure import Procedure, load_procedure

LABELS = "00001.jpg,0,Install base\n"


@pytest.fixture
def written(tmp_path, capsys):
    path = tmp_path / "shelf.json"
    command.main(["template", "--name=shelf", "--components=base, back,left side", f"--out={path}"])
    return path


def test_template_property_has_no_mistakes_and_no_doubts(written, capsys):
    assert command.check(str(written)) == ([], [])
    procedure = load_procedure(written)
    assert procedure.components == ("base", "back", "left side")
    assert procedure.variants["assembly"].precedence == ((0, 3), (3, 6))
    command.main(["template", "--name=shelf", "--components=base, back,left side"])
    assert json.loads(capsys.readouterr().out) == procedure.to_json()
    assert "[0, 3, 6]" in written.read_text()


@pytest.mark.parametrize("name", ["meccano", "industreal"])
def test_check_property_packaged_procedures_raise_no_doubt(name, capsys):
    assert command.check(name) == ([], [])
    command.main(["check", name])
    assert "no mistakes" in capsys.readouterr().out


def test_check_names_every_mistake_in_a_line_of_its_own(written, capsys):
    data = json.loads(written.read_text())
    data["states"][1] = data["states"][0]
    data["variants"]["assembly"]["expected"][0] = 99
    written.write_text(json.dumps(data))
    with pytest.raises(SystemExit) as error:
        command.main(["check", str(written)])
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "shelf.json: states[1]: '100' is also states[0]" in lines[0]
    assert "shelf.json: variants.assembly.expected[0]: 99" in lines[1]


def test_check_doubts_steps_that_cannot_complete(written):
    data = json.loads(written.read_text())
    data["variants"]["assembly"]["initial_state"] = "100"
    data["variants"]["assembly"]["precedence"] = [[0, 5]]
    written.write_text(json.dumps(data))
    mistakes, doubts = command.check(str(written))
    assert mistakes == []
    assert len(doubts) == 2
    assert "step 0 (Install base) can never complete" in doubts[0]
    assert "step 5 (Remove back) is not expected" in doubts[1]
    data["variants"]["assembly"]["expected"] += [2, 5]
    written.write_text(json.dumps(data))
    assert command.check(str(written)) == ([], [])


def test_check_against_labels_names_recording_and_place(written, tmp_path):
    data = json.loads(written.read_text())
    data["variants"]["assembly"]["recordings"] = ["a*", "b"]
    data["variants"]["again"] = {**data["variants"]["assembly"], "recordings": ["b"]}
    written.write_text(json.dumps(data))
    for name in ("a1", "a2", "b", "c"):
        (tmp_path / "labels" / name).mkdir(parents=True)
        (tmp_path / "labels" / name / "PSR_labels.csv").write_text(LABELS)
    (tmp_path / "labels" / "a1" / "PSR_labels_raw.csv").write_text("00000.jpg,0,1,0\n")
    (tmp_path / "labels" / "a2" / "PSR_labels.csv").write_text("00001.jpg,9,Install x\n")
    mistakes, _ = command.check(str(written), str(tmp_path / "labels"))
    assert len(mistakes) == 4
    assert "a1/PSR_labels_raw.csv: line 1: the first state" in mistakes[0]
    assert "a2/PSR_labels.csv: line 1: step id: '9'" in mistakes[1]
    assert "several variants match recording 'b'" in mistakes[2]
    assert "no variant matches recording 'c'" in mistakes[3]


def test_show_property_names_every_step_state_and_variant(capsys):
    command.main(["show", "industreal"])
    shown = capsys.readouterr().out
    procedure: Procedure = load_procedure("industreal")
    for name in procedure.components:
        assert name in shown
    for state in procedure.to_json()["states"]:
        assert state in shown
    assert "Remove rear wheel assy" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nothing"], "'nothing' is neither a file nor a packaged procedure"),
        (["template", "--name=x", "--components=a,a"], "components[1]"),
        (["template", "--name=x", "--components=a", "--fps=0"], "fps"),
        (["check"], "procedure"),
        (["grow"], "grow"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        command.main(arguments)
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_template_error_keeps_an_existing_file(written, capsys):
    before = written.read_text()
    with pytest.raises(SystemExit):
        command.main(["template", "--name=x", "--components=a", f"--out={written}"])
    assert "File exists" in capsys.readouterr().err
    assert written.read_text() == before
