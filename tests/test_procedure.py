import json
import re

import pytest

from stormpsr_jax import procedure as command
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from tests.support import toy
from tests.support.commands import refused

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


def test_show_allowed_steps(capsys):
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
UP = ("variants", "up")
ERRORS = [  # where, or the whole file
    (b"{", None, "line 1: not JSON"),
    (b"[]", None, "a procedure is an object"),
    (b'{"name": "a", "name": "b"}', None, "key 'name' is given twice in one object"),
    (b'{"fps": NaN}', None, "NaN is not a number"),
    (b"\xff\xfe", None, "line 1: not UTF-8"),
    (b"[" * 100000, None, "not JSON that can be read (nested too deeply)"),
    (("name",), None, "name: is missing"),
    (("fps",), 1e6, "fps: 1000000.0 is not in 1e-06…1000"),
    (("fps",), True, "fps: True"),
    (("colour",), "red", "colour: unknown key"),
    (("\x1b[2J" + 9000 * "k",), 1, r"\x1b[2Jkkk"),
    (("components",), [], "components: [] is not a list of names"),
    (("components", 1), "left", "components[1]: 'left' is also components[0]"),
    (("components", 1), 7, "components[1]: 7"),
    (("states",), [], "states: []"),
    (("states", 1), "100", "states[1]: '100' is also states[0]"),
    (("states", 1), "1100", "states[1]: '1100' has length 4, there are 3 components"),
    (("states", 1), "1x0", "states[1]: '1x0'"),
    (("variants",), {}, "variants: "),
    (UP, [], "variants.up: "),
    ((*UP, "color"), 1, "variants.up.color: unknown key"),
    ((*UP, "recordings"), None, "variants.up.recordings: is missing"),
    ((*UP, "recordings"), "up", "variants.up.recordings: 'up'"),
    ((*UP, "initial_state"), "0", "variants.up.initial_state: '0' has length 1"),
    ((*UP, "expected"), 3, "variants.up.expected: 3"),
    ((*UP, "expected", 1), 9, "variants.up.expected[1]: 9 is not a step id in 0…8"),
    ((*UP, "expected", 1), 4, "variants.up.expected[1]: 4 is an incorrect"),
    ((*UP, "expected", 1), 0, "variants.up.expected[1]: 0 is also expected[0]"),
    ((*UP, "expected", 1), "3", "variants.up.expected[1]: '3'"),
    ((*UP, "allowed"), {}, "variants.up.allowed: {} is not a list of step ids"),
    ((*UP, "allowed"), [2, 2], "variants.up.allowed[1]: 2 is also allowed[0]"),
    ((*UP, "precedence"), 3, "variants.up.precedence: 3"),
    ((*UP, "precedence", 0), [0], "variants.up.precedence[0]: [0]"),
    ((*UP, "precedence", 0), [0, 9], "variants.up.precedence[0]: 9"),
    ((*UP, "precedence"), [[8, 2], [0, 3], [3, 6], [6, 0]], "the rules form a cycle 3 → 6 → 0 → 3"),
    *(
        (place, name, f"{where}: '")
        for name in ("", " left", "a\rb", "a\x1b[2Jb", "a\ud800b", "a\u2028b", 20_000 * "x")
        for place, where in ((("name",), "name"), (("components", 1), "components[1]"))
    ),
]


def changed(place, value):
    """GOOD with this value there; None removes what is there."""
    data = target = json.loads(json.dumps(GOOD))
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    if value is None:
        del target[place[-1]]
    return json.dumps(data).encode()


@pytest.mark.parametrize(("place", "value", "message"), ERRORS)
def test_check_names_an_error_with_its_place(tmp_path, capsys, place, value, message):
    content = place if isinstance(place, bytes) else changed(place, value)
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
