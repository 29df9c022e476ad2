"""Procedure files: the packaged ones, classes of states, every mistake with its place."""

import copy
import json
import pickle
import re

import numpy as np
import pytest

from stormpsr_jax.psr.procedure import PACKAGED, Procedure, load_procedure
from stormpsr_jax.psr.procedure_check import find_mistakes

GOOD = {
    "name": "toy",
    "fps": 5,
    "components": ["left", "right", "lid"],
    "states": ["100", "110", "111"],
    "variants": {
        "up": {
            "initial_state": "000",
            "expected": [0, 3, 6],
            "recordings": ["up_*", "any"],
            "precedence": [[0, 6], [3, 6]],
        },
        "down": {"initial_state": "111", "expected": [8, 5, 2], "recordings": ["down_*", "any"]},
    },
}


def changed(place, value):
    data = copy.deepcopy(GOOD)
    target = data
    for key in place[:-1]:
        target = target[key]
    if value is None:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return data


@pytest.mark.parametrize("name", sorted(p.stem for p in PACKAGED.glob("*.json")))
def test_packaged_procedures_round_trip(name):
    procedure = load_procedure(name)
    assert procedure.name == name
    again = Procedure.from_json(json.loads(json.dumps(procedure.to_json())))
    assert again == procedure
    assert pickle.loads(pickle.dumps(procedure)) == procedure
    k = procedure.num_components
    assert procedure.states.shape == (procedure.num_states, k)
    assert (procedure.state_classes(procedure.states) == 1 + np.arange(len(procedure.states))).all()


def test_packaged_procedures_golden_facts():
    meccano, industreal = load_procedure("meccano"), load_procedure("industreal")
    assert (meccano.num_components, meccano.num_states, meccano.fps) == (17, 11, 12)
    assert (industreal.num_components, industreal.num_states, industreal.fps) == (11, 22, 10)
    assert industreal.variant_for("01_assy_0_1").initial_state == (1,) + 10 * (0,)
    assert industreal.variant_for("07_main_3_1").expected == (11, 12, 15, 17, 18, 20, 30, 32)
    assert meccano.variant_for("0005").name == "assembly"
    assert meccano.step_name(12) == "Install left frame"
    assert meccano.step_name(13) == "Incorrectly installed left frame"
    assert meccano.step_name(50) == "Remove drive shaft"
    with pytest.raises(ValueError, match="51"):
        meccano.step_name(51)


def test_state_class_error_and_uncatalogued():
    procedure = Procedure.from_json(GOOD)
    assert procedure.error_class == 4
    states = [[1, 1, 0], [0, 1, 0], [1, -1, 0], [0, 0, 0], [1, 1, 1]]
    assert procedure.state_classes(np.array(states)).tolist() == [2, 0, 4, 0, 3]
    assert [procedure.state_class(s) for s in states] == [2, 0, 4, 0, 3]
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        procedure.state_classes(np.zeros((5, 2)))


def test_variant_for_errors_name_the_recording():
    procedure = Procedure.from_json(GOOD)
    assert procedure.variant_for("up_1").name == "up"
    assert procedure.variant_for("whatever", "down").name == "down"
    with pytest.raises(ValueError, match=r"no variant matches recording 'x'.*--variant"):
        procedure.variant_for("x")
    with pytest.raises(ValueError, match=r"several variants match recording 'any'.*up, down"):
        procedure.variant_for("any")
    with pytest.raises(ValueError, match=r"'sideways'.*up, down"):
        procedure.variant_for("up_1", "sideways")


def test_allowed_round_trip_and_what_is_possible():
    plain = Procedure.from_json(GOOD)
    assert [v.allowed for v in plain.variants.values()] == [None, None]
    assert plain.variants["up"].possible == plain.variants["down"].possible == {0, 2, 3, 5, 6, 8}
    assert "allowed" not in plain.to_json()["variants"]["up"]
    data = changed(("variants", "up", "allowed"), [5, 3, 2])
    data["variants"]["down"]["allowed"] = []
    procedure = Procedure.from_json(data)
    assert procedure.variants["up"].allowed == (2, 3, 5)
    assert procedure.variants["up"].possible == {0, 2, 3, 5, 6}
    assert procedure.variants["down"].possible == {2, 5, 8}
    assert Procedure.from_json(json.loads(json.dumps(procedure.to_json()))) == procedure
    assert procedure != plain


def test_allowed_parts_that_are_never_there_stay_away():
    variant = load_procedure("industreal").variants["maintenance"]
    # All start installed but part 4, which is expected.
    assert variant.possible == {s for k in range(11) for s in (3 * k, 3 * k + 2)}
    data = changed(("variants", "up", "expected"), [0])
    data["variants"]["up"]["initial_state"] = "001"
    assert Procedure.from_json(data).variants["up"].possible == {0, 2, 6, 8}


