"""IMPACT: a part in transition is as before until that ends."""

import numpy as np
import pytest

from data_prep import impact
from stormpsr_jax.psr.files import label_files, labels
from stormpsr_jax.psr.procedure import load_procedure
from tests.support.commands import refused
from tests.support.impact_data import (
    ASSEMBLY,
    DISASSEMBLY,
    PROCEDURE,
    RAW,
    SPLITS,
    STEPS,
    WITH_ERRORS,
    make_data,
    row,
)


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")


def test_a_step_is_the_end_of_a_transition(data, tmp_path):
    words = [f"--videos={data}/videos", f"--labels={data}/psr", f"--out={tmp_path}/out"]
    assert impact.main([*words, "--size=16", "--workers=1"]) == 0
    assert load_procedure(tmp_path / "out/procedure.json") == PROCEDURE
    stored = {
        name: label_files.read(
            tmp_path / "out/labels" / split / name, PROCEDURE, PROCEDURE.variant_for(name)
        )
        for name, split in SPLITS.items()
    }
    assert stored[ASSEMBLY].steps == [(4, 3), (4, 9), (8, 6)]
    assert stored[DISASSEMBLY].steps == [(7, 2)]
    for name, known in stored.items():
        assert known.with_errors == known.steps, name  # no part is incorrect
        assert not (known.states == -1).any()
    assert stored[ASSEMBLY].frames.tolist() == [0, 4, 8]  # rows that change nothing are gone


def renamed(data):
    for folder in ("psr/train", "videos"):
        (data / folder / ASSEMBLY).rename(data / folder / "20260101_0900_color_front_clipped")


def written(file, text):
    return lambda data: (data / "psr/train" / ASSEMBLY / file).write_text(text)


ERRORS = {
    "PSR_labels_raw.csv: line 6: image: frame 12 is not among the recording's frames 0…11": written(
        "PSR_labels_raw.csv", RAW[ASSEMBLY] + row(12, 1)
    ),
    "PSR_labels_raw.csv: line 1: s_5: '2' is not in": written(
        "PSR_labels_raw.csv", row(0, 0, k5=2)
    ),
    "has states of 2 components, procedure 'impact' has 17": written(
        "PSR_labels_raw.csv", "0.jpg,0,0\n1.jpg,0,1\n"
    ),
    "PSR_labels.csv: line 2: step id: '51' is not in 0…50": written(
        "PSR_labels.csv", STEPS[ASSEMBLY] + "6.jpg,51,Install more\n"
    ),
    "PSR_labels_with_errors.csv: line 3: image: 'x' is not an image name": written(
        "PSR_labels_with_errors.csv", WITH_ERRORS[ASSEMBLY] + "x,4,y\n"
    ),
    "no variant matches recording '20260101_0900_color_front_clipped'": renamed,
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_name_file_line_and_field(data, tmp_path, message, capsys):
    ERRORS[message](data)
    words = [f"--videos={data}/videos", f"--labels={data}/psr", f"--out={tmp_path}/out"]
    assert message in refused(capsys, impact.main, words)
    assert not (tmp_path / "out").exists()


def test_procedure_leaves_the_order_free_within_a_layer_and_takes_apart_in_reverse():
    assembly, disassembly = (PROCEDURE.variants[n] for n in ("assembly", "disassembly"))
    names = PROCEDURE.components
    after = {(names[a // 3], names[b // 3]) for a, b in assembly.precedence}
    assert ("gearbox housing", "adapter plate") in after
    assert not any({"spring", "lever"} == set(pair) for pair in after)
    assert {(names[b // 3], names[a // 3]) for a, b in disassembly.precedence} - after == {
        ("drive shaft", "bearing plate"),
        ("drive shaft", "bearing screw top left"),
        ("drive shaft", "bearing screw low right"),
        ("bevel gear", "bearing plate"),
        ("bevel gear", "bearing screw top left"),
        ("bevel gear", "bearing screw low right"),
        ("M6 nut", "bearing plate"),
        ("M6 nut", "bearing screw top left"),
        ("M6 nut", "bearing screw low right"),
    }
    whole = np.ones((1, PROCEDURE.num_components), np.int8)
    assert labels.states_to_steps([0, 1], np.r_[whole, 0 * whole]) == [
        (1, step) for step in disassembly.expected
    ]
    assert PROCEDURE.state_class(whole[0]) == PROCEDURE.num_states
