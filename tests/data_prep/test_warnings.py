import json

import numpy as np
import pytest
import trimesh

from data_prep import cad
from data_prep.products.meshes import load_product, read_inputs
from data_prep.products.warnings import warnings
from tests.support import toy
from tests.support.boxes import box, product, shell

PROCEDURE = toy.procedure("cup, peg, lid", "100 110 111")
CUP = shell((0, 0, 0), (4, 4, 3), 1)
PEG, LID = box((1, 1, 1), (3, 3, 3)), box((0, 0, 3), (4, 4, 4))
COLOURS = ((0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5))


def told(*meshes, procedure=PROCEDURE, **options):
    return warnings(product(*meshes, colours=COLOURS, **options), procedure)


def test_nothing_is_told_of_a_sound_product():
    assert told(CUP, PEG, LID) == []


def test_parts_that_are_not_in_their_places_are_told():
    """As programs export them, each around its own middle."""
    heap = [mesh.copy().apply_translation(-mesh.bounds.mean(axis=0)) for mesh in (CUP, PEG, LID)]
    (line,) = (line for line in told(*heap) if line.startswith("most parts lie in each other (2"))
    assert line.endswith("or say where they go in poses.json")


def test_a_part_in_another_unit_is_told():
    """A lid in inches, far below where it belongs, and one in metres, which nobody would see."""
    inches = LID.copy().apply_translation([0, 0, 10]).apply_scale(1 / 25.4)
    high = [mesh.copy().apply_translation([0, 0, 10]) for mesh in (CUP, PEG)]
    (line,) = (line for line in told(*high, inches) if "lid: is by" in line)
    assert line.startswith("lid: is by itself (it would fit if its numbers are inches, and the")
    metres = LID.copy().apply_scale(1e-3)
    (line,) = (line for line in told(CUP, PEG, metres) if line.startswith("lid: is 0."))
    assert "of the product's size (it would fit if its numbers are inches or metres" in line


@pytest.mark.parametrize(("slot", "lines"), [(0.6, 1), (2.0, 0)])
def test_a_part_that_few_cameras_see_is_told(slot, lines):
    """Under a lid, behind a slot in the front wall."""
    walls = [(0, 0, 1, 4), (3, 0, 4, 4), (1, 3, 3, 4)]
    walls += [(1, 0, 2 - slot / 2, 0.5), (2 + slot / 2, 0, 3, 0.5)][: 2 * (slot < 2)]
    cup = trimesh.util.concatenate([box((a, b, 0), (c, d, 3)) for a, b, c, d in walls])
    peg, built = box((1.2, 0.6, 0), (2.8, 2.8, 2.5)), toy.procedure("cup, peg, lid", "100 111")
    found = told(cup, peg, LID, procedure=built)
    assert len([line for line in found if "hardly a camera sees it" in line]) == lines


@pytest.fixture
def folder(tmp_path):
    """Meshes of a cup, a peg and a lid as STL, a hundredth as large as they should be."""
    (tmp_path / "meshes").mkdir()
    for part, mesh in (("cup", CUP), ("peg", PEG), ("lid", LID)):
        mesh.copy().apply_scale(0.1).export(tmp_path / "meshes" / f"{part}.stl")
    return tmp_path / "meshes"


def load(folder):
    inputs = read_inputs(folder, PROCEDURE)
    drawn = [np.full(3, value) for value in (0.2, 0.4, 0.6)]
    return load_product(inputs, PROCEDURE, y_up=False, drawn=drawn)


def test_missing_colours_and_odd_sizes_are_told_and_one_mesh_gets_one_colour(folder):
    PEG.copy().apply_scale(0.1).apply_translation([0, 0, 0.2]).export(folder / "lid.stl")
    made = load(folder)
    line, of_size = made.notes
    assert "cup.stl, peg.stl, lid.stl: without colours" in line
    assert "is 0.755 from corner to corner: too small to assemble by hand if" in of_size
    cup, peg, lid = (np.unique(part.mesh.colours).tolist() for part in made.parts)
    assert peg == lid != cup
    (folder / "poses.json").write_text(json.dumps({"colors": {"cup": "#ff0000", "peg": "#00ff00"}}))
    made = load(folder)
    assert made.coloured == (True, True, False)
    assert "lid.stl: without colours" in made.notes[0]
    assert "cup.stl" not in made.notes[0]


def test_the_command_tells_warnings_before_it_renders(folder, tmp_path, caplog):
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE.to_json()))
    PEG.copy().apply_scale(0.1).apply_translation([0, 0, 0.2]).export(folder / "lid.stl")
    arguments = [f"--meshes={folder}", f"--procedure={tmp_path / 'toy.json'}", "--per_state=1"]
    arguments += [f"--out={tmp_path / 'out'}", "--size=16", "--workers=1", "--recordings=cad_01"]
    assert cad.main(arguments) == 0
    colours, _, same, page = caplog.messages
    assert "without colours" in colours
    assert "peg and lid look the same" in same
    assert f"{tmp_path / 'out' / 'product.html'} shows the parts in the colours" in page
    assert (tmp_path / "out" / "product.html").read_text().count("data:image/jpeg") > 3
