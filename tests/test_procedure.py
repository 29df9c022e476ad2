import json
import re

import pytest

from stormpsr_jax import procedure as command
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from tests.support import refusals, toy
from tests.support.processes import refused

LABELS = "00001.jpg,0,Install base\n"


@pytest.fixture
def written(tmp_path, capsys):
    path = tmp_path / "shelf.json"
    command.main(["template", "--name=shelf", "--components=base, back,left side", f"--out={path}"])
    return path


def checked(capsys, path):
    command.main(["check", str(path)])
    *warnings, last = capsys.readouterr().out.splitlines()
    assert last == f"{path}: no errors"
    return warnings


def test_template_has_no_errors_and_no_warnings(written, capsys):
    assert checked(capsys, written) == []
    procedure = load_procedure(written)
    assert procedure.components == ("base", "back", "left side")
    assert procedure.variants["assembly"].precedence == ((0, 3), (3, 6))
    command.main(["template", "--name=shelf", "--components=base, back,left side"])
    assert json.loads(capsys.readouterr().out) == procedure.to_json()
    assert "[0, 3, 6]" in written.read_text()


def test_show_names_every_step_state_and_variant(capsys):
    command.main(["show", "industreal"])
    shown = capsys.readouterr().out
    procedure = load_procedure("industreal")
    names = (*procedure.components, *procedure.to_json()["states"], "Remove rear wheel assy")
    assert [name for name in names if name not in shown] == []
    command.main(["template", "--name=shelf", "--components=base,back"])
    data = json.loads(capsys.readouterr().out)
    assert "allows every part to come off" in command.show(Procedure.from_json(data))
    data["variants"]["assembly"]["allowed"] = [5, 3]
    shown = command.show(Procedure.from_json(data))
    assert "  allows    5  Remove back" in shown
    assert "Remove base" not in shown
    data["variants"]["assembly"]["allowed"] = []
    assert "allows" not in command.show(Procedure.from_json(data))


@pytest.mark.parametrize("name", ["meccano", "industreal"])
def test_check_packaged_procedures_raise_no_warning(name, capsys):
    assert checked(capsys, name) == []


GOOD = toy.content("left, right, lid", variant="up")
GOOD["variants"]["up"] |= {"recordings": ["up_*"], "precedence": [[0, 6], [3, 6]]}
ODD = [
    (b"\xff\xfe", "line 1: not UTF-8"),
    (b"[" * 100000, "not JSON that can be read (nested too deeply)"),
]
LONG_KEY = "\x1b[2J" + 9000 * "k"
ODD_NAMES = ("a\rb", "a\x1b[2Jb", "a\ud800b", "a\u2028b", 20_000 * "x")


def changed(place, value):
    """GOOD with this value there; None removes what is there."""
    data = target = json.loads(json.dumps(GOOD))
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    if value is None:
        del target[place[-1]]
    return json.dumps(data).encode()


def of_place(words):
    """What a case of the snapshot has there, such as `variants/up/expected/1 9`."""
    place, value = words.split(" ", 1)
    keys = [int(key) if key.isdigit() else key for key in place.split("/")]
    return changed(keys, json.loads(value))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(
            pytest.param(of_place(words) if words else files["toy.json"].encode(), *messages)
            for words, files, messages in (case.values for case in refusals.cases("procedure.txt"))
        ),
        *ODD,
        (changed([LONG_KEY], 1), r"\x1b[2Jkkk"),
        *((changed(["name"], name), "name: '") for name in ODD_NAMES),
        *((changed(["components", 1], name), "components[1]: '") for name in ODD_NAMES),
    ],
)
def test_check_names_an_error_with_its_place(tmp_path, capsys, content, message):
    (tmp_path / "toy.json").write_bytes(content)
    said = refused(capsys, command.main, ["check", str(tmp_path / "toy.json")])
    assert re.search(rf"toy\.json: (variants\.up\.precedence: )?{re.escape(message)}", said), said
    assert said.isprintable()
    assert len(said) < 400


def test_check_names_every_error_in_a_line_of_its_own(written, capsys):
    data = json.loads(written.read_text())
    data["states"][1] = data["states"][0]
    data["variants"]["assembly"]["expected"][0] = 99
    written.write_text(json.dumps(data))
    lines = refused(capsys, command.main, ["check", str(written)], lines=2).splitlines()
    assert "shelf.json: states[1]: '100' is also states[0]" in lines[0]
    assert "shelf.json: variants.assembly.expected[0]: 99" in lines[1]
    written.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())  # with a byte order mark
    command.main(["check", str(written)])


def test_check_warnings_steps_that_cannot_complete(written, capsys):
    data = json.loads(written.read_text())
    variant = data["variants"]["assembly"]
    for given, said in (
        (
            {"initial_state": "100", "precedence": [[0, 5]]},
            [
                "expected: step 0 (Install base) can never",
                "[0, 5]: step 5 (Remove back) is not exp",
            ],
        ),
        ({"initial_state": "100", "precedence": [[0, 5]], "expected": [0, 2, 3, 5, 6]}, []),
        (
            {"expected": [0, 3], "allowed": [5, 8], "precedence": []},
            ["assembly.allowed: step 8 (Remove left side) can never complete"],
        ),
        ({"expected": [0, 3], "allowed": [5, 8, 6], "precedence": []}, []),
    ):
        data["variants"]["assembly"] = variant | given
        written.write_text(json.dumps(data))
        warnings = checked(capsys, written)
        assert len(warnings) == len(said)
        assert all(text in warning for text, warning in zip(said, warnings, strict=True))


def test_check_against_labels_names_recording_and_place(written, tmp_path, capsys):
    data = json.loads(written.read_text())
    data["variants"]["assembly"]["recordings"] = ["a*", "b"]
    data["variants"]["again"] = {**data["variants"]["assembly"], "recordings": ["b"]}
    written.write_text(json.dumps(data))
    for name in ("a1", "a2", "b", "c"):
        (tmp_path / "labels" / name).mkdir(parents=True)
        (tmp_path / "labels" / name / "PSR_labels.csv").write_text(LABELS)
    (tmp_path / "labels" / "a1" / "PSR_labels_raw.csv").write_text("00000.jpg,0,1,0\n")
    (tmp_path / "labels" / "a2" / "PSR_labels.csv").write_text("00001.jpg,9,Install x\n")
    words = ["check", str(written), f"--labels={tmp_path / 'labels'}"]
    lines = refused(capsys, command.main, words, lines=4).splitlines()
    assert "a1/PSR_labels_raw.csv: line 1: the first state" in lines[0]
    assert "a2/PSR_labels.csv: line 1: step id: '9'" in lines[1]
    assert "several variants match recording 'b'" in lines[2]
    assert "no variant matches recording 'c'" in lines[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nothing"], "'nothing' is neither a file nor a packaged procedure"),
        (["template", "--name=x", "--components=a,a"], "components[1]"),
        (["template", "--name=x", "--components=a", "--fps=0"], "fps"),
        (
            ["template", "--name=x", "--components=a", "--out=there"],
            "--out=there: is there already; give",
        ),
        (["check"], "procedure"),
        (["grow"], "grow"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    assert message in refused(capsys, command.main, arguments)
