"""STEP files as meshes of data_prep.cad: read with cascadio, and a hint without it."""

import sys

import numpy as np
import pytest

from data_prep.products import mesh_files
from data_prep.products.meshes import read_inputs
from stormpsr_jax.psr.procedure import Procedure
from tests.support.step_files import block

PROCEDURE = Procedure.from_json(
    {
        "name": "toy",
        "fps": 5,
        "components": ["base"],
        "states": ["1"],
        "variants": {"all": {"initial_state": "0", "expected": [0], "recordings": ["*"]}},
    }
)


def load(path):
    ((piece,),) = mesh_files.read_all([path])
    return piece


@pytest.mark.parametrize(("unit", "millimetres"), [(".MILLI.,", 1), (".CENTI.,", 10), ("$,", 1000)])
def test_a_block_has_its_bounds_in_millimetres_and_faces_that_look_outwards(
    unit, millimetres, tmp_path
):
    pytest.importorskip("cascadio")
    low, high = np.array([0, 10, 20]), np.array([1, 12, 23])
    (tmp_path / "base.STEP").write_text(block(low, high, unit))
    inputs = read_inputs(tmp_path, PROCEDURE)
    mesh = load(*inputs.files)
    bounds = [mesh.vertices.min(0), mesh.vertices.max(0)]
    np.testing.assert_allclose(bounds, np.array([low, high]) * millimetres, rtol=1e-5)
    corners = mesh.vertices[mesh.faces]
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    np.testing.assert_allclose(volume, 6 * millimetres**3, rtol=1e-4)
    assert mesh.colours.shape == mesh.faces.shape


def test_colours_are_those_of_the_file(tmp_path):
    pytest.importorskip("cascadio")
    colour, path = (0.8, 0.5, 0.2), tmp_path / "base.step"
    path.write_text(block((0, 0, 0), (1, 2, 3), colour=colour))
    np.testing.assert_allclose(load(path).colours, 12 * [colour], atol=0.01)


@pytest.mark.parametrize("text", ["", "garbage", block((0, 0, 0), (1, 1, 1))[:900]])
def test_a_damaged_file_is_one_line(text, tmp_path):
    pytest.importorskip("cascadio")
    (tmp_path / "base.stp").write_text(text)
    with pytest.raises(ValueError, match=r"base\.stp: not a readable STEP file") as error:
        load(tmp_path / "base.stp")
    assert "\n" not in str(error.value)


def test_without_the_library_the_hint_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cascadio", None)
    (tmp_path / "base.step").write_text(block((0, 0, 0), (1, 1, 1)))
    with pytest.raises(
        ValueError, match=r"base\.step: reading a STEP file needs cascadio"
    ) as error:
        read_inputs(tmp_path, PROCEDURE)
    assert "pip install '.[step]'" in str(error.value)
    assert "\n" not in str(error.value)
