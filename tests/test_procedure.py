"""The procedure command."""

import json
import time

import pytest

from stormpsr_jax import procedure as command
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.psr.procedure_check import find_mistakes
from tests.support.commands import refused

LABELS = "00001.jpg,0,Install base\n"


@pytest.fixture
def written(tmp_path, capsys):
    path = tmp_path / "shelf.json"
    command.main(["template", "--name=shelf", "--components=base, back,left side", f"--out={path}"])
    return path


def test_template_has_no_mistakes_and_no_doubts(written, capsys):
    assert command.check(str(written)) == command.Findings([], [])
    procedure = load_procedure(written)
    assert procedure.components == ("base", "back", "left side")
    assert procedure.variants["assembly"].precedence == ((0, 3), (3, 6))
    command.main(["template", "--name=shelf", "--components=base, back,left side"])
    assert json.loads(capsys.readouterr().out) == procedure.to_json()
    assert "[0, 3, 6]" in written.read_text()


def test_template_names_stay_as_they_are(tmp_path):
    path = tmp_path / "x.json"
    name, components = "pump [1 2]", ['bolt "[ 3 ]', "[4 5]"]
    words = ["template", f"--name={name}", f"--components={','.join(components)}", f"--out={path}"]
    command.main(words)
    procedure = load_procedure(path)
    assert (procedure.name, [*procedure.components]) == (name, components)
    assert '"expected": [0, 3]' in path.read_text()


def test_template_and_show_allowed_steps(capsys):
    arguments = ["template", "--name=shelf", "--components=base,back"]
    command.main([*arguments, "--allowed=5,3"])
    data = json.loads(capsys.readouterr().out)
    assert data["variants"]["assembly"]["allowed"] == [3, 5]
    shown = command.show(Procedure.from_json(data))
    assert "  allows    5  Remove back" in shown
    assert "Remove base" not in shown
    command.main([*arguments, "--allowed="])
    data = json.loads(capsys.readouterr().out)
    assert data["variants"]["assembly"]["allowed"] == []
    assert "allows" not in command.show(Procedure.from_json(data))
    command.main(arguments)
    data = json.loads(capsys.readouterr().out)
    assert "allows every part to come off" in command.show(Procedure.from_json(data))


def test_show_and_check_write_out_what_turns_the_direction_of_writing(written, capsys):
    data = json.loads(written.read_text())
    data["components"][1] = "ba\u200bck"
    data["variants"]["as\u200bsembly"] = data["variants"].pop("assembly") | {"precedence": [[0, 5]]}
    written.write_text(json.dumps(data))
    for action in ("show", "check"):
        command.main([action, str(written)])
        said = capsys.readouterr().out
        assert r"ba\u200bck" in said
        assert r"as\u200bsembly" in said
        assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["meccano", "industreal"])
def test_check_packaged_procedures_raise_no_doubt(name, capsys):
    assert command.check(name) == command.Findings([], [])
    command.main(["check", name])
    assert "no mistakes" in capsys.readouterr().out


def test_check_names_every_mistake_in_a_line_of_its_own(written, capsys):
    data = json.loads(written.read_text())
    data["states"][1] = data["states"][0]
    data["variants"]["assembly"]["expected"][0] = 99
    written.write_text(json.dumps(data))
    lines = refused(capsys, command.main, ["check", str(written)], lines=None).splitlines()
    assert len(lines) == 2
    assert "shelf.json: states[1]: '100' is also states[0]" in lines[0]
    assert "shelf.json: variants.assembly.expected[0]: 99" in lines[1]


def test_check_doubts_steps_that_cannot_complete(written):
    data = json.loads(written.read_text())
    data["variants"]["assembly"]["initial_state"] = "100"
    data["variants"]["assembly"]["precedence"] = [[0, 5]]
    written.write_text(json.dumps(data))
    findings = command.check(str(written))
    assert findings.mistakes == []
    assert len(findings.doubts) == 2
    assert "step 0 (Install base) can never complete" in findings.doubts[0]
    assert "step 5 (Remove back) is not expected" in findings.doubts[1]
    data["variants"]["assembly"]["expected"] += [2, 5]
    written.write_text(json.dumps(data))
    assert command.check(str(written)) == command.Findings([], [])


def test_check_doubts_allowed_steps_that_cannot_complete(written):
    data = json.loads(written.read_text())
    data["variants"]["assembly"] |= {"expected": [0, 3], "allowed": [5, 8], "precedence": []}
    written.write_text(json.dumps(data))
    (doubt,) = command.check(str(written)).doubts
    assert "variants.assembly.allowed: step 8 (Remove left side) can never complete" in doubt
    data["variants"]["assembly"]["allowed"] = [5, 8, 6]
    written.write_text(json.dumps(data))
    assert command.check(str(written)) == command.Findings([], [])


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
    findings = command.check(str(written), str(tmp_path / "labels"))
    mistakes = findings.mistakes
    assert (len(mistakes), findings.num_recordings) == (4, 4)
    assert "a1/PSR_labels_raw.csv: line 1: the first state" in mistakes[0]
    assert "a2/PSR_labels.csv: line 1: step id: '9'" in mistakes[1]
    assert "several variants match recording 'b'" in mistakes[2]
    assert "no variant matches recording 'c'" in mistakes[3]