MISTAKES = [
    (("name",), None, "name: is missing"),
    (("fps",), 0, "fps: 0 "),
    (("fps",), 1e6, "fps: 1000000.0 is not in 1e-06…1000"),
    (("fps",), 10**400, "fps: 1000"),
    (("fps",), True, "fps: True"),
    (("colour",), "red", "colour: unknown key"),
    (("components",), [], "components: []"),
    (("components",), {}, "components: {}"),
    (("components", 1), "left", "components[1]: 'left' is also components[0]"),
    (("components", 1), 7, "components[1]: 7"),
    (("states",), [], "states: []"),
    (("states", 1), "100", "states[1]: '100' is also states[0]"),
    (("states", 1), "1100", "states[1]: '1100' has length 4, there are 3 components"),
    (("states", 1), "1x0", "states[1]: '1x0'"),
    (("states", 1), 110, "states[1]: 110"),
    (("variants",), {}, "variants: "),
    (("variants", "up"), [], "variants.up: "),
    (("variants", "up", "color"), 1, "variants.up.color: unknown key"),
    (("variants", "up", "recordings"), None, "variants.up.recordings: is missing"),
    (("variants", "up", "recordings"), "up", "variants.up.recordings: 'up'"),
    (("variants", "up", "initial_state"), "0", "variants.up.initial_state: '0' has length 1"),
    (("variants", "up", "expected"), 3, "variants.up.expected: 3"),
    (("variants", "up", "expected", 1), 9, "variants.up.expected[1]: 9 is not a step id in 0…8"),
    (("variants", "up", "expected", 1), 4, "variants.up.expected[1]: 4 is an incorrect"),
    (("variants", "up", "expected", 1), 0, "variants.up.expected[1]: 0 is also expected[0]"),
    (("variants", "up", "expected", 1), "3", "variants.up.expected[1]: '3'"),
    (("variants", "up", "allowed"), {}, "variants.up.allowed: {} is not a list of step ids"),
    (("variants", "up", "allowed"), [2, 9], "variants.up.allowed[1]: 9 is not a step id in 0…8"),
    (("variants", "up", "allowed"), [4], "variants.up.allowed[0]: 4 is an incorrect"),
    (("variants", "up", "allowed"), [2, 2], "variants.up.allowed[1]: 2 is also allowed[0]"),
    (("variants", "up", "precedence"), 3, "variants.up.precedence: 3"),
    (("variants", "up", "precedence", 0), [0], "variants.up.precedence[0]: [0]"),
    (("variants", "up", "precedence", 0), [0, 9], "variants.up.precedence[0]: 9"),
    (
        ("variants", "up", "precedence"),
        [[8, 2], [0, 3], [3, 6], [6, 0]],
        "variants.up.precedence: the rules form a cycle 0 → 3 → 6 → 0",
    ),
    (("variants", "up", "precedence"), [[3, 3]], "cycle 3 → 3"),
]


@pytest.mark.parametrize(("place", "value", "message"), MISTAKES)
def test_find_mistakes_names_the_place(place, value, message):
    assert find_mistakes(GOOD) == []
    found = find_mistakes(changed(place, value))
    assert len(found) == 1
    assert message in found[0]


def test_find_mistakes_null_is_no_list_of_components():
    (found,) = find_mistakes(GOOD | {"components": None})
    assert found == "components: None is not a list of names"


def test_find_mistakes_names_every_mistake():
    data = changed(("states", 0), "1")
    data["fps"] = -1
    data["variants"]["up"]["expected"] = [99]
    assert len(find_mistakes(data)) == 3
    with pytest.raises(ValueError, match=r"my file: fps: .*\nmy file: states\[0\].*\nmy file: var"):
        Procedure.from_json(data, "my file")


@pytest.mark.parametrize(
    "name",
    [
        "",
        " left",
        "left\t",
        "a\rb",
        "a\0b",
        "a\x1b[2Jb",
        "a\x9bb",
        "a\ud800b",
        "a\u2028b",
        20_000 * "x",
    ],
)
def test_a_name_that_cannot_be_read_back_is_refused_wherever_it_stands(name):
    for place, where in (
        (("name",), "name"),
        (("components", 1), "components[1]"),
        (("variants", "up", "recordings", 0), "variants.up.recordings[0]"),
        (("variants", name), "variants"),
    ):
        value = GOOD["variants"]["up"] if place == ("variants", name) else name
        (mistake,) = find_mistakes(changed(place, value))
        assert mistake.startswith(f"{where}: '")
        assert re.search("is empty|has (white space|control characters|20000 bytes)", mistake)
        assert mistake.isprintable()
        assert len(mistake) < 150


def test_the_keys_of_a_procedure_reach_no_terminal_as_they_are():
    (mistake,) = find_mistakes(changed(("\x1b[2J" + 9000 * "k",), 1))
    assert mistake.startswith(r"\x1b[2Jkkk")
    assert len(mistake) < 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "line 1: not JSON"),
        (b"[]", "a procedure is an object"),
        (b'{"name": "a", "name": "b"}', "'name' is given twice"),
        (b'{"fps": NaN}', "NaN"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100000, "nested too deeply"),
    ],
)
def test_load_procedure_errors_name_the_file(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.json") as error:
        load_procedure(path)
    assert message in str(error.value)


def test_load_procedure_error_lists_packaged_names(tmp_path):
    with pytest.raises(ValueError, match=r"'nothing'.*industreal, meccano"):
        load_procedure("nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        load_procedure(tmp_path)


def test_load_procedure_bom_is_no_mistake(tmp_path):
    path = tmp_path / "toy.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert load_procedure(path).variants["up"].precedence == ((0, 6), (3, 6))
