"""Procedure files: the packaged ones, classes of states, variants and their steps."""

import copy
import json
import pickle

import numpy as np
import pytest

from stormpsr_jax.recordings.procedure import PACKAGED, Procedure, load_procedure
from tests.support import toy

GOOD = toy.content("left, right, lid", variant="up")
GOOD["variants"]["up"] |= {"recordings": ["up_*", "any"], "precedence": [[0, 6], [3, 6]]}
GOOD["variants"]["down"] = {
    "initial_state": "111",
    "expected": [8, 5, 2],
    "recordings": ["down_*", "any"],
}


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


def test_state_class_error_and_uncatalogued():
    procedure = Procedure.from_json(GOOD)
    assert procedure.error_class == 4
    states = [[1, 1, 0], [0, 1, 0], [1, -1, 0], [0, 0, 0], [1, 1, 1]]
    assert procedure.state_classes(np.array(states)).tolist() == [2, 0, 4, 0, 3]
    assert [procedure.state_class(s) for s in states] == [2, 0, 4, 0, 3]
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        procedure.state_classes(np.zeros((5, 2)))


def test_allowed_round_trip_and_what_is_possible():
    plain = Procedure.from_json(GOOD)
    assert [v.allowed for v in plain.variants.values()] == [None, None]
    assert plain.variants["up"].possible == plain.variants["down"].possible == {0, 2, 3, 5, 6, 8}
    assert "allowed" not in plain.to_json()["variants"]["up"]
    data = copy.deepcopy(GOOD)
    data["variants"]["up"]["allowed"] = [5, 3, 2]
    data["variants"]["down"]["allowed"] = []
    procedure = Procedure.from_json(data)
    assert procedure.variants["up"].allowed == (2, 3, 5)
    assert procedure.variants["up"].possible == {0, 2, 3, 5, 6}
    assert procedure.variants["down"].possible == {2, 5, 8}
    # A part that is never there stays away.
    data["variants"]["up"] |= {"initial_state": "001", "expected": [0]}
    del data["variants"]["up"]["allowed"]
    assert Procedure.from_json(data).variants["up"].possible == {0, 2, 6, 8}
    assert Procedure.from_json(json.loads(json.dumps(procedure.to_json()))) == procedure
    assert procedure != plain