def test_check_takes_the_variant_that_its_message_advises(written, tmp_path, capsys):
    (tmp_path / "labels" / "other").mkdir(parents=True)
    (tmp_path / "labels" / "other" / "PSR_labels.csv").write_text(LABELS)
    data = json.loads(written.read_text())
    data["variants"]["assembly"]["recordings"] = ["a*"]
    written.write_text(json.dumps(data))
    words = ["check", str(written), f"--labels={tmp_path / 'labels'}"]
    with pytest.raises(SystemExit):
        command.main(words)
    assert "pass --variant" in capsys.readouterr().err
    command.main([*words, "--variant=assembly"])
    assert "the labels of 1 recording fit" in capsys.readouterr().out
    for wrong, says in (
        ([*words, "--variant=x"], "variant 'x' is not in procedure 'shelf'"),
        ([*words[:2], "--variant=assembly"], "--variant is of the recordings of --labels"),
    ):
        with pytest.raises(SystemExit) as error:
            command.main(wrong)
        assert error.value.code == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1


def test_check_doubts_steps_of_labels_that_give_no_states(written, tmp_path, capsys):
    (tmp_path / "labels" / "a").mkdir(parents=True)
    path = tmp_path / "labels" / "a" / "PSR_labels.csv"
    path.write_text("00010.jpg,3,Install back\n00020.jpg,0,Install base\n")
    command.main(["check", str(written), f"--labels={tmp_path / 'labels'}"])
    said = capsys.readouterr().out
    assert "Install base is missing before Install back, which it precedes: a at 0:01.0" in said
    assert "the labels of 1 recording can be read, with doubts" in said


def test_check_errors_labels_of_every_kind_are_read(written, tmp_path, capsys):
    """Below train, val and test, as files of times or intervals, and in folders of PSR files."""
    root = tmp_path / "labels"
    for folder in ("train/a", "val", "test/b"):
        (root / folder).mkdir(parents=True)
    (root / "train" / "a" / "PSR_labels.csv").write_text(LABELS)
    (root / "val" / "c.csv").write_text("time,step\n1:05,Install base\n70,3\n")
    (root / "test" / "b" / "by hand.csv").write_text("start,end,step\n2,4,0\n")
    (root / "d.csv").write_text("time,step\n4,0\n")
    command.main(["check", str(written), f"--labels={root}"])
    assert "the labels of 4 recordings fit" in capsys.readouterr().out
    (root / "d.csv").write_text("time,step\n0,0\n")
    (mistake,) = command.check(str(written), str(root)).mistakes
    assert mistake.startswith(f"{root / 'd.csv'}: the first state is not the initial state")
    (root / "val" / "c.csv").write_text("time,step\n1:65,Install base\n70,5\n3,Instal base\n")
    (root / "test" / "b" / "by hand.csv").write_text("start,end,step\n2,4,2\n")
    (root / "d.csv").write_text("when,what\n4,0\n")
    (root / "train" / "a" / "PSR_labels.csv").write_text("00001.jpg,99,Install base\n")
    lines = refused(
        capsys, command.main, ["check", str(written), f"--labels={root}"], lines=None
    ).splitlines()
    assert len(lines) == 5
    for line, words in zip(
        lines,
        (
            "a/PSR_labels.csv: line 1: step id: '99' is not in 0…8",
            "b/by hand.csv: line 2: step: 2 (Remove base) changes nothing",
            "val/c.csv: line 2: time: '1:65' is not a time",
            "val/c.csv: line 4: step: 'Instal base' is no step",
            "d.csv: line 1: header: 'when,what'",
        ),
        strict=True,
    ):
        assert words in line


def test_check_errors_no_labels(written, tmp_path, capsys):
    root = tmp_path / "labels"
    (root / "train").mkdir(parents=True)
    for words in ("labels: no labels; --labels holds", "x: holds no labels of recording x"):
        assert words in command.check(str(written), str(root)).mistakes[0]
        (root / "x").mkdir(exist_ok=True)
    assert "is not a folder" in command.check(str(written), str(tmp_path / "no")).mistakes[0]


def test_check_is_linear_in_the_steps():
    num = 50_000
    data = command.template("long", [f"part {k}" for k in range(3)], 10)
    data["components"] = [f"part {k}" for k in range(num)]
    data["states"] = ["0" * num]
    data["variants"]["assembly"] = {
        "initial_state": "0" * num,
        "expected": [3 * k for k in range(num)],
        "recordings": ["*"],
        "precedence": [[3 * k, 3 * k + 3] for k in range(num - 1)],
    }
    start = time.process_time()
    assert find_mistakes(data) == []
    assert command._doubts(Procedure.from_json(data)) == []
    assert time.process_time() - start < 5  # a quadratic search takes minutes


def test_show_names_every_step_state_and_variant(capsys):
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
        (["template", "--name=x", "--components=a", "--allowed=x"], "'x' is not a list of step"),
        (["template", "--name=x", "--components=a", "--allowed=1"], "allowed[0]: 1 is an incorr"),
        (["check"], "procedure"),
        (["grow"], "grow"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(arguments, message, capsys):
    said = refused(capsys, command.main, arguments)
    assert message in said


def test_template_error_keeps_an_existing_file(written, capsys):
    before = written.read_text()
    assert "File exists" in refused(
        capsys, command.main, ["template", "--name=x", "--components=a", f"--out={written}"]
    )
    assert written.read_text() == before
